"""Near-duplicates: examples each of whose inputs shares most of its words and word pairs with another's.

MinHash signatures (Broder, 1997; by the library rensa) with locality-sensitive hashing find candidates. The
Jaccard similarity of the shingles decides, so that a rejection does not depend on the hashing.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain, pairwise
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from datacreate.filters.filter import Filter, FilterInputs
from datacreate.filters.settings import FilterOptions
from datacreate.formats.text_normalization import words
from datacreate.formats.validate import Candidate, RejectReason

BANDS = 32

MAX_ROWS_PER_BAND = 8
"""Above this, longer signatures cost more time than they save by avoiding false candidates."""

MIN_RECALL = 0.97
"""Minimum probability that a pair at the threshold becomes a candidate (formula in `rows_per_band`)."""

_SEED = 1

_MAX_WAITING = 1024

# Coefficients of a polynomial hash of a band.
_POWERS = np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, MAX_ROWS_PER_BAND + 1, dtype=np.uint64)

MAX_IN_BUCKET = 32
"""Rows kept per bucket, the oldest ones: the cost of a query stays constant where thousands are similar."""

_FIRST_SLOTS = 1024

_CHUNK = 4096  # rows that are put into buckets together

Hashes = NDArray[np.uint32]

Hashed = Sequence[Sequence[int]]
"""The 64-bit hashes of the shingles of each input of an example. The index keeps the upper 32 bits, without repeats."""


class NearIndex:
    """Examples by their inputs, numbered from 0, searchable for the most similar one.

    An example is as similar to another as the least similar of its inputs: different questions about one passage, or
    different texts under one instruction, are not near-duplicates. A pair at the threshold is found with a probability
    of about `MIN_RECALL`, a more similar pair with a higher one. Pairs below the threshold are never rejected.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._rows_per_band = rows_per_band(threshold)
        self._index = LshIndex(BANDS)
        self._rows: list[list[array[int]]] = []  # of each example and input: the shingles
        self._waiting: list[Hashed] = []  # added, but not in the index yet

    def match(self, inputs: Sequence[str], among: str = "") -> tuple[int, float] | None:
        """The number of the most similar example (the first of equals) and its Jaccard similarity.

        Only examples that were added with the same `among` are similar.
        """
        self._add_waiting()
        hashed = _hash_shingles(inputs, among)
        kept = list(map(_kept, hashed))
        [candidates] = self._index.find(self._bands([hashed]))
        found = ((row, _similarity(kept, self._rows[row])) for row in candidates)
        best = max(found, key=itemgetter(1), default=(0, 0.0))
        return best if best[1] >= self._threshold else None

    def add(self, inputs: Sequence[str], among: str = "") -> None:
        """Add the next example. Those added without a `match` in between are processed together, which is faster."""
        self._waiting.append(_hash_shingles(inputs, among))
        if len(self._waiting) == _MAX_WAITING:
            self._add_waiting()

    def _add_waiting(self) -> None:
        if not self._waiting:
            return
        self._index.add(self._bands(self._waiting))
        self._rows += [[array("I", _kept(each)) for each in row] for row in self._waiting]
        self._waiting = []

    def _bands(self, rows: Sequence[Hashed]) -> Hashes:
        """The hash of each band of all inputs of an example together, (n, BANDS)."""
        size = BANDS * self._rows_per_band
        merged = [list(chain.from_iterable(each)) for each in rows]
        return hash_bands(RMinHash.digest_matrix_from_token_hash_sets(merged, size, _SEED).to_rows(), BANDS)


def _hash_shingles(inputs: Sequence[str], among: str) -> Hashed:
    tokens = [shingles(text) for text in inputs or [""]]
    hashed: Hashed = RMinHash.hash_token_sets(
        [[among + token for token in each] for each in tokens] if among else tokens
    )
    return hashed


def _kept(hashes: Sequence[int]) -> set[int]:
    return {value >> 32 for value in hashes}


def _similarity(inputs: list[set[int]], stored: Sequence[array[int]]) -> float:
    """The least Jaccard similarity of an input to the other example's; of all together, if their numbers differ."""
    others = list(map(set, stored))
    if len(others) != len(inputs):
        inputs, others = [set[int]().union(*inputs)], [set[int]().union(*others)]
    return min(len(one & other) / len(one | other) for one, other in zip(inputs, others, strict=True))


class NearDuplicates(Filter):
    """Rejects examples all of whose inputs are similar to an earlier one's."""

    name = "near"
    reason = RejectReason.NEAR_DUPLICATE
    setting_names = ("near",)

    def __init__(self, settings: FilterOptions, inputs: FilterInputs) -> None:
        assert settings.near is not None, "the filter is on"
        self._index = NearIndex(settings.near)
        self._numbers = array("q")
        self._number_prefix = inputs.number_prefix

    def find_conflict(self, candidate: Candidate) -> str | None:
        found = self._index.match(*_compared(candidate))
        if found is None:
            return None
        row, similarity = found
        return f"similar to {self._number_prefix} {self._numbers[row]}, Jaccard {similarity:.2f}"

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


