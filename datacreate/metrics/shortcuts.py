"""Shortcuts of a data set: patterns that a model could learn instead of the task.

Some shortcuts are counted row by row. For the others a classifier is trained on a part of each row and cross-validated,
with families of rows kept together. Answers that it gets right can be learned without the task (Poliak et al., 2018;
Gururangan et al., 2018).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from datacreate.formats.candidate import Candidate
from datacreate.formats.example import Json
from datacreate.formats.task_format import TaskFormat
from datacreate.formats.text_normalization import words

MIN_ROWS = 20  # smaller sets are not measured
FOLDS = 5
_MIN_ROWS_OF_LABEL = 3  # on average; with fewer, folds lack many labels

FALSE_ALARM = 0.005
"""Probability (one-sided) that a set without the shortcut exceeds its bound by sampling error alone."""

TOLERATED = 0.10
"""Tolerated share of the way from chance to a perfect score: 55 % for two labels, 28 % for five options."""

TOLERATED_WORDING = 0.50
"""`TOLERATED` if wording is part of the task (a closed question, a review): 75 % for two labels."""

FOLD_FACTOR = 1.4  # widens the standard error of a classifier: the rows of a fold share one model's errors
_MIN_TERM_TEXTS = 2  # a term of a single text says nothing about other texts
_MAX_SHOWN = 40  # characters of a word or label in a warning

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shortcut:
    """How often the shortcut alone gives the right answer. Shares are in [0, 1]."""

    name: str
    score: float  # share of rows; balanced over labels for a fixed label set
    chance: float
    warning: str | None = None  # set if the score exceeds what is tolerated and what sampling error explains


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question with its options: its own (multiple choice), or the labels of the format."""

    text: str
    passage: str  # empty if the format has none
    options: tuple[str, ...]
    right: int  # index into `options`
    family: Hashable


def measure_shortcuts(
    task_format: TaskFormat, rows: Sequence[Mapping[str, Json]], families: Sequence[Hashable] | None = None
) -> tuple[Shortcut, ...]:
    """Every shortcut that the format can have, measured on the rows.

    `families`, as long as `rows`, says which rows have the same parent: no classifier is tested on a family
    that it was trained on. By default every row is a family. Empty for free-text answers and for too few rows.
    """
    if task_format.head is None:
        return ()
    usable = list(_answered_questions(task_format, rows, range(len(rows)) if families is None else families))
    if len(usable) < MIN_ROWS:
        return ()
    has_options = task_format.head == "multiple_choice"
    groups = _groups(usable, ["\n".join(sorted(row.options)) if has_options else row.text for row in usable])
    has_folds = len(set(groups)) >= FOLDS
    if has_options:
        counted = measure_longest_option(usable), measure_question_words(usable)
        return (*counted, measure_options_alone(usable, groups)) if has_folds else counted
    if has_folds and 1 < len({row.right for row in usable}) <= len(usable) / _MIN_ROWS_OF_LABEL:
        return measure_length_alone(usable, groups), measure_question_alone(usable, groups)
    return ()


def measure_longest_option(rows: Sequence[AnsweredQuestion]) -> Shortcut:
    """How often the right option has the most characters; a tie of t options counts 1/t."""
    credit = [_tie_credit([len(option.strip()) for option in row.options], row.right) for row in rows]
    return _scored("longest option", credit, rows, "the right option is the longest too often")


def measure_question_words(rows: Sequence[AnsweredQuestion]) -> Shortcut:
    """How often the right option has the largest share of its words in the question; a tie of t options counts 1/t."""
    credit = []
    for row in rows:
        question = set(words(row.text))
        word_sets = [set(words(option)) for option in row.options]
        shares = [len(own & question) / len(own) if own else 0.0 for own in word_sets]
        credit.append(_tie_credit(shares, row.right))
    warning = "the right option repeats the question's words too often"
    return _scored("words of the question", credit, rows, warning)


