"""Word n-grams as 64-bit hashes, and an index from n-grams to the rows that contain them.

Different n-grams with the same hash are rare enough to ignore: 5e-12 for a text of a hundred n-grams against a
million.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datacreate.formats.text_normalization import words

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int32]

_STEP = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplication loses no information


def hash_words(text: str) -> Hashes:
    """The hash of each word of a text, in order."""
    return _mix(np.array(_codes(text), dtype=np.uint64))


def _codes(text: str) -> list[int]:
    return [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words(text, limit=None)]


def ngrams(hashed: Hashes, n: int) -> Hashes:
    """The hash of each n consecutive words, in order; empty if there are fewer words."""
    number = len(hashed) - n + 1
    if number <= 0:
        return np.zeros(0, dtype=np.uint64)
    found = np.full(number, n, dtype=np.uint64)  # different n give different hashes
    for place in range(n):
        found = found * _STEP + hashed[place : place + number]
    return _mix(found)


def _mix(values: Hashes) -> Hashes:
    # The finaliser of SplitMix64 (Steele, Lea & Flood, 2014).
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class NgramIndex:
    """From an n-gram to the rows that contain it; built once, from all rows."""

    def __init__(self, hashes: Sequence[Hashes], rows: Sequence[Rows]) -> None:
        """`hashes` and `rows` are parallel pieces; a row may have an n-gram more than once."""
        all_hashes = np.concatenate([np.zeros(0, dtype=np.uint64), *hashes])
        all_rows = np.concatenate([np.zeros(0, dtype=np.int32), *rows])
        order = np.lexsort((all_rows, all_hashes))
        all_hashes, all_rows = all_hashes[order], all_rows[order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (all_hashes[1:] != all_hashes[:-1]) | (all_rows[1:] != all_rows[:-1])
        self._hashes, self._rows = all_hashes[new], all_rows[new]

    def most_common(self, grams: Hashes) -> tuple[int, int] | None:
        """The row that contains most of `grams` (the first of equals), and how many; None if no row does."""
        left = np.searchsorted(self._hashes, grams)
        left = left[self._hashes.take(left, mode="clip") == grams] if len(self._hashes) else left[:0]
        if not len(left):
            return None
        right = np.searchsorted(self._hashes, self._hashes[left], side="right")
        pieces = [self._rows[a:b] for a, b in zip(left, right, strict=True)]
        rows, counts = np.unique(np.concatenate(pieces), return_counts=True)
        best = int(counts.argmax())
        return int(rows[best]), int(counts[best])


class TextHasher:
    """Collects the texts of rows and hashes their words in one array."""

    def __init__(self) -> None:
        self._codes: list[int] = []
        self._lengths: list[int] = []

    def add(self, text: str) -> None:
        """Add the text of the next row; it may be empty."""
        codes = _codes(text)
        self._codes += codes
        self._lengths.append(len(codes))

    def hashed(self) -> tuple[Hashes, Rows, Rows]:
        """The hashed words of all rows, the row of each word, and the number of words of each row."""
        lengths = np.array(self._lengths, dtype=np.int32)
        rows = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        return _mix(np.array(self._codes, dtype=np.uint64)), rows, lengths