def hash_bands(signatures: Sequence[Sequence[int]], bands: int) -> Hashes:
    """The hash of each band of MinHash signatures of at most `MAX_ROWS_PER_BAND` values per band, (n, bands)."""
    values = np.fromiter(chain.from_iterable(signatures), np.uint64, sum(map(len, signatures)))
    values = values.reshape(len(signatures), bands, -1)
    return ((values @ _POWERS[: values.shape[2]]) >> np.uint64(32)).astype(np.uint32)


def shingles(text: str) -> list[str]:
    """Words and pairs of neighboring words; of a text without words, the text itself."""
    found = encodable_words(text)
    return [*found, *map(" ".join, pairwise(found))] or [_encodable(text)]


def encodable_words(text: str) -> list[str]:
    """All words of a text, without lone surrogates, which rensa does not take."""
    return words(_encodable(text), limit=None)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


class LshIndex:
    """Rows by the hashes of their bands, numbered from 0 in the order of addition, in bounded memory.

    A row in a bucket stays there, so `find` never loses a row that it once found. The method is that of Indyk & Motwani
    (1998), described in Mining of Massive Datasets, 3.4. The tables are numpy arrays of chained rows, 16 to 18 bytes
    per band and row; hash maps with a list per bucket need five times as much.
    """

    def __init__(self, bands: int) -> None:
        self._bands = np.arange(bands)
        self._hashes = np.zeros((_FIRST_SLOTS, bands), np.uint32)
        self._older = np.zeros((_FIRST_SLOTS, bands), np.int32)  # next row of the bucket, from 1; 0 is none
        self._length = 0
        self._make_slots(_FIRST_SLOTS)

    def find(self, hashes: Hashes) -> list[list[int]]:
        """For each row of `hashes`, (n, bands), the rows that share at least one band hash with it; ascending."""
        found: list[set[int]] = [set() for _ in hashes]
        newest = self._newest[self._buckets(hashes)]
        query, band = np.nonzero(newest)
        at = newest[query, band]
        while at.size:
            row = at - 1
            same = self._hashes[row, band] == hashes[query, band]
            for each, other in zip(query[same].tolist(), row[same].tolist(), strict=True):
                found[each].add(other)
            at = self._older[row, band]
            more = np.flatnonzero(at)
            query, band, at = query[more], band[more], at[more]
        return list(map(sorted, found))

    def add(self, hashes: Hashes) -> None:
        """Add the next rows, (n, bands)."""
        first, self._length = self._length, self._length + len(hashes)
        if self._length > len(self._hashes):
            more = ((0, max(self._length - len(self._hashes), len(self._hashes) // 4)), (0, 0))
            self._hashes, self._older = np.pad(self._hashes, more), np.pad(self._older, more)
        self._hashes[first : self._length] = hashes
        if self._length > self._slots:
            self._make_slots(2 * self._slots)
            first = 0
        for begin in range(first, self._length, _CHUNK):
            self._link(begin, min(begin + _CHUNK, self._length))

    def _buckets(self, hashes: Hashes) -> NDArray[np.int64]:
        """The bucket of each band hash, (n, bands)."""
        return self._bands * self._slots + hashes % self._slots

    def _link(self, begin: int, end: int) -> None:
        """Put rows into the buckets that are not full."""
        buckets = self._buckets(self._hashes[begin:end]).ravel()
        order = np.argsort(buckets, kind="stable")  # rows of a bucket side by side, in order
        buckets = buckets[order]
        starts = np.flatnonzero(np.r_[True, buckets[1:] != buckets[:-1]])
        position = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
        fits = position + self._sizes[buckets] < MAX_IN_BUCKET
        order, buckets, position = order[fits], buckets[fits], position[fits]
        rows = begin + order // len(self._bands)
        before = np.where(position > 0, np.r_[0, rows[:-1] + 1][: len(rows)], self._newest[buckets])
        self._older[rows, order % len(self._bands)] = before
        self._newest[buckets] = rows + 1  # of equal buckets, the last assignment counts
        self._sizes[buckets] += (position + 1).astype(np.uint8)

    def _make_slots(self, slots: int) -> None:
        """Empty tables with `slots` buckets per band, or more if there are more rows."""
        self._slots = max(slots, self._length)
        self._newest = np.zeros(len(self._bands) * self._slots, np.int32)
        self._sizes = np.zeros(len(self._bands) * self._slots, np.uint8)
        self._older[:] = 0
