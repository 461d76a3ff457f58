"""The index that near-duplicates are found with.

MinHash signatures (Broder, 1997; by the library rensa) with locality-sensitive hashing propose earlier examples. The
Jaccard similarity of the shingles decides, so that a match does not depend on the hashing. `NearIndex` finds the most
similar example; shingles, hashing and the index of hashes (`LshIndex`) are below it.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import chain, pairwise
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from datacreate.formats.text_normalization import words

BANDS = 32

MAX_VALUES_PER_BAND = 8
"""Above this, longer signatures cost more time than they save by avoiding needless comparisons."""

MIN_RECALL = 0.97  # minimum probability that a pair at the threshold is compared (formula in `values_per_band`)
_SEED = 1
_MAX_UNINDEXED = 1024  # examples that are put into the index together

_POWERS = np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, MAX_VALUES_PER_BAND + 1, dtype=np.uint64)
"""Coefficients of a polynomial hash of a band."""

MAX_IN_BUCKET = 32
"""Rows kept per bucket, the oldest ones: the cost of a query stays constant where thousands are similar."""

_FIRST_BUCKETS = 1024
_CHUNK = 4096  # rows that are put into buckets together

Hashes = NDArray[np.uint32]

InputHashes = Sequence[Sequence[int]]  # the 64-bit hashes of the shingles of each input of an example


class Match(NamedTuple):
    """The most similar of the examples that were added."""

    number: int  # of the example, from 0 in the order of addition
    similarity: float  # Jaccard similarity


class NearIndex:
    """Examples by their inputs, searchable for the most similar one.

    An example is as similar to another as the least similar of its inputs: different questions about one passage, or
    different texts under one instruction, are not near-duplicates. A pair at the threshold is found with a probability
    of about `MIN_RECALL`, a more similar pair with a higher one. Pairs below the threshold are never rejected.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._values_per_band = values_per_band(threshold)
        self._index = LshIndex(BANDS)
        self._shingles: list[list[array[int]]] = []  # of each input of each example: short hashes
        self._unindexed: list[InputHashes] = []  # of examples that were added, but are not in the index yet

    def match(self, inputs: Sequence[str], group: str = "") -> Match | None:
        """The most similar example (the first of equals) that was added with the same `group`."""
        self._add_unindexed()
        hashes = _hash_shingles(inputs, group)
        own_shingles = list(map(_short_hashes, hashes))
        [proposed] = self._index.find(self._bands([hashes]))
        matches = (Match(number, _similarity(own_shingles, self._shingles[number])) for number in proposed)
        best = max(matches, key=attrgetter("similarity"), default=Match(0, 0.0))
        return best if best.similarity >= self._threshold else None

    def add(self, inputs: Sequence[str], group: str = "") -> None:
        """Add the next example. Those added without a `match` in between are processed together, which is faster."""
        self._unindexed.append(_hash_shingles(inputs, group))
        if len(self._unindexed) == _MAX_UNINDEXED:
            self._add_unindexed()

    def _add_unindexed(self) -> None:
        if not self._unindexed:
            return
        self._index.add(self._bands(self._unindexed))
        for inputs in self._unindexed:
            self._shingles.append([array("I", _short_hashes(hashes)) for hashes in inputs])
        self._unindexed = []

    def _bands(self, examples: Sequence[InputHashes]) -> Hashes:
        """The hash of each band of an example, of all its inputs together, (n, BANDS)."""
        size, merged = BANDS * self._values_per_band, list(map(_merged, examples))
        return hash_bands(RMinHash.digest_matrix_from_token_hash_sets(merged, size, _SEED).to_rows(), BANDS)


def _merged(inputs: InputHashes) -> list[int]:
    """The hashes of all inputs together, with another hash for each further input that has the same shingle.

    So two examples are at least as similar as their least similar inputs.
    """
    counts = Counter(chain.from_iterable(map(set, inputs)))
    return [(value + copy) % 2**64 for value, count in counts.items() for copy in range(count)]


def _hash_shingles(inputs: Sequence[str], group: str) -> InputHashes:
    """The hashes of the shingles; examples of different groups have no hash in common."""
    tokens = [[group + token for token in shingles(text)] for text in inputs or [""]]
    hashes: InputHashes = RMinHash.hash_token_sets(tokens)
    return hashes


def _short_hashes(hashes: Sequence[int]) -> set[int]:
    """The upper 32 bits of 64-bit hashes, which are enough to compare two examples."""
    return {value >> 32 for value in hashes}