def measure_options_alone(rows: Sequence[AnsweredQuestion], groups: Sequence[int]) -> Shortcut:
    """How often a classifier of the options' words picks the right option without the question."""
    group_of_option = [group for group, row in zip(groups, rows, strict=True) for _ in row.options]
    right = np.array([i == row.right for row in rows for i in range(len(row.options))], dtype=np.int64)
    options = [option for row in rows for option in row.options]
    scores = _predicted_from_words(options, right, group_of_option, "decision_function")
    scores_of_rows = np.split(scores, np.cumsum([len(row.options) for row in rows])[:-1])
    credit = [_tie_credit(own, row.right) for own, row in zip(scores_of_rows, rows, strict=True)]
    warning = "the words of the options alone give away which is right, without the question"
    return _scored("options alone", credit, rows, warning, groups)


def measure_length_alone(rows: Sequence[AnsweredQuestion], groups: Sequence[int]) -> Shortcut:
    """How often a small decision tree on the lengths of question and passage finds the label."""
    from sklearn.model_selection import cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    lengths = [[len(row.text), len(row.passage), len(words(row.text))] for row in rows]
    leaf = max(2, min(50, len(rows) // 20))  # a 20th of the rows, within limits
    tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=leaf, class_weight="balanced", random_state=0)
    labels = _labels(rows)
    credit = cross_val_predict(tree, lengths, labels, cv=_folds(labels, groups)) == labels
    return _scored("length alone", credit, rows, "the lengths alone give the label away", groups, labels)


def measure_question_alone(rows: Sequence[AnsweredQuestion], groups: Sequence[int]) -> Shortcut:
    """How often a classifier of the question's words finds the label; named `wording` if no row has a passage."""
    labels, word = _labels(rows), _most_telling_word(rows)
    credit = _predicted_from_words([row.text for row in rows], labels, groups, "predict") == labels
    if any(row.passage for row in rows):
        warning = f"the question alone gives the label away, without its passage ({word})"
        return _scored("question alone", credit, rows, warning, groups, labels)
    warning = f"the words alone give the label away, which is right only if wording is the task ({word})"
    return _scored("wording", credit, rows, warning, groups, labels, TOLERATED_WORDING)


def _scored(
    name: str,
    credit: Sequence[float],
    rows: Sequence[AnsweredQuestion],
    warning: str,
    groups: Sequence[int] | None = None,
    labels: Integers | None = None,
    tolerated: float = TOLERATED,
) -> Shortcut:
    """The shortcut's score, with `warning` if it is past the bound.

    `credit` (rows,) is 1 for a right row, 0 for a wrong one, a fraction for a tie. With `labels` (rows,)
    every label weighs the same, otherwise every row. `groups` (rows,) were kept together by cross-validation.
    Rows of one family or group are not independent: the standard error sums residuals within them (Liang &
    Zeger, 1986), and is at least that of rows at chance.
    """
    credit_array, label = np.array(credit), np.zeros(len(rows), dtype=np.int64) if labels is None else labels
    sizes = np.bincount(label)
    chance = 1 / len(sizes) if labels is not None else sum(1 / len(row.options) for row in rows) / len(rows)
    weight = 1 / (len(sizes) * sizes[label])
    score = float(weight @ credit_array)
    residual = weight * (credit_array - (np.bincount(label, credit_array) / sizes)[label])
    families: Sequence[Hashable] = groups or [row.family for row in rows]
    _, family = np.unique([hash(key) for key in families], return_inverse=True)
    clustered = float(np.square(np.bincount(family, residual)).sum())
    at_chance = float(np.square(weight).sum()) * chance * (1 - chance)
    error = max(clustered**0.5, at_chance**0.5 * (FOLD_FACTOR if groups else 1))
    lower_bound = score - NormalDist().inv_cdf(1 - FALSE_ALARM) * error
    is_exceeded = lower_bound > chance + tolerated * (1 - chance)
    text = f"{warning}: {score:.0%}, chance {chance:.0%}" if is_exceeded else None
    return Shortcut(name, score, chance, text)


def _labels(rows: Sequence[AnsweredQuestion]) -> Integers:
    """The label of each row as a number from 0, (rows,)."""
    return np.unique([row.right for row in rows], return_inverse=True)[1]


def _tie_credit(scores: npt.ArrayLike, right: int) -> float:
    """1 if `right` alone has the highest score, 1/t if t share it, else 0; scores are (options,)."""
    values = np.asarray(scores, dtype=np.float64)
    best = values >= values.max() - 1e-9
    return float(best[right] / best.sum())


def _predicted_from_words(texts: Sequence[str], target: Integers, groups: Sequence[int], method: str) -> Any:
    """The prediction for each text by a classifier of words that was not trained on the text's group, (n,).

    `method` is `predict` or `decision_function` of scikit-learn. All 0 if a classifier cannot be trained: the training
    texts of a fold have only one class, or no term that two of them share.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer
    from sklearn.svm import LinearSVC

    terms = list(map(_terms, texts))
    folds = _folds(target, groups)
    if not all(_can_train([terms[index] for index in trained], target[trained]) for trained, _ in folds):
        return np.zeros(len(target))
    # No TF-IDF: shortcuts are frequent words.
    counts = {"binary": True, "min_df": _MIN_TERM_TEXTS, "max_features": 30_000, "dtype": np.float64}
    classifier = LinearSVC(C=0.1, dual=False, class_weight="balanced")
    model = make_pipeline(CountVectorizer(analyzer=list, **counts), Normalizer(), classifier)
    return cross_val_predict(model, terms, target, cv=folds, method=method)


def _terms(text: str) -> list[str]:
    """The words and word pairs of a text."""
    text_words = words(text)
    return text_words + [" ".join(pair) for pair in pairwise(text_words)]


def _can_train(terms: Sequence[Sequence[str]], target: Integers) -> bool:
    counts = Counter(term for own in terms for term in set(own))
    return max(counts.values(), default=0) >= _MIN_TERM_TEXTS and len(np.unique(target)) > 1


def _folds(target: Integers, groups: Sequence[int]) -> list[tuple[Integers, Integers]]:
    """The rows to train on and the rows to test, for each fold; a group is in one fold."""
    from sklearn.model_selection import GroupKFold

    return list(GroupKFold(FOLDS, shuffle=True, random_state=0).split(target, target, groups))


def _groups(rows: Sequence[AnsweredQuestion], texts: Sequence[str]) -> list[int]:
    """A group number for each row, the same for rows of one family and for rows with the same text.

    Rows with the same question (or options) and opposite answers must not be in different folds: each would
    teach the other's wrong answer.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes: dict[Hashable, int] = {}
    family = [nodes.setdefault(("family", row.family), len(nodes)) for row in rows]
    text = [nodes.setdefault(("text", " ".join(words(string))), len(nodes)) for string in texts]
    graph = coo_array((np.ones(len(family)), (family, text)), shape=(len(nodes), len(nodes)))
    return [int(group) for group in connected_components(graph, directed=False)[1][family]]


def _most_telling_word(rows: Sequence[AnsweredQuestion]) -> str:
    """A phrase about the word whose share of rows differs most between one label and the others."""
    rows_of_label = Counter(row.options[row.right] for row in rows)
    counts = Counter((row.options[row.right], word) for row in rows for word in set(words(row.text)))
    rows_of_word: Counter[str] = Counter()
    for (_, word), count in counts.items():
        rows_of_word[word] += count
    best = (-1.0, "", "", 0.0, 0.0)
    for (label, word), count in counts.items():
        own_rows = rows_of_label[label]
        own_share, other_share = count / own_rows, (rows_of_word[word] - count) / (len(rows) - own_rows)
        best = max(best, (own_share - other_share, word, label, own_share, other_share))
    _, word, label, own_share, other_share = best
    return (
        f"most telling: {word[:_MAX_SHOWN]!r}, in {own_share:.0%} of {label[:_MAX_SHOWN]!r} rows, "
        f"{other_share:.0%} of others"
    )


def _answered_questions(
    task_format: TaskFormat, rows: Sequence[Mapping[str, Json]], families: Sequence[Hashable]
) -> Iterator[AnsweredQuestion]:
    """The rows with at least two options and their answer among them."""
    for values, family in zip(rows, families, strict=True):
        options, right = tuple(map(str, task_format.answers.choices(values))), task_format.answers.right_index(values)
        if right is not None and len(options) > 1:
            yield AnsweredQuestion(*text_and_passage(task_format, values), options, right, family)


def text_and_passage(task_format: TaskFormat, values: Mapping[str, Json]) -> tuple[str, str]:
    """The text without the passage, and the passage; if only the passage varies, the passage is the text."""
    candidate = Candidate.of(values, task_format)
    text = candidate.text_without_passage
    return (text, candidate.passage) if text else (candidate.passage, "")
