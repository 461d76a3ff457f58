"""The held-out rows that created examples are compared with: read once, found by their words."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from datacreate.filters.held_out_sets import HeldOutSet, rows_of
from datacreate.filters.ngrams import Gatherer, Inverted, hashed_words, ngrams

LEAST_INSIDE = 5
"""Words from which a question shorter than the n-gram is looked for inside longer ones.

"What is it?" or "how to boil water" stands in many an innocent text. Of 34,944 human train questions
of the registry's benchmarks, 3,400 hold a dev or test question of one or two words (PIQA's "Water"),
8 one of three or four, and 5 one of five to seven. Shorter ones must be the whole created question.
"""
PASSAGE_SHARE = 0.2
PASSAGE_LEAST = 8
"""How much of a passage must stand in one held-out passage: this share of its n-grams, and so many of them
(all, if it has fewer). Abstracts share formulas: of 450 human PubMedQA train passages 60 share an n-gram
with some held-out one, and none 5 %. What shares over 10 % is of the same source: the same abstract quoted.
"""
_MOST_START = 60


class HeldOut:
    """The questions and passages of some splits. Rows are numbered through, from 0."""

    def __init__(self, held_out_sets: Sequence[HeldOutSet], n: int = 8) -> None:
        """Read and index. Raises BenchmarkError as `read_split` does."""
        self._opponents, self._n = tuple(held_out_sets), n
        self.questions: list[str] = []
        self.numbers: list[int] = []  # of rows, for each opponent
        asked, told = Gatherer(), Gatherer()
        for opponent in held_out_sets:
            before = len(self.questions)
            for row in rows_of(opponent):
                self.questions.append(row["question"])
                asked.add(row["question"])
                told.add(row["context"] or "")
            self.numbers.append(len(self.questions) - before)
        self._begins = [0, *accumulate(self.numbers)]
        self._shorter, self._question_ngrams = _of_questions(asked, n)
        self._passage_ngrams = _of_passages(told, n)

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def size_bytes(self) -> int:
        """Bytes of the two indexes."""
        return self._question_ngrams.size_bytes + self._passage_ngrams.size_bytes

    def name(self, row: int) -> str:
        """A row as a person finds it: benchmark, split, line of its file, and how its question begins."""
        place = bisect_right(self._begins, row) - 1
        opponent, line = self._opponents[place], row - self._begins[place] + 1
        start = " ".join(self.questions[row].split())
        start = start if len(start) <= _MOST_START else start[:_MOST_START] + "…"
        return f"{opponent.benchmark} {opponent.split} row {line} ({start})"

    def repeated_question(self, text: str) -> int | None:
        """The row of which `text` repeats most n-grams, or the whole question where that is shorter."""
        hashed = hashed_words(text)
        lengths = {self._n, *(k for k in self._shorter if k >= LEAST_INSIDE or k == len(hashed))}
        asked = [ngrams(hashed, k) for k in sorted(lengths, reverse=True) if k <= len(hashed)]
        found = self._question_ngrams.most(np.concatenate(asked)) if asked else None
        return None if found is None else found[0]

    def repeated_passage(self, passage: str) -> tuple[int, float] | None:
        """The row whose passage holds a good part of `passage`, and which share of its n-grams."""
        asked = ngrams(hashed_words(passage), self._n)
        found = self._passage_ngrams.most(asked)
        if found is None:
            return None
        row, number = found
        enough = number >= PASSAGE_SHARE * len(asked) and number >= min(PASSAGE_LEAST, len(asked))
        return (row, number / len(asked)) if enough else None


def _of_questions(texts: Gatherer, n: int) -> tuple[list[int], Inverted]:
    """The lengths of the questions shorter than n; and all n-grams with these questions as wholes."""
    hashed, rows, lengths = texts.hashed()
    hashes, places = [], []
    shorter = [int(k) for k in np.unique(lengths) if 0 < k < n]
    for k in (n, *shorter):
        own = np.ones(len(rows), dtype=bool) if k == n else lengths[rows] == k
        found, where = ngrams(hashed[own], k), rows[own]
        inside = where[: len(found)] == where[k - 1 :]  # not from one row into the next
        hashes.append(found[inside])
        places.append(where[: len(found)][inside])
    return shorter, Inverted(hashes, places)


def _of_passages(texts: Gatherer, n: int) -> Inverted:
    hashed, rows, _ = texts.hashed()
    found = ngrams(hashed, n)
    inside = rows[: len(found)] == rows[n - 1 :]
    return Inverted([found[inside]], [rows[: len(found)][inside]])