def _similarity(inputs: list[set[int]], stored: Sequence[array[int]]) -> float:
    """The smallest Jaccard similarity of an input and that input of the other example.

    Examples with different numbers of inputs are compared as a whole.
    """
    others = list(map(set, stored))
    if len(others) != len(inputs):
        inputs, others = [set[int]().union(*inputs)], [set[int]().union(*others)]
    return min(len(own & other) / len(own | other) for own, other in zip(inputs, others, strict=True))


def shingles(text: str) -> list[str]:
    """The words and pairs of neighboring words of a text; the text itself if it has no words."""
    encodable = text.encode("utf-8", "replace").decode("utf-8")  # rensa takes no lone surrogates
    text_words = words(encodable, limit=None)
    return [*text_words, *map(" ".join, pairwise(text_words))] or [encodable]


def values_per_band(threshold: float) -> int:
    """The most values of a signature per band that keep `MIN_RECALL` at the threshold.

    A pair of similarity s shares one of b bands of v values with probability 1 - (1 - s^v)^b.
    """
    fitting = [v for v in range(1, MAX_VALUES_PER_BAND + 1) if 1 - (1 - threshold**v) ** BANDS >= MIN_RECALL]
    return max(fitting, default=1)


def hash_bands(signatures: Sequence[Sequence[int]], bands: int) -> Hashes:
    """The hash of each band of MinHash signatures of at most `MAX_VALUES_PER_BAND` values per band, (n, bands)."""
    values = np.fromiter(chain.from_iterable(signatures), np.uint64, sum(map(len, signatures)))
    values = values.reshape(len(signatures), bands, -1)
    return ((values @ _POWERS[: values.shape[2]]) >> np.uint64(32)).astype(np.uint32)


class LshIndex:
    """Rows by the hashes of their bands, numbered from 0 in the order of addition, in bounded memory.

    A row in a bucket stays there, so `find` never loses a row that it once found. The method is that of Indyk & Motwani
    (1998), described in Mining of Massive Datasets, 3.4. A bucket is a linked list of rows, kept in numpy arrays: 16 to
    18 bytes per band and row; hash maps with a list per bucket need five times as much. In these arrays rows count from
    1, and 0 means none.
    """

    def __init__(self, bands: int) -> None:
        self._bands = np.arange(bands)
        self._hashes = np.zeros((_FIRST_BUCKETS, bands), np.uint32)
        self._older = np.zeros((_FIRST_BUCKETS, bands), np.int32)  # the next row of the bucket
        self._length = 0
        self._make_buckets(_FIRST_BUCKETS)

    def find(self, hashes: Hashes) -> list[list[int]]:
        """For each row of `hashes`, (n, bands), the rows that share at least one band hash with it; ascending."""
        rows_of_queries: list[set[int]] = [set() for _ in hashes]
        newest = self._newest[self._buckets(hashes)]
        query, band = np.nonzero(newest)
        current = newest[query, band]
        while current.size:
            row = current - 1
            same = self._hashes[row, band] == hashes[query, band]
            for query_number, row_number in zip(query[same].tolist(), row[same].tolist(), strict=True):
                rows_of_queries[query_number].add(row_number)
            current = self._older[row, band]
            unfinished = np.flatnonzero(current)
            query, band, current = query[unfinished], band[unfinished], current[unfinished]
        return list(map(sorted, rows_of_queries))

    def add(self, hashes: Hashes) -> None:
        """Add the next rows, (n, bands)."""
        first, self._length = self._length, self._length + len(hashes)
        if self._length > len(self._hashes):
            growth = ((0, max(self._length - len(self._hashes), len(self._hashes) // 4)), (0, 0))
            self._hashes, self._older = np.pad(self._hashes, growth), np.pad(self._older, growth)
        self._hashes[first : self._length] = hashes
        if self._length > self._buckets_per_band:
            self._make_buckets(2 * self._buckets_per_band)
            first = 0
        for begin in range(first, self._length, _CHUNK):
            self._link(begin, min(begin + _CHUNK, self._length))

    def _buckets(self, hashes: Hashes) -> NDArray[np.int64]:
        """The bucket of each band hash, (n, bands)."""
        return self._bands * self._buckets_per_band + hashes % self._buckets_per_band

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
        older = np.where(position > 0, np.r_[0, rows[:-1] + 1][: len(rows)], self._newest[buckets])
        self._older[rows, order % len(self._bands)] = older
        self._newest[buckets] = rows + 1  # of equal buckets, the last assignment counts
        self._sizes[buckets] += (position + 1).astype(np.uint8)

    def _make_buckets(self, count: int) -> None:
        """Make `count` empty buckets per band, or more if there are more rows."""
        self._buckets_per_band = max(count, self._length)
        self._newest = np.zeros(len(self._bands) * self._buckets_per_band, np.int32)
        self._sizes = np.zeros(len(self._bands) * self._buckets_per_band, np.uint8)
        self._older[:] = 0
