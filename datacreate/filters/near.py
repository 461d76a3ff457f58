"""Near-duplicates: examples each of whose inputs shares most of its words and word pairs with another's.

MinHash signatures (Broder, 1997; by the library rensa) with locality-sensitive hashing find candidates. The
Jaccard similarity of the shingles decides, so that a rejection does not depend on the hashing.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import pairwise

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

_SEED = 1

# Coefficients of a polynomial hash of a band.
_POWERS = np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, MAX_ROWS_PER_BAND + 1, dtype=np.uint64)

Shingles = Sequence[set[int]]
"""The 32-bit hashes of the shingles of each input of an example."""


class NearIndex:
    """Examples by their inputs, numbered from 0, searchable for the most similar one.

    An example is as similar to another as the least similar of its inputs: different questions about one passage, or
    different texts under one instruction, are not near-duplicates. Case, punctuation and the order of words beyond
    pairs are ignored. A pair at the threshold is found with a probability of about `MIN_RECALL`, a more similar pair
    with a higher one. Pairs below the threshold are never rejected.
    """

    def __init__(self, threshold: float) -> None:
        """`threshold` is in (0, 1]."""
        self._threshold = threshold
        self._rows_per_band = rows_per_band(threshold)
        self._index = LshIndex(BANDS)
        self._shingles = array("I")  # of all inputs, one after the other
        self._starts = array("q", [0])  # of each input in `_shingles`
        self._inputs = array("q", [0])  # of each example: its first input in `_starts`
        self._last: tuple[Sequence[str], Shingles, Hashes] | None = None

    def match(self, inputs: Sequence[str]) -> tuple[int, float] | None:
        """The number of the most similar example (the first of equals) and its Jaccard similarity."""
        hashed, bands = self._hash(inputs)
        best = None
        for row in self._index.find(bands):
            similarity = self._similarity(hashed, row)
            if similarity >= self._threshold and (best is None or similarity > best[1]):
                best = (row, similarity)
        return best

    def _similarity(self, hashed: Shingles, row: int) -> float:
        starts = self._starts[self._inputs[row] : self._inputs[row + 1] + 1]
        others: Shingles = [set(self._shingles[begin:end]) for begin, end in pairwise(starts)]
        if len(others) != len(hashed):
            hashed, others = [set[int]().union(*hashed)], [set[int]().union(*others)]
        return min(len(one & other) / len(one | other) for one, other in zip(hashed, others, strict=True))

    def add(self, inputs: Sequence[str]) -> None:
        """Add the next example."""
        hashed, bands = self._hash(inputs)
        self._index.add(bands)
        for each in hashed:
            self._shingles.extend(each)
            self._starts.append(len(self._shingles))
        self._inputs.append(len(self._starts) - 1)

    def _hash(self, inputs: Sequence[str]) -> tuple[Shingles, Hashes]:
        """The shingles of each input, and the hash of each band of all inputs together, (BANDS,)."""
        if self._last is None or self._last[0] != inputs:  # an added example was usually matched just before
            pieces = [shingles(text) for text in inputs or [""]]
            signature = RMinHash(BANDS * self._rows_per_band, _SEED)
            signature.update([piece for each in pieces for piece in each])
            rows = np.array(signature.digest(), np.uint64).reshape(BANDS, self._rows_per_band)
            bands = (rows @ _POWERS[: self._rows_per_band]) >> np.uint64(32)
            hashed = [{value >> 32 for value in each} for each in RMinHash.hash_token_sets(pieces)]
            self._last = (inputs, hashed, bands.astype(np.uint32))
        return self._last[1:]


class NearDuplicates(Filter):
    """Finds texts that are similar to an added one."""

    reason = Reason.NEAR_DUPLICATE

    def __init__(self, settings: FilterSettings, inputs: FilterInputs) -> None:
        assert settings.near is not None, "the filter is on"
        self._index = NearIndex(settings.near)
        self._numbers = array("q")
        self._origin = inputs.origin

    def match(self, candidate: Candidate) -> str | None:
        found = self._index.match(candidate.inputs)
        if found is None:
            return None
        row, similarity = found
        return f"similar to {self._origin} {self._numbers[row]}, Jaccard {similarity:.2f}"

    def add(self, candidate: Candidate, number: int) -> None:
        self._index.add(candidate.inputs)
        self._numbers.append(number)


def rows_per_band(threshold: float) -> int:
    """The most rows that keep `MIN_RECALL` at the threshold.

    A pair of similarity s shares one of b bands of r rows with probability 1 - (1 - s^r)^b.
    """
    fitting = [r for r in range(1, MAX_ROWS_PER_BAND + 1) if 1 - (1 - threshold**r) ** BANDS >= MIN_RECALL]
    return max(fitting, default=1)


def shingles(text: str) -> list[str]:
    """Words and pairs of neighboring words; of a text without words, the text itself."""
    found = encodable_words(text)
    return [*found, *map(" ".join, pairwise(found))] or [_encodable(text)]


def encodable_words(text: str) -> list[str]:
    """All words of a text, without lone surrogates, which rensa does not take."""
    return words(_encodable(text), limit=None)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
