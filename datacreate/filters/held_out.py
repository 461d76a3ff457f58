"""Held-out rows: the dev and test splits of imported benchmarks, searchable by their word n-grams."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np

from datacreate.benchmarks import digest, find_benchmark, has_split, load_registry, read_split
from datacreate.errors import BenchmarkError
from datacreate.filters.ngrams import NgramIndex, TextHasher, hash_words, ngrams
from datacreate.formats.example import Json

HELD_OUT_SPLITS: tuple[Literal["dev", "test"], ...] = ("dev", "test")

MIN_WORDS_INSIDE = 5
"""A held-out question shorter than the n-gram is searched inside longer questions if it has so many words.

Shorter ones, such as "What is it?", occur in many unrelated texts: they must be the whole question.
"""

PASSAGE_SHARE = 0.2
PASSAGE_NGRAMS = 8
"""A passage repeats a held-out passage if it shares this part of its n-grams and so many n-grams with it (all of
them, if it has fewer). A lower share also occurs between unrelated passages with common formulas."""

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
        questions, passages = TextHasher(), TextHasher()
        for each in held_out:
            before = len(self.questions)
            for row in each.rows():
                self.questions.append(row["question"])
                questions.add(row["question"])
                passages.add(row["context"] or "")
            self.counts.append(len(self.questions) - before)
        self._begins = [0, *accumulate(self.counts)]
        self._short_lengths, self._question_index = _index_questions(questions, n)
        self._passage_index = _index_passages(passages, n)

    def __len__(self) -> int:
        return len(self.questions)

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
        grams = [ngrams(hashed, k) for k in sorted(lengths, reverse=True) if k <= len(hashed)]
        found = self._question_index.most_common(np.concatenate(grams)) if grams else None
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


def _index_questions(texts: TextHasher, n: int) -> tuple[list[int], NgramIndex]:
    """The lengths of the questions shorter than n, and an index of all n-grams and these short questions."""
    hashed, rows, lengths = texts.hashed()
    hashes, places = [], []
    short = [int(k) for k in np.unique(lengths) if 0 < k < n]
    for k in (n, *short):
        own = np.ones(len(rows), dtype=bool) if k == n else lengths[rows] == k
        found, where = ngrams(hashed[own], k), rows[own]
        inside = where[: len(found)] == where[k - 1 :]  # not across two rows
        hashes.append(found[inside])
        places.append(where[: len(found)][inside])
    return short, NgramIndex(hashes, places)


def _index_passages(texts: TextHasher, n: int) -> NgramIndex:
    hashed, rows, _ = texts.hashed()
    found = ngrams(hashed, n)
    inside = rows[: len(found)] == rows[n - 1 :]
    return NgramIndex([found[inside]], [rows[: len(found)][inside]])
