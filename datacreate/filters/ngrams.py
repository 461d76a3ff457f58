"""Word n-grams as 64-bit hashes in sorted arrays: which row of a fixed set has the same words in a row.

A hash stands for its n-gram: among a million of them, a text's hundred n-grams meet a wrong one with a
chance of 5e-12.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from datacreate.formats.text_normalization import normalize_text

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int32]

# Scripts that are written without spaces: each character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")

_STEP = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing


def words(text: str) -> list[str]:
    """The words of a text without case, punctuation and Unicode variants."""
    plain = normalize_text(text)
    return plain.split() if plain.isascii() else _WORDS.findall(plain)


def hashed_words(text: str) -> Hashes:
    """The words of a text as hashes, in order."""
    return _hashes_of(words(text))


def _hashes_of(plain: Iterable[str]) -> Hashes:
    codes = [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in plain]
    return _mixed(np.array(codes, dtype=np.uint64))


def ngrams(hashed: Hashes, n: int) -> Hashes:
    """The hash of each n words in a row, in order; none where there are fewer words."""
    number = len(hashed) - n + 1
    if number <= 0:
        return np.zeros(0, dtype=np.uint64)
    found = np.full(number, n, dtype=np.uint64)  # so that 5 words are never the same as 8
    for place in range(n):
        found = found * _STEP + hashed[place : place + number]
    return _mixed(found)


def _mixed(values: Hashes) -> Hashes:
    # The finaliser of SplitMix64 (Steele, Lea & Flood, 2014): every bit depends on every bit.
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Inverted:
    """From an n-gram to the rows that have it. Cheap to ask; made once, from all rows."""

    def __init__(self, hashes: Sequence[Hashes], rows: Sequence[Rows]) -> None:
        """`hashes` and `rows` are parallel pieces; a row may have an n-gram more than once."""
        all_hashes = np.concatenate([np.zeros(0, dtype=np.uint64), *hashes])
        all_rows = np.concatenate([np.zeros(0, dtype=np.int32), *rows])
        order = np.lexsort((all_rows, all_hashes))
        all_hashes, all_rows = all_hashes[order], all_rows[order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (all_hashes[1:] != all_hashes[:-1]) | (all_rows[1:] != all_rows[:-1])
        self._hashes, self._rows = all_hashes[new], all_rows[new]

    def __len__(self) -> int:
        return len(self._hashes)

    @property
    def size_bytes(self) -> int:
        return int(self._hashes.nbytes + self._rows.nbytes)

    def most(self, asked: Hashes) -> tuple[int, int] | None:
        """The row with most of the n-grams asked for, the first of equals, and how many; None without."""
        left = np.searchsorted(self._hashes, asked)
        left = left[self._hashes.take(left, mode="clip") == asked] if len(self) else left[:0]
        if not len(left):
            return None
        right = np.searchsorted(self._hashes, self._hashes[left], side="right")
        pieces = [self._rows[a:b] for a, b in zip(left, right, strict=True)]
        rows, counts = np.unique(np.concatenate(pieces), return_counts=True)
        best = int(counts.argmax())
        return int(rows[best]), int(counts[best])


class Gatherer:
    """Takes in texts one by one, each with its row, and hashes them in large pieces."""

    def __init__(self) -> None:
        self._codes: list[int] = []
        self._lengths: list[int] = []

    def add(self, text: str) -> None:
        """The next row's text; an empty one keeps the row's place."""
        plain = words(text)
        self._codes += [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in plain]
        self._lengths.append(len(plain))

    def hashed(self) -> tuple[Hashes, Rows, Rows]:
        """The words of all rows end to end, the row of each word, and how many words each row has."""
        lengths = np.array(self._lengths, dtype=np.int32)
        rows = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        return _mixed(np.array(self._codes, dtype=np.uint64)), rows, lengths
