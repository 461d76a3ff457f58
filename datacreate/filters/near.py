"""Near-duplicates: examples each of whose inputs shares most of its words and word pairs with another's.

MinHash signatures (Broder, 1997; by the library rensa) with locality-sensitive hashing find candidates. The
Jaccard similarity of the shingles decides, so that a rejection does not depend on the hashing.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain, pairwise

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

_MAX_WAITING = 1024

# Coefficients of a polynomial hash of a band.
_POWERS = np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, MAX_ROWS_PER_BAND + 1, dtype=np.uint64)

Hashed = Sequence[Sequence[int]]
"""The 64-bit hashes of the shingles of each input of an example. The index keeps the upper half, and one of equals."""


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
        self._waiting: list[Hashed] = []  # added, but not in the index yet

    def match(
        self, inputs: Sequence[str], among: str = "", ignored: Sequence[int] = ()
    ) -> tuple[int, float] | None:
        """The number of the most similar example (the first of equals) and its Jaccard similarity.

        Only examples that were added with the same `among` are similar, and none that is ignored.
        """
        self._add_waiting()
        hashed = _hash_shingles(inputs, among)
        kept = list(map(_kept, hashed))
        best = None
        [candidates] = self._index.find(self._bands([hashed]))
        for row in self._similar(kept, candidates):
            similarity = self._similarity(kept, row)
            if (
                similarity >= self._threshold
                and row not in ignored
                and (best is None or similarity > best[1])
            ):
                best = (row, similarity)
        return best

    def _similarity(self, hashed: Sequence[set[int]], row: int) -> float:
        starts = self._starts[self._inputs[row] : self._inputs[row + 1] + 1]
        others: Sequence[set[int]] = [set(self._shingles[begin:end]) for begin, end in pairwise(starts)]
        if len(others) != len(hashed):
            hashed, others = [set[int]().union(*hashed)], [set[int]().union(*others)]
        return min(len(one & other) / len(one | other) for one, other in zip(hashed, others, strict=True))

    def _similar(self, hashed: Sequence[set[int]], rows: list[int]) -> list[int]:
        """The rows that may reach the threshold: a vectorized check of many candidates, of all inputs together."""
        if not rows:
            return rows
        wanted = np.array([value for each in hashed for value in each], np.uint32)
        kept, starts = np.frombuffer(self._shingles, np.uint32), np.frombuffer(self._starts, np.int64)
        first, last = np.frombuffer(self._inputs, np.int64)[np.add.outer((0, 1), rows)]
        begin = starts[first]
        sizes = starts[last] - begin
        offsets = np.cumsum(sizes) - sizes
        pieces = kept[np.repeat(begin - offsets, sizes) + np.arange(sizes.sum())]
        common = np.add.reduceat(np.isin(pieces, wanted), offsets, dtype=np.int64)
        similar = common >= self._threshold * (len(wanted) + sizes - common) - 1e-9
        similar |= last - first != len(hashed)  # inputs may share shingles; `_similarity` merges them
        return [row for row, passes in zip(rows, similar, strict=True) if passes]

    def add(self, inputs: Sequence[str], among: str = "") -> None:
        """Add the next example. Those added without a `match` in between are processed together, which is faster."""
        self._waiting.append(_hash_shingles(inputs, among))
        if len(self._waiting) == _MAX_WAITING:
            self._add_waiting()

    def _add_waiting(self) -> None:
        if not self._waiting:
            return
        self._index.add(self._bands(self._waiting))
        for row in self._waiting:
            for each in row:
                self._shingles.extend(_kept(each))
                self._starts.append(len(self._shingles))
            self._inputs.append(len(self._starts) - 1)
        self._waiting = []

    def _bands(self, rows: Sequence[Hashed]) -> Hashes:
        """The hash of each band of all inputs of an example together, (n, BANDS)."""
        size = BANDS * self._rows_per_band
        merged = [list(chain.from_iterable(each)) for each in rows]
        digests = RMinHash.digest_matrix_from_token_hash_sets(merged, size, _SEED).to_rows()
        signatures = np.fromiter(chain.from_iterable(digests), np.uint64, len(rows) * size)
        powers = _POWERS[: self._rows_per_band]
        bands = (signatures.reshape(len(rows), BANDS, -1) @ powers) >> np.uint64(32)
        return bands.astype(np.uint32)


def _hash_shingles(inputs: Sequence[str], among: str) -> Hashed:
    tokens = [shingles(text) for text in inputs or [""]]
    hashed: Hashed = RMinHash.hash_token_sets(
        [[among + token for token in each] for each in tokens] if among else tokens
    )
    return hashed


def _kept(hashes: Sequence[int]) -> set[int]:
    return {value >> 32 for value in hashes}


class NearDuplicates(Filter):
    """Finds texts that are similar to an added one."""

    reason = Reason.NEAR_DUPLICATE

    def __init__(self, settings: FilterSettings, inputs: FilterInputs) -> None:
        assert settings.near is not None, "the filter is on"
        self._index = NearIndex(settings.near)
        self._numbers = array("q")
        self._origin = inputs.origin

    def match(self, candidate: Candidate, ignore: int | None = None) -> str | None:
        rows = enumerate(self._numbers) if ignore is not None else ()
        ignored = [row for row, number in rows if number == ignore]
        found = self._index.match(*_compared(candidate), ignored)
        if found is None:
            return None
        row, similarity = found
        return f"similar to {self._origin} {self._numbers[row]}, Jaccard {similarity:.2f}"

    def add(self, candidate: Candidate, number: int) -> None:
        self._index.add(*_compared(candidate))
        self._numbers.append(number)


def _compared(candidate: Candidate) -> tuple[Sequence[str], str]:
    """The inputs of an example to compare, and among which examples: those about its passage, if it was given one."""
    if not candidate.passage_id:
        return candidate.inputs, ""
    return tuple(text for text in candidate.inputs if text != candidate.passage), candidate.passage_id


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
