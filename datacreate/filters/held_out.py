"""Held-out rows: the rows of test sets, searchable by their word n-grams."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from datacreate.filters.base import HeldOutRow, HeldOutSet
from datacreate.formats.text_normalization import words

Hashes = NDArray[np.uint64]

MIN_WORDS_INSIDE = 5
"""A held-out text shorter than the n-gram is searched inside longer texts if it has this many words.

Shorter ones, such as "What is it?", occur in many unrelated texts: they must be the whole text.
"""

MAX_ROWS_OF_NGRAM = 10
"""An n-gram of more held-out texts is a phrase of the test set, such as an instruction, and shows no repeat."""

PASSAGE_SHARE = 0.2
PASSAGE_NGRAMS = 8
"""A passage repeats a held-out passage if it shares this fraction of its n-grams and this many n-grams with it
(all of them, if it has fewer). A lower share also occurs between unrelated passages with common formulas."""

_STEP = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplication loses no information

_MAX_SHOWN = 60  # characters of a row in a message


class HeldOutRows:
    """The rows of some held-out sets, numbered across the sets from 0."""

    def __init__(self, held_out: Sequence[HeldOutSet], n: int = 8) -> None:
        """Read and index all rows by their n-grams. Raises what the sets raise."""
        self.sets, self._n = tuple(held_out), n
        self.rows: list[HeldOutRow] = []
        counts: list[int] = []
        question_grams, short_grams, passage_grams = [], [], []
        self._short_lengths: set[int] = set()  # in words, of questions shorter than n
        for each in held_out:
            before = len(self.rows)
            self.rows.extend(each.read())
            counts.append(len(self.rows) - before)
            for row in self.rows[before:]:
                hashed = hash_words(row.question)
                question_grams.append(ngrams(hashed, n))
                # A short question says little if each has a passage of its own.
                is_short = 0 < len(hashed) < n and not row.passage
                short_grams.append(ngrams(hashed, len(hashed)) if is_short else hashed[:0])
                if is_short:
                    self._short_lengths.add(len(hashed))
                passage_grams.append(
                    ngrams(hash_words(row.passage), n) if row.passage else question_grams[-1]
                )
        self.begins = [0, *accumulate(counts)]
        self._questions = NgramIndex(question_grams, MAX_ROWS_OF_NGRAM)
        self._short, self._passages = NgramIndex(short_grams), NgramIndex(passage_grams)

    def name(self, row: int) -> str:
        """A row as a person finds it: test set, row of the file, and how it starts."""
        place = bisect_right(self.begins, row) - 1
        start = " ".join("\n".join(self.rows[row].inputs).split())
        start = start if len(start) <= _MAX_SHOWN else start[:_MAX_SHOWN] + "…"
        return f"{self.sets[place].ref.title} row {row - self.begins[place] + 1} ({start})"

    def repeated_question(self, question: str) -> int | None:
        """The row that shares most n-grams with `question`, or all words if the row is shorter than an n-gram."""
        hashed = hash_words(question)
        found = self._questions.most_common(ngrams(hashed, self._n))
        if found is None:
            lengths = [k for k in self._short_lengths if k >= MIN_WORDS_INSIDE or k == len(hashed)]
            grams = [ngrams(hashed, k) for k in sorted(lengths, reverse=True)]
            found = self._short.most_common(np.concatenate([hashed[:0], *grams]))
        return None if found is None else found[0]

    def repeated_passage(self, passage: str) -> tuple[int, float] | None:
        """The row whose passage contains a large part of `passage`, and the shared part of its n-grams."""
        grams = ngrams(hash_words(passage), self._n)
        found = self._passages.most_common(grams)
        if found is None:
            return None
        row, count = found
        enough = count >= PASSAGE_SHARE * len(grams) and count >= min(PASSAGE_NGRAMS, len(grams))
        return (row, count / len(grams)) if enough else None


def hash_words(text: str) -> Hashes:
    """The 64-bit hash of each word of a text, in order."""
    codes = [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words(text, limit=None)]
    return _mix(np.array(codes, dtype=np.uint64))


def ngrams(hashed: Hashes, n: int) -> Hashes:
    """The hash of each n consecutive words, in order; empty if there are fewer words.

    Different n-grams with the same hash are rare enough to ignore: 5e-12 for a text of a hundred n-grams
    against a million.
    """
    number = len(hashed) - n + 1
    if number <= 0:
        return np.zeros(0, dtype=np.uint64)
    found = np.full(number, n, dtype=np.uint64)  # different n give different hashes
    for place in range(n):
        found = found * _STEP + hashed[place : place + number]
    return _mix(found)


def _mix(values: Hashes) -> Hashes:
    # The finalizer of SplitMix64 (Steele, Lea & Flood, 2014).
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class NgramIndex:
    """From an n-gram to the rows that contain it; built once."""

    def __init__(self, grams: Sequence[Hashes], max_rows: int | None = None) -> None:
        """`grams` holds the n-grams of each row; those in more than `max_rows` different rows are left out."""
        hashes = np.concatenate([np.zeros(0, dtype=np.uint64), *grams])
        rows = np.repeat(np.arange(len(grams), dtype=np.int32), list(map(len, grams)))
        order = np.lexsort((rows, hashes))
        hashes, rows = hashes[order], rows[order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])
        self._hashes, self._rows = hashes[new], rows[new]
        if max_rows is not None:
            sums = np.array([piece.sum(dtype=np.uint64) for piece in grams], dtype=np.uint64)
            _, different = np.unique(
                self._hashes ^ _mix(sums)[self._rows], return_index=True
            )  # equal rows: once
            found, counts = np.unique(self._hashes[different], return_counts=True)
            kept = ~np.isin(self._hashes, found[counts > max_rows])
            self._hashes, self._rows = self._hashes[kept], self._rows[kept]

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
