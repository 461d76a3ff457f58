"""Held-out rows: the dev and test splits of imported benchmarks, searchable by their word n-grams."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datacreate.benchmarks import digest, find_benchmark, has_split, load_registry, read_split
from datacreate.errors import BenchmarkError
from datacreate.formats.example import Json
from datacreate.formats.text_normalization import words

Hashes = NDArray[np.uint64]

HELD_OUT_SPLITS: tuple[Literal["dev", "test"], ...] = ("dev", "test")

MIN_WORDS_INSIDE = 5
"""A held-out question shorter than the n-gram is searched inside longer questions if it has this many words.

Shorter ones, such as "What is it?", occur in many unrelated texts: they must be the whole question.
"""

PASSAGE_SHARE = 0.2
PASSAGE_NGRAMS = 8
"""A passage repeats a held-out passage if it shares this fraction of its n-grams and this many n-grams with it
(all of them, if it has fewer). A lower share also occurs between unrelated passages with common formulas."""

_STEP = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplication loses no information

_MAX_SHOWN = 60  # characters of a question in a message


@dataclass(frozen=True)
class HeldOutSet:
    """A split that created examples must not repeat; `digest` is the SHA-256 of its file when it was chosen."""

    benchmark: str
    split: str
    digest: str

    def rows(self) -> Iterator[dict[str, Json]]:
        """The rows; BenchmarkError if the file has changed since it was chosen."""
        benchmark = find_benchmark(self.benchmark)
        if digest(benchmark, self.split) != self.digest:
            raise BenchmarkError(
                f"benchmark {self.benchmark}: the {self.split} split was imported again in the meantime; "
                "run the command again"
            )
        yield from read_split(benchmark, self.split)


def held_out_sets(names: Sequence[str] | Literal["all"]) -> tuple[HeldOutSet, ...]:
    """The dev and test splits of the named benchmarks, or of all imported ones, in the registry's order.

    `all` is empty where nothing is imported. Raises BenchmarkError if a named benchmark is unknown or not imported
    (the message says how to import it), or if a manifest is damaged.
    """
    registry = load_registry()
    if "all" in names:
        names = "all"
    wanted = set(registry) if names == "all" else {find_benchmark(name).name for name in names}
    found: list[HeldOutSet] = []
    for name, benchmark in registry.items():
        if name not in wanted:
            continue
        splits = [split for split in HELD_OUT_SPLITS if has_split(benchmark, split)]
        if not splits and names != "all":
            splits = ["test"]  # missing: `digest` raises the error that says how to import it
        found += [HeldOutSet(name, split, digest(benchmark, split)) for split in splits]
    return tuple(found)


class HeldOutRows:
    """The questions and passages of some held-out sets. Rows are numbered across the sets, from 0."""

    def __init__(self, held_out: Sequence[HeldOutSet], n: int = 8) -> None:
        """Read and index all rows by their n-grams. Raises BenchmarkError as `HeldOutSet.rows` does."""
        self._sets, self._n = tuple(held_out), n
        self.questions: list[str] = []
        self.counts: list[int] = []  # rows of each set
        self._short_lengths: set[int] = set()  # in words, of questions shorter than n
        question_grams, passage_grams = [], []
        for split in held_out:
            before = len(self.questions)
            for row in split.rows():
                hashed = hash_words(row["question"])
                if 0 < len(hashed) < n:
                    self._short_lengths.add(len(hashed))
                self.questions.append(row["question"])
                question_grams.append(ngrams(hashed, min(n, max(1, len(hashed)))))
                passage_grams.append(ngrams(hash_words(row["context"] or ""), n))
            self.counts.append(len(self.questions) - before)
        self._begins = [0, *accumulate(self.counts)]
        self._question_index, self._passage_index = NgramIndex(question_grams), NgramIndex(passage_grams)

    def name(self, row: int) -> str:
        """A row as a person finds it: benchmark, split, line of the file, and the start of the question."""
        place = bisect_right(self._begins, row) - 1
        held_out, line = self._sets[place], row - self._begins[place] + 1
        start = " ".join(self.questions[row].split())
        start = start if len(start) <= _MAX_SHOWN else start[:_MAX_SHOWN] + "…"
        return f"{held_out.benchmark} {held_out.split} row {line} ({start})"

    def repeated_question(self, text: str) -> int | None:
        """The row that shares most n-grams with `text`, or all words if the row is shorter than an n-gram."""
        hashed = hash_words(text)
        lengths = {self._n, *(k for k in self._short_lengths if k >= MIN_WORDS_INSIDE or k == len(hashed))}
        grams = [ngrams(hashed, k) for k in sorted(lengths, reverse=True)]
        found = self._question_index.most_common(np.concatenate(grams))
        return None if found is None else found[0]

    def repeated_passage(self, passage: str) -> tuple[int, float] | None:
        """The row whose passage contains a large part of `passage`, and the shared part of its n-grams."""
        grams = ngrams(hash_words(passage), self._n)
        found = self._passage_index.most_common(grams)
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

    def __init__(self, grams: Sequence[Hashes]) -> None:
        """`grams` holds the n-grams of each row; a row may contain an n-gram more than once."""
        hashes = np.concatenate([np.zeros(0, dtype=np.uint64), *grams])
        rows = np.repeat(np.arange(len(grams), dtype=np.int32), list(map(len, grams)))
        order = np.lexsort((rows, hashes))
        hashes, rows = hashes[order], rows[order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])
        self._hashes, self._rows = hashes[new], rows[new]

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
