"""Shortcuts of a data set: what a model could learn instead of the task.

Counted shortcuts look at each row. Classifiers see only a part of each row and are cross-validated with
families of rows kept together: what they get right can be learned without the task (Poliak et al., 2018;
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

from datacreate.formats.example import Json
from datacreate.formats.task_format import TaskFormat
from datacreate.formats.text_normalization import words
from datacreate.formats.validate import Candidate

MIN_ROWS = 20
"""Smaller sets are not measured."""

FOLDS = 5

FALSE_ALARM = 0.005
"""Probability (one-sided) that a set without the shortcut exceeds its bound by sampling error alone."""

TOLERATED = 0.10
"""Tolerated share of the way from chance to a perfect score: 55 % for two labels, 28 % for five options."""

TOLERATED_WORDING = 0.50
"""The same if wording is part of the task (a closed question, a review): 75 % for two labels."""

FOLD_FACTOR = 1.4
"""Widens the standard error of a classifier: the rows of a fold share one model's errors."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shortcut:
    """What the shortcut alone gets right. Shares are in [0, 1]."""

    name: str
    score: float  # share of rows; balanced over labels for a fixed label set
    chance: float
    rows: int
    warning: str | None = None  # set if the score exceeds what is tolerated and what sampling error explains


@dataclass(frozen=True)
class Row:
    """A question with its options: its own (multiple choice), or the labels of the format."""

    text: str
    passage: str  # empty if the format has none
    options: tuple[str, ...]
    right: int  # index into `options`
    family: Hashable


