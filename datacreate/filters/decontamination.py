"""Decontamination: rejects examples that repeat rows of `--decontaminate`, such as those of test sets.

The question of an example or a test row is its text without the passage. An example repeats a test row if

- their questions share n consecutive words (an n-gram),
- their passages share a large part of the n-grams (as in Brown et al., 2020, appendix C), or the passage of the example
  contains a large part of the question of a row without a passage,
- they are near-duplicates by MinHash: their inputs, or only the questions if the row has no passage.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import BeforeValidator

from datacreate.filters.filter import DecontaminationRow, Filter, FilterResources, Threshold, threshold_setting
from datacreate.formats.example import shorten
from datacreate.formats.reject import RejectReason
from datacreate.formats.text_normalization import words
from datacreate.settings import Settings, setting

if TYPE_CHECKING:
    from datacreate.filters.near_index import NearIndex
    from datacreate.formats.candidate import Candidate

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

_WITH_PASSAGE = "with a passage: "  # the group of such test rows in the index
_MAX_SHOWN = 60  # characters of a row in a message

NgramIndex = dict[str, list[int]]  # n-gram -> the numbers of the rows that contain it, ascending


def _set_names(value: Any) -> Any:
    """The names of sets. A text may have several, separated by commas; a `Path` is one. `none` gives ()."""
    if value is None:
        return None
    entries = [value] if isinstance(value, str) else value
    lists = ([str(entry)] if isinstance(entry, Path) else str(entry).split(",") for entry in entries)
    names = tuple(dict.fromkeys(name.strip() for names_of_entry in lists for name in names_of_entry))
    if "none" in names and len(names) > 1:
        raise ValueError("none cannot be combined with other names")
    return () if names == ("none",) else names


class DecontaminationOptions(Settings):
    decontaminate: Annotated[tuple[str, ...] | None, BeforeValidator(_set_names)] = setting(
        "Rows that examples must not repeat: benchmarks (their dev and test rows), files of your own, and runs "
        "(without the check of --ngram).",
        "quality",
        metavar="all|none|NAME|FILE|RUN[,...]",
        shown_default="all imported benchmarks",
    )
    ngram: int = setting(
        "Reject examples that share this many consecutive words with a row of --decontaminate.",
        "quality",
        default=8,
        ge=2,
    )
    decontaminate_near: Threshold = threshold_setting(
        "Reject examples whose inputs each have at least this Jaccard similarity to those of a row of --decontaminate, "
        "computed on words and word pairs.",
        default=0.7,
    )


class _TestRow(NamedTuple):
    """A row of a decontamination set."""

    row: DecontaminationRow
    name: str  # test set, and number in its file
    by_ngram: bool  # whether an example may not share an n-gram with it


class Decontamination(Filter):
    """Rejects examples that repeat a row of a decontamination set."""

    name = "contamination"  # as stored in summaries
    reason = RejectReason.CONTAMINATED
    option_names = ("decontaminate", "ngram", "decontaminate_near")

    def __init__(self, options: DecontaminationOptions, resources: FilterResources) -> None:
        self._options, self._resources, self._ngram_words = options, resources, options.ngram

    def prepare(self) -> None:
        """Read and index the rows of the decontamination sets. Raises what the sets raise."""
        from datacreate.filters.near_index import NearIndex

        self._rows = [
            _TestRow(row, f"{source.spec.title} row {number}", source.by_ngram)
            for source in self._resources.decontamination_sets
            for number, row in enumerate(source.read(), 1)
        ]
        self._index_ngrams()
        self._near: NearIndex | None = None
        if (threshold := self._options.decontaminate_near) is not None:
            self._near = NearIndex(threshold)
            for row, _, _ in self._rows:
                self._near.add(row.inputs, _WITH_PASSAGE if row.passage else "")

    def _index_ngrams(self) -> None:
        self._short_lengths: set[int] = set()  # of questions with fewer than n words, in words
        # The words of such questions, from `MIN_WORDS_INSIDE` on, of rows with a passage -> the first such row.
        self._short_with_passage: dict[str, int] = {}
        question_ngrams: list[list[str]] = []  # of each row
        passage_ngrams: list[list[str]] = []  # of each row, those to find in passages
        for number, (row, _, by_ngram) in enumerate(self._rows):
            question_words = words(row.text_without_passage, limit=None) if by_ngram else []
            size = self._ngram_words
            if 0 < len(question_words) < size and not row.passage:
                size = len(question_words)
                self._short_lengths.add(size)
            elif MIN_WORDS_INSIDE <= len(question_words) < size:  # it says little if each has a passage of its own
                self._short_with_passage.setdefault(" ".join(question_words), number)
            grams = ngrams(question_words, size)
            question_ngrams.append(grams)
            if row.passage and by_ngram:
                grams = ngrams(words(row.passage, limit=None), self._ngram_words)
            passage_ngrams.append(grams)
        self._question_index = ngram_index(question_ngrams, MAX_ROWS_OF_NGRAM)
        self._passage_index = ngram_index(passage_ngrams)
        self._question_sizes = [len(set(grams)) for grams in question_ngrams]

    def find_problem(self, candidate: Candidate) -> str | None:
        """The test row that the example repeats, and the check that found it."""
        if (row := self._repeated_question(candidate)) is not None:
            return f"{self._name(row)}: n-gram"
        if candidate.passage and (repeated := self._repeated_passage(candidate.passage)):
            row, share = repeated
            repeated_part = "passage" if self._rows[row].row.passage else "question"
            return f"{self._name(row)}: {share:.0%} of the n-grams of the {repeated_part}"
        if self._near is None:
            return None
        without_passage = tuple(text for text in candidate.inputs if text != candidate.passage)
        for group, inputs in (("", without_passage), (_WITH_PASSAGE, candidate.inputs if candidate.passage else ())):
            if inputs and (match := self._near.match(inputs, group)):
                return f"{self._name(match.number)}: Jaccard {match.similarity:.2f}"
        return None

    def _name(self, number: int) -> str:
        """A row as a person finds it: test set, row of the file, and how it starts."""
        test = self._rows[number]
        text = " ".join(" ".join(test.row.inputs).split())
        return f"{test.name} ({shorten(text, _MAX_SHOWN)})"

    def _repeated_question(self, candidate: Candidate) -> int | None:
        """The row that shares most n-grams with the question, or all words if the row is shorter than an n-gram."""
        question_words = words(candidate.text_without_passage, limit=None)
        short_lengths = {
            size for size in self._short_lengths if size >= MIN_WORDS_INSIDE or size == len(question_words)
        }
        grams = (gram for size in {self._ngram_words, *short_lengths} for gram in ngrams(question_words, size))
        if counts := Counter(row for gram in grams for row in self._question_index.get(gram, ())):
            return min(counts, key=lambda row: (-counts[row], row))
        return None if candidate.passage else self._short_with_passage.get(" ".join(question_words))

    def _repeated_passage(self, passage: str) -> tuple[int, float] | None:
        """The first row that `passage` repeats, and the share of the n-grams that they have in common.

        That is the share of the passage's n-grams, or for a row without a passage of those of its question.
        """
        passage_words = words(passage, limit=None)
        grams = dict.fromkeys(ngrams(passage_words, self._ngram_words))
        short_lengths = [size for size in self._short_lengths if size >= MIN_WORDS_INSIDE]
        short_grams = dict.fromkeys(gram for size in short_lengths for gram in ngrams(passage_words, size))
        counts = Counter(row for gram in grams | short_grams for row in self._passage_index.get(gram, ()))
        for row, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            size = len(grams) if self._rows[row].row.passage else self._question_sizes[row]
            if count >= max(PASSAGE_SHARE * size, min(PASSAGE_NGRAMS, size)):
                return row, count / size
        return None


def ngrams(text_words: Sequence[str], n: int) -> list[str]:
    """Each n consecutive words, in order; empty if there are fewer words."""
    return [" ".join(text_words[start : start + n]) for start in range(len(text_words) - n + 1)]


def ngram_index(texts: Sequence[Sequence[str]], max_texts: int = sys.maxsize) -> NgramIndex:
    """An index of the n-grams of each text; those in more than `max_texts` texts are left out."""
    index: defaultdict[str, list[int]] = defaultdict(list)
    for row, grams in enumerate(texts):
        for gram in dict.fromkeys(grams):
            index[gram].append(row)
    return {gram: rows for gram, rows in index.items() if len(rows) <= max_texts}
