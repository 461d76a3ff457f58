"""Decontamination: rejects examples that repeat rows of `--decontaminate`, such as those of test sets.

Two checks. Word n-grams: a question that shares n consecutive words with the question of a test row, or a passage that
shares a large part of its n-grams with the passage of a test row (as in Brown et al., 2020, appendix C), or that has a
large part of a question without a passage. Near-duplicates of test rows, by MinHash: of whole inputs, or only of the
questions with a row that has no passage.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence

from datacreate.filters.filter import DecontaminationRow, Filter, FilterInputs
from datacreate.filters.near import NearIndex, encodable_words
from datacreate.filters.settings import FilterOptions
from datacreate.formats.validate import Candidate, RejectReason, shorten
from datacreate.messages import Notify, no_notify

MIN_WORDS_INSIDE = 5
"""A question of a test row that is shorter than the n-gram is searched inside longer texts if it has this many words.

Shorter ones, such as "What is it?", occur in many unrelated texts: they must be the whole text.
"""

MAX_ROWS_OF_NGRAM = 10
"""An n-gram of more questions is a phrase of the test set, such as an instruction, and shows no repeat."""

PASSAGE_SHARE = 0.2
PASSAGE_NGRAMS = 8
"""A passage repeats one of a test row if it shares this fraction of its n-grams and this many n-grams with it
(all of them, if it has fewer). A lower share also occurs between unrelated passages with common formulas.
It repeats the question of a row without a passage if it has this fraction, and this many, of the question's."""

_MAX_SHOWN = 60  # characters of a row in a message

NgramIndex = dict[str, list[int]]
"""From an n-gram to the rows that contain it, ascending."""