def shortcuts(
    format: TaskFormat,
    rows: Sequence[Mapping[str, Json]],
    families: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> tuple[Shortcut, ...]:
    """Every shortcut that the format can have, measured on the rows.

    `families`, as long as `rows`, says which rows have the same parent: no classifier is tested on a family
    that it was trained on. By default every row is a family. Empty for free-text answers and below 20 rows.
    """
    if format.head is None:
        return ()
    usable = list(_rows(format, rows, range(len(rows)) if families is None else families))
    if len(usable) < MIN_ROWS:
        return ()
    options = format.head == "multiple_choice"
    groups = _groups(usable, ["\n".join(sorted(row.options)) if options else row.text for row in usable])
    has_folds = len(set(groups)) >= FOLDS
    if options:
        counted = longest_option(usable), question_words(usable)
        return (*counted, options_alone(usable, groups, seed)) if has_folds else counted
    if has_folds and len({row.right for row in usable}) > 1:
        return length_alone(usable, groups, seed), question_alone(usable, groups, seed)
    return ()


def longest_option(rows: Sequence[Row]) -> Shortcut:
    """How often the right option has the most characters; a tie of t options counts 1/t."""
    credit = [_tie_credit([len(option.strip()) for option in row.options], row.right) for row in rows]
    return _scored("longest option", credit, rows, "the right option is the longest too often")


def question_words(rows: Sequence[Row]) -> Shortcut:
    """How often the right option has the largest share of its words in the question; ties as above."""
    credit = []
    for row in rows:
        question = set(words(row.text))
        bags = [set(words(option)) for option in row.options]
        shares = [len(bag & question) / len(bag) if bag else 0.0 for bag in bags]
        credit.append(_tie_credit(shares, row.right))
    warning = "the right option repeats the question's words too often"
    return _scored("words of the question", credit, rows, warning)


def options_alone(rows: Sequence[Row], groups: Sequence[int], seed: int) -> Shortcut:
    """How often a classifier of the options' words picks the right option without the question."""
    group_of_option = [group for group, row in zip(groups, rows, strict=True) for _ in row.options]
    right = np.array([i == row.right for row in rows for i in range(len(row.options))], dtype=np.int64)
    options = [option for row in rows for option in row.options]
    scores = _cross_validated(_word_classifier(), options, right, group_of_option, seed, "decision_function")
    parts = np.split(scores, np.cumsum([len(row.options) for row in rows])[:-1])
    credit = [_tie_credit(part, row.right) for part, row in zip(parts, rows, strict=True)]
    warning = "the words of the options alone give away which is right, without the question"
    return _scored("options alone", credit, rows, warning, groups)


def length_alone(rows: Sequence[Row], groups: Sequence[int], seed: int) -> Shortcut:
    """How often a small decision tree on the lengths of question and passage finds the label."""
    from sklearn.tree import DecisionTreeClassifier

    lengths = [[len(row.text), len(row.passage), len(words(row.text))] for row in rows]
    leaf = max(2, min(50, len(rows) // 20))
    tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=leaf, class_weight="balanced", random_state=0)
    labels = _labels(rows)
    credit = _cross_validated(tree, lengths, labels, groups, seed) == labels
    return _scored("length alone", credit, rows, "the lengths alone give the label away", groups, labels)


def question_alone(rows: Sequence[Row], groups: Sequence[int], seed: int) -> Shortcut:
    """How often a classifier of the question's words finds the label: `wording` if there is no passage."""
    labels, word = _labels(rows), _most_telling_word(rows)
    credit = _cross_validated(_word_classifier(), [row.text for row in rows], labels, groups, seed) == labels
    if any(row.passage for row in rows):
        warning = f"the question alone gives the label away, without its passage ({word})"
        return _scored("question alone", credit, rows, warning, groups, labels)
    warning = f"the words alone give the label away, which is right only if wording is the task ({word})"
    return _scored("wording", credit, rows, warning, groups, labels, TOLERATED_WORDING)


def _scored(
    name: str,
    credit: Sequence[float],
    rows: Sequence[Row],
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
    credits, label = np.array(credit), np.zeros(len(rows), dtype=np.int64) if labels is None else labels
    sizes = np.bincount(label)
    chance = 1 / len(sizes) if labels is not None else sum(1 / len(row.options) for row in rows) / len(rows)
    weight = 1 / (len(sizes) * sizes[label])
    score = float(weight @ credits)
    residual = weight * (credits - (np.bincount(label, credits) / sizes)[label])
    families: Sequence[Hashable] = groups or [row.family for row in rows]
    _, family = np.unique([hash(key) for key in families], return_inverse=True)
    clustered = float(np.square(np.bincount(family, residual)).sum())
    at_chance = float(np.square(weight).sum()) * chance * (1 - chance)
    error = max(clustered**0.5, at_chance**0.5 * (FOLD_FACTOR if groups else 1))
    exceeded = score - NormalDist().inv_cdf(1 - FALSE_ALARM) * error > chance + tolerated * (1 - chance)
    text = f"{warning}: {score:.0%}, chance {chance:.0%}" if exceeded else None
    return Shortcut(name, score, chance, len(credits), text)


def _labels(rows: Sequence[Row]) -> Integers:
    """The label of each row as a number from 0, (rows,)."""
    return np.unique([row.right for row in rows], return_inverse=True)[1]


def _tie_credit(scores: npt.ArrayLike, right: int) -> float:
    """1 if `right` alone has the highest score, 1/t if t share it, else 0; scores are (options,)."""
    found = np.asarray(scores, dtype=np.float64)
    best = found >= found.max() - 1e-9
    return float(best[right] / best.sum())


def _word_classifier() -> Any:
    """A linear support vector machine on words and word pairs."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer
    from sklearn.svm import LinearSVC

    def terms(text: str) -> list[str]:
        found = words(text)
        return found + [" ".join(pair) for pair in pairwise(found)]

    # A term of a single row (min_df) says nothing about other rows. No TF-IDF: shortcuts are frequent words.
    counter = CountVectorizer(analyzer=terms, binary=True, min_df=2, max_features=30_000, dtype=np.float64)
    return make_pipeline(counter, Normalizer(), LinearSVC(C=0.1, dual=False, class_weight="balanced"))


def _cross_validated(
    model: Any,
    inputs: Sequence[Any],
    target: Integers,
    groups: Sequence[int],
    seed: int,
    method: str = "predict",
) -> Any:
    """The prediction for each input by a model that was not trained on its group, (n,).

    All 0 if the inputs of a fold's training rows have one class only, or no term in common.
    """
    from sklearn.model_selection import GroupKFold, cross_val_predict

    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    try:
        return cross_val_predict(model, inputs, target, groups=groups, cv=folds, method=method)
    except ValueError:
        return np.zeros(len(target))


def _groups(rows: Sequence[Row], texts: Sequence[str]) -> list[int]:
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


def _most_telling_word(rows: Sequence[Row]) -> str:
    """The word whose share of rows differs most between one label and the others, as a phrase."""
    total = Counter(row.options[row.right] for row in rows)
    counts = Counter((row.options[row.right], word) for row in rows for word in set(words(row.text)))
    everywhere: Counter[str] = Counter()
    for (_, word), number in counts.items():
        everywhere[word] += number
    best = (-1.0, "", "", 0.0, 0.0)
    for (label, word), number in counts.items():
        inside, others = number / total[label], (everywhere[word] - number) / (len(rows) - total[label])
        best = max(best, (inside - others, word, label, inside, others))
    _, word, label, inside, others = best
    return f"most telling: {word[:40]!r}, in {inside:.0%} of {label[:40]!r} rows, {others:.0%} of others"


def _rows(
    format: TaskFormat, rows: Sequence[Mapping[str, Json]], families: Sequence[Hashable]
) -> Iterator[Row]:
    """The rows with at least two options and their answer among them."""
    for values, family in zip(rows, families, strict=True):
        options, right = tuple(map(str, format.answers.choices(values))), format.answers.chosen(values)
        if right is not None and len(options) > 1:
            yield Row(*question_and_passage(format, values), options, right, family)


def question_and_passage(format: TaskFormat, values: Mapping[str, Json]) -> tuple[str, str]:
    """The question (all inputs but the passage) and the passage; if only the passage varies, it is the question."""
    candidate = Candidate.of(values, format)
    return (candidate.question, candidate.passage) if candidate.question else (candidate.passage, "")
