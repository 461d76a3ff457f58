"""Near-duplicates: examples each of whose inputs shares most of its words and word pairs with another's.

MinHash signatures (Broder, 1997; by the library rensa) with locality-sensitive hashing find candidates. The
Jaccard similarity of the shingles decides, so that a rejection does not depend on the hashing.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import Self

import numpy as np
from rensa import RMinHash

from datacreate.filters.base import Filter, FilterInputs, FilterSettings
from datacreate.filters.lsh import Hashes, LshIndex
from datacreate.formats.text_normalization import words
from datacreate.formats.validate import Candidate, Reason

BANDS = 32

MAX_ROWS_PER_BAND = 8
"""Above this, longer signatures cost more time than they save by avoiding false candidates."""

MIN_RECALL = 0.97
"""Minimum probability that a pair at the threshold becomes a candidate (formula in `rows_per_band`)."""

MAX_SHINGLES = 128
"""Shingles kept per text. Up to this number (64 words) Jaccard is exact. Of a longer text the smallest hashes are
kept (bottom-k, Broder 1997); the standard error of the estimate is below 0.045."""

_SEED = 1

_SCALAR_LIMIT = 4
"""Up to this number of candidates, comparing them one by one is faster than the numpy calls."""

# Coefficients of a polynomial hash of a band.
_POWERS = np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, MAX_ROWS_PER_BAND + 1, dtype=np.uint64)


Sketches = Sequence[Sequence[int]]
"""Of each input of an example."""


class NearIndex:
    """Examples by their inputs, numbered from 0, searchable for the most similar one.

    An example is as similar to another as the least similar of its inputs: different questions about one passage, or
    different texts under one instruction, are not near-duplicates. Case, punctuation and the order of words beyond
    pairs are ignored. A pair at the threshold is found with a probability of about `MIN_RECALL`, a more similar pair
    with a higher one. Pairs below the threshold are never rejected, except in texts over 64 words, where similarity is
    estimated.
    """

    def __init__(self, threshold: float) -> None:
        """`threshold` is in (0, 1]."""
        self._threshold = threshold
        self._rows_per_band = rows_per_band(threshold)
        self._index = LshIndex(BANDS)
        self._shingles = array("I")  # of all inputs, one after the other
        self._starts = array("q", [0])  # of each input in `_shingles`
        self._inputs = array("q", [0])  # of each example: its first input in `_starts`
        self._last: tuple[Sequence[str], Sketches, Hashes] | None = None

    def match(self, inputs: Sequence[str]) -> tuple[int, float] | None:
        """The number of the most similar example (the first of equals) and its Jaccard similarity."""
        sketches, hashes = self._hash(inputs)
        best = None
        for row in self._similar(sketches, self._index.find(hashes)):
            similarity = self._similarity(sketches, row)
            if similarity >= self._threshold and (best is None or similarity > best[1]):
                best = (row, similarity)
        return best

    def _similarity(self, sketches: Sketches, row: int) -> float:
        begin, end = self._inputs[row], self._inputs[row + 1]
        others: Sketches = [self._shingles[self._starts[i] : self._starts[i + 1]] for i in range(begin, end)]
        if len(others) != len(sketches):
            sketches, others = [_merged(sketches)], [_merged(others)]
        return min(jaccard(one, other) for one, other in zip(sketches, others, strict=True))

    def _similar(self, sketches: Sketches, rows: list[int]) -> list[int]:
        """The rows that may reach the threshold: a vectorized check of many candidates, of all inputs together."""
        if len(rows) <= _SCALAR_LIMIT:
            return rows
        sketch = [value for each in sketches for value in each]
        kept, starts = np.frombuffer(self._shingles, np.uint32), np.frombuffer(self._starts, np.int64)
        inputs = np.frombuffer(self._inputs, np.int64)
        begin = starts[inputs[rows]]
        sizes = starts[inputs[np.add(rows, 1)]] - begin
        offsets = np.cumsum(sizes) - sizes
        pieces = kept[np.repeat(begin - offsets, sizes) + np.arange(sizes.sum())]
        common = np.add.reduceat(np.isin(pieces, np.array(sketch, np.uint32)), offsets, dtype=np.int64)
        similar = common >= self._threshold * (len(sketch) + sizes - common) - 1e-9
        estimated = (sizes >= MAX_SHINGLES) | (len(sketch) >= MAX_SHINGLES)  # needs `jaccard`
        return [row for row, passes in zip(rows, similar | estimated, strict=True) if passes]

    def add(self, inputs: Sequence[str]) -> None:
        """Add the next example."""
        sketches, hashes = self._hash(inputs)
        self._index.add(hashes)
        for sketch in sketches:
            self._shingles.extend(sketch)
            self._starts.append(len(self._shingles))
        self._inputs.append(len(self._starts) - 1)

    def _hash(self, inputs: Sequence[str]) -> tuple[Sketches, Hashes]:
        """The sketch of each input, and the hash of each band of all inputs together, (BANDS,)."""
        if self._last is None or self._last[0] != inputs:  # an added example was usually matched just before
            pieces = [shingles(text) for text in inputs or [""]]
            signature = RMinHash(BANDS * self._rows_per_band, _SEED)
            signature.update([piece for each in pieces for piece in each])
            rows = np.array(signature.digest(), np.uint64).reshape(BANDS, self._rows_per_band)
            hashes = (rows @ _POWERS[: self._rows_per_band]) >> np.uint64(32)
            self._last = (inputs, [sketch_of(each) for each in pieces], hashes.astype(np.uint32))
        return self._last[1:]


class NearDuplicates(Filter):
    """Finds texts that are similar to an added one."""

    reason = Reason.NEAR_DUPLICATE

    @classmethod
    def make(cls, settings: FilterSettings, _inputs: FilterInputs, /) -> Self:
        assert settings.near is not None, "the filter is on"
        return cls(settings.near)

    def __init__(self, threshold: float) -> None:
        self._index = NearIndex(threshold)

    def match(self, candidate: Candidate) -> str | None:
        found = self._index.match(candidate.inputs)
        return f"similar to example {found[0] + 1}, Jaccard {found[1]:.2f}" if found else None

    def add(self, candidate: Candidate) -> None:
        self._index.add(candidate.inputs)


def rows_per_band(threshold: float) -> int:
    """The most rows that keep `MIN_RECALL` at the threshold.

    A pair of similarity s shares one of b bands of r rows with probability 1 - (1 - s^r)^b.
    """
    for rows in range(MAX_ROWS_PER_BAND, 1, -1):
        if 1 - (1 - threshold**rows) ** BANDS >= MIN_RECALL:
            return rows
    return 1


def shingles(text: str) -> list[str]:
    """Words and pairs of neighboring words; of a text without words, the text itself."""
    text = text.encode("utf-8", "replace").decode("utf-8")  # rensa takes no lone surrogates
    found = words(text, limit=None)
    return found + [f"{word} {following}" for word, following in pairwise(found)] or [text]


def sketch_of(pieces: Sequence[str]) -> Sequence[int]:
    """The `MAX_SHINGLES` smallest different 32-bit hashes of the shingles, ascending."""
    [hashes] = RMinHash.hash_token_sets([pieces])
    return sorted({value >> 32 for value in hashes})[:MAX_SHINGLES]


def _merged(sketches: Sketches) -> Sequence[int]:
    return sorted({value for sketch in sketches for value in sketch})[:MAX_SHINGLES]


def jaccard(one: Sequence[int], other: Sequence[int]) -> float:
    """The Jaccard similarity of two sketches; an estimate if one of them is cut at `MAX_SHINGLES`."""
    largest_common_hash = min((kept[-1] for kept in (one, other) if len(kept) == MAX_SHINGLES), default=None)
    a, b = set(one), set(other)
    if largest_common_hash is not None:
        a = {x for x in a if x <= largest_common_hash}
        b = {x for x in b if x <= largest_common_hash}
    common = len(a & b)
    return common / (len(a) + len(b) - common)
