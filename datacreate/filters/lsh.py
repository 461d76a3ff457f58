"""Locality-sensitive hashing in bounded memory: finds rows that share a band with a new row.

The method is that of Indyk & Motwani (1998), described in Mining of Massive Datasets, 3.4. The tables are numpy
arrays of chained rows, 16 to 18 bytes per band and row; hash maps with a list per bucket need five times as much.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_IN_BUCKET = 32
"""Rows kept per bucket, the oldest ones: the cost of a query stays constant where thousands are similar."""

_FIRST_SLOTS = 1024

Hashes = NDArray[np.uint32]


class LshIndex:
    """Rows by the hashes of their bands, numbered from 0 in the order of addition.

    A row in a bucket stays there, so `find` never loses a row that it once found.
    """

    def __init__(self, bands: int) -> None:
        self._band = np.arange(bands)
        self._hashes = np.zeros((_FIRST_SLOTS, bands), np.uint32)
        self._older = np.zeros((_FIRST_SLOTS, bands), np.int32)  # next row of the bucket, from 1; 0 is none
        self._length = 0
        self._make_slots(_FIRST_SLOTS)

    def find(self, hashes: Hashes) -> list[list[int]]:
        """For each row of `hashes`, (n, bands), the rows that share at least one band hash with it; ascending."""
        found: list[set[int]] = [set() for _ in hashes]
        newest = self._newest[self._band, hashes & self._mask]
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
        if self._length > self._newest.shape[1]:
            self._make_slots(2 * self._newest.shape[1])
        elif len(hashes) == 1:
            self._link(first)
        else:
            self._link_all(first)

    def _link(self, row: int) -> None:
        """Put a row into the buckets that are not full."""
        slot = self._hashes[row] & self._mask
        band = np.flatnonzero(self._sizes[self._band, slot] < MAX_IN_BUCKET)
        slot = slot[band]
        self._older[row, band] = self._newest[band, slot]
        self._newest[band, slot] = row + 1
        self._sizes[band, slot] += 1

    def _link_all(self, first: int) -> None:
        """`_link` for all rows from `first`, one band at a time."""
        for band in self._band:
            slots = self._hashes[first : self._length, band] & self._mask
            order = np.argsort(slots, kind="stable")  # rows of a bucket side by side, in order
            slots = slots[order]
            begins = np.flatnonzero(np.r_[True, slots[1:] != slots[:-1]])
            position = np.arange(len(slots)) - np.repeat(begins, np.diff(np.r_[begins, len(slots)]))
            fits = position + self._sizes[band, slots] < MAX_IN_BUCKET
            rows, slots, position = order[fits] + first, slots[fits], position[fits]
            self._older[rows, band] = np.where(
                position > 0, np.r_[0, rows[:-1] + 1], self._newest[band, slots]
            )
            last = np.r_[slots[1:] != slots[:-1], True] if len(slots) else np.zeros(0, bool)
            self._newest[band, slots[last]] = rows[last] + 1
            self._sizes[band, slots[last]] += (position[last] + 1).astype(np.uint8)

    def _make_slots(self, slots: int) -> None:
        """Make the tables again with `slots` buckets per band, a power of two."""
        while slots < self._length:
            slots *= 2
        self._mask = np.uint32(slots - 1)
        self._newest = np.zeros((len(self._band), slots), np.int32)
        self._sizes = np.zeros((len(self._band), slots), np.uint8)
        self._older[:] = 0
        self._link_all(0)