class Contamination(Filter):
    """Rejects examples that repeat a row of a decontamination set."""

    name = "contamination"
    reason = RejectReason.CONTAMINATED
    setting_names = ("decontaminate", "ngram", "decontaminate_near")

    def __init__(self, settings: FilterOptions, inputs: FilterInputs) -> None:
        self._settings, self._inputs, self._n = settings, inputs, settings.ngram

    def prepare(self, notify: Notify = no_notify) -> None:
        """Read and index the rows of the decontamination sets. Raises what the sets raise."""
        self._rows: list[DecontaminationRow] = []
        self._names: list[str] = []  # of each row: test set, and row of its file
        self._by_ngram: list[bool] = []  # of each row: whether it may share no n-gram
        for each in self._inputs.decontamination_sets:
            rows = list(each.read())
            self._rows += rows
            self._by_ngram += [each.by_ngram] * len(rows)
            self._names += [f"{each.ref.title} row {number}" for number in range(1, len(rows) + 1)]
        self._index_ngrams()
        self._near: dict[
            bool, tuple[list[int], NearIndex]
        ] = {}  # whether rows have a passage -> rows and index
        if (threshold := self._settings.decontaminate_near) is None:
            return
        for has_passage in (False, True):
            numbers = [number for number, row in enumerate(self._rows) if bool(row.passage) == has_passage]
            self._near[has_passage] = numbers, (index := NearIndex(threshold))
            for number in numbers:
                index.add(self._rows[number].inputs)

    def _index_ngrams(self) -> None:
        self._short_lengths: set[int] = set()  # in words, of questions shorter than n
        self._short_with_passage: dict[str, int] = {}  # their words, if they say enough -> first row
        questions: list[list[str]] = []
        passages: list[list[str]] = []
        for number, (row, by_ngram) in enumerate(zip(self._rows, self._by_ngram, strict=True)):
            question = encodable_words(row.question) if by_ngram else []
            # A short question says little if each has a passage of its own.
            if is_short := 0 < len(question) < self._n and not row.passage:
                self._short_lengths.add(len(question))
            if row.passage and MIN_WORDS_INSIDE <= len(question) < self._n:
                self._short_with_passage.setdefault(" ".join(question), number)
            questions.append(ngrams(question, len(question) if is_short else self._n))
            is_compared = row.passage and by_ngram
            passages.append(ngrams(encodable_words(row.passage), self._n) if is_compared else questions[-1])
        self._questions = ngram_index(questions, MAX_ROWS_OF_NGRAM)
        self._passages = ngram_index(passages)
        self._question_sizes = [len(set(grams)) for grams in questions]

    def find_conflict(self, candidate: Candidate) -> str | None:
        """The test row that the example repeats, and which check found it."""
        if (found := self._repeated_question(candidate)) is not None:
            return f"{self._name(found)}: n-gram"
        if candidate.passage and (passage := self._repeated_passage(candidate.passage)):
            what = "passage" if self._rows[passage[0]].passage else "question"
            return f"{self._name(passage[0])}: {passage[1]:.0%} of the n-grams of the {what}"
        without_passage = tuple(text for text in candidate.inputs if text != candidate.passage)
        compared = {False: without_passage, True: candidate.inputs if candidate.passage else ()}
        for has_passage, (numbers, index) in self._near.items():
            inputs = compared[has_passage]
            if inputs and (near := index.match(inputs)):
                return f"{self._name(numbers[near[0]])}: Jaccard {near[1]:.2f}"
        return None

    def _name(self, row: int) -> str:
        """A row as a person finds it: test set, row of the file, and how it starts."""
        text = " ".join(" ".join(self._rows[row].inputs).split())
        return f"{self._names[row]} ({shorten(text, _MAX_SHOWN)})"

    def _repeated_question(self, candidate: Candidate) -> int | None:
        """The row that shares most n-grams with the question, or all words if the row is shorter than an n-gram."""
        words = encodable_words(candidate.question)
        lengths = {k for k in self._short_lengths if k >= MIN_WORDS_INSIDE or k == len(words)}
        grams = [gram for k in {self._n, *lengths} for gram in ngrams(words, k)]
        most = most_common(self._questions, grams)
        if most is None and not candidate.passage:
            return self._short_with_passage.get(" ".join(words))
        return None if most is None else most[0]

    def _repeated_passage(self, passage: str) -> tuple[int, float] | None:
        """The row whose passage contains a large part of `passage`, or of whose question, without a passage, a large
        part is in `passage`; and the part of the n-grams.
        """
        words = encodable_words(passage)
        grams = dict.fromkeys(ngrams(words, self._n))
        short = (gram for k in self._short_lengths if k >= MIN_WORDS_INSIDE for gram in ngrams(words, k))
        counts = Counter(row for gram in grams | dict.fromkeys(short) for row in self._passages.get(gram, ()))
        for row, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            compared = len(grams) if self._rows[row].passage else self._question_sizes[row]
            if count >= max(PASSAGE_SHARE * compared, min(PASSAGE_NGRAMS, compared)):
                return row, count / compared
        return None


def ngrams(words: Sequence[str], n: int) -> list[str]:
    """Each n consecutive words, in order; empty if there are fewer words."""
    return [" ".join(words[at : at + n]) for at in range(len(words) - n + 1)]


def ngram_index(texts: Sequence[Sequence[str]], max_texts: int = sys.maxsize) -> NgramIndex:
    """An index of the n-grams of each text; those in more than `max_texts` texts are left out."""
    index: defaultdict[str, list[int]] = defaultdict(list)
    for row, grams in enumerate(texts):
        for gram in dict.fromkeys(grams):
            index[gram].append(row)
    return {gram: rows for gram, rows in index.items() if len(rows) <= max_texts}


def most_common(index: NgramIndex, grams: Sequence[str]) -> tuple[int, int] | None:
    """The row that contains most of `grams` (the first of equals), and how many; None if no row does."""
    counts = Counter(row for gram in grams for row in index.get(gram, ()))
    return max(counts.items(), key=lambda item: (item[1], -item[0]), default=None)
