"""Which shortcuts a format can have, and what a set of rows offers of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from datacreate.formats.example import Json
from datacreate.formats.task_format import TaskFormat
from datacreate.formats.text_normalization import words
from datacreate.metrics.shortcuts.partial_inputs import Floats, by_numbers, by_words
from datacreate.metrics.shortcuts.shortcut import TOLERATED, TOLERATED_WORDING, Shortcut, Tried, ties_shared
from datacreate.metrics.shortcuts.surface import chance, longest, position, repeated
from datacreate.metrics.shortcuts.views import Choice, Labelled, choices, labelled, together

MOST_ROWS = 4_000
"""Rows that are looked at; of more, so many are drawn by seed."""

FEWEST_ROWS = 20
"""Below this nothing can be said."""


def shortcuts(
    format: TaskFormat,
    rows: Sequence[Mapping[str, Json]],
    families: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> tuple[Shortcut, ...]:
    """What a model could learn from these rows instead of the task.

    `families`, as long as `rows`, says which belong together (made from one parent): no classifier is tested
    on a family that it was trained on. None: every row by itself. Nothing comes of a format whose answers
    are free text, and of fewer than 20 rows.
    """
    told = list(range(len(rows))) if families is None else families
    places: Sequence[int] = range(len(rows))
    if len(rows) > MOST_ROWS:
        places = sorted(random.Random(seed).sample(places, MOST_ROWS))
    drawn, kin = [rows[place] for place in places], [told[place] for place in places]
    if format.head == "multiple_choice":
        found = choices(format, drawn, kin)
        return tuple(_of_choices(found, seed)) if len(found) >= FEWEST_ROWS else ()
    if format.head == "sequence_classification":
        marked = labelled(format, drawn, kin)
        if len(marked) >= FEWEST_ROWS and len({row.label for row in marked}) > 1:
            return tuple(_of_labels(marked, seed))
    return ()


def why_none(format: TaskFormat) -> str | None:
    """Why a format has no shortcuts to measure, in words; None if it has."""
    return None if format.head else "the answers are free text: there is no label or option to guess"


def _of_choices(rows: Sequence[Choice], seed: int) -> Iterator[Shortcut]:
    yield longest(rows)
    yield repeated(rows)
    yield position(rows)
    families = [row.family for row in rows]
    groups = together(families, ["\n".join(sorted(row.options)) for row in rows])
    spread = [group for group, row in zip(groups, rows, strict=True) for _ in row.options]
    right = np.array(
        [place == row.right for row in rows for place in range(len(row.options))], dtype=np.int64
    )
    texts = [option for row in rows for option in row.options]
    for name, scores, warning in (
        (
            "options alone",
            by_words(texts, right, spread, seed),
            "the words of the options alone give away which is right, without the question",
        ),
        (
            "length alone",
            by_numbers(np.vstack([_lengths(row) for row in rows]), right, spread, seed),
            "the lengths of the options alone give away which is right",
        ),
    ):
        if scores is not None:
            ends = np.cumsum([len(row.options) for row in rows])[:-1]
            parts = np.split(scores[:, 1], ends)
            credit = [ties_shared(part, row.right) for part, row in zip(parts, rows, strict=True)]
            yield Tried.of_rows(name, credit, chance(rows), groups, folded=True).judged(warning)


def _lengths(row: Choice) -> Floats:
    """Length of each option among the others, (options, 4)."""
    characters = np.array([len(option.strip()) for option in row.options], dtype=np.float64)
    number = np.array([len(option.split()) for option in row.options], dtype=np.float64)
    ahead = np.sign(characters[:, None] - characters[None, :]).sum(1)
    return np.stack([characters, characters - characters.mean(), number - number.mean(), ahead], axis=1)


def _of_labels(rows: Sequence[Labelled], seed: int) -> Iterator[Shortcut]:
    names = sorted({row.label for row in rows})
    truth = np.array([names.index(row.label) for row in rows], dtype=np.int64)
    groups = together([row.family for row in rows], [row.text for row in rows])
    passage_decides = any(row.passage for row in rows)
    firsts = [" ".join(words(row.text)[:1]) for row in rows]
    sizes = np.array(
        [[len(text) for text in (row.text, row.passage)] + [len(words(row.text))] for row in rows],
        dtype=np.float64,
    )
    word = _most_telling([set(words(row.text)) for row in rows], [row.label for row in rows])
    for name, scores, warning, tolerated in (
        (
            "length alone",
            by_numbers(sizes, truth, groups, seed),
            "the lengths alone give the label away",
            TOLERATED,
        ),
        (
            "first word",
            by_words(firsts, truth, groups, seed),
            "the first word alone gives the label away",
            TOLERATED,
        ),
        (
            "question alone" if passage_decides else "wording",
            by_words([row.text for row in rows], truth, groups, seed),
            f"the question alone gives the label away, without its passage ({word})"
            if passage_decides
            else f"the words alone give the label away, fine only where wording is the task ({word})",
            TOLERATED if passage_decides else TOLERATED_WORDING,
        ),
    ):
        if scores is not None:
            credit = [ties_shared(row, label) for row, label in zip(scores, truth, strict=True)]
            yield Tried.of_labels(name, credit, truth.tolist(), groups).judged(warning, tolerated)


def _most_telling(bags: Sequence[set[str]], labels: Sequence[str]) -> str:
    """The word whose share of rows differs most between one label and the others, in words."""
    total, of = Counter(labels), {label: Counter[str]() for label in sorted(set(labels))}
    for bag, label in zip(bags, labels, strict=True):
        of[label].update(bag)
    everywhere = sum(of.values(), Counter[str]())

    def gap(label: str, word: str) -> float:
        rest = len(labels) - total[label]
        return of[label][word] / total[label] - (everywhere[word] - of[label][word]) / rest

    pairs = [(gap(label, word), word, label) for label in of for word in of[label]]
    if not pairs:
        return "no words"
    _, word, label = max(pairs)
    share = of[label][word] / total[label]
    others = (everywhere[word] - of[label][word]) / (len(labels) - total[label])
    return f"most telling: {word[:40]!r}, in {share:.0%} of {label[:40]!r} rows, {others:.0%} of others"
