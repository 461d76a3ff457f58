"""What counting alone shows: the right option is the longest, repeats the question, or has one place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from datacreate.formats.text_normalization import words
from datacreate.metrics.shortcuts.shortcut import Shortcut, Tried, ties_shared
from datacreate.metrics.shortcuts.views import Choice


def longest(rows: Sequence[Choice]) -> Shortcut:
    """How often the right option has the most characters; of t that share the length each counts 1/t."""
    credit = [ties_shared([len(option.strip()) for option in row.options], row.right) for row in rows]
    tried = Tried.of_rows("longest option", credit, chance(rows), [row.family for row in rows])
    return tried.judged("the right option is the longest too often")


def repeated(rows: Sequence[Choice]) -> Shortcut:
    """How often the right option has the largest share of its words in the question; ties as above."""
    credit = []
    for row in rows:
        asked = set(words(row.question))
        bags = [set(words(option)) for option in row.options]
        label_ratio = [len(bag & asked) / len(bag) if bag else 0.0 for bag in bags]
        credit.append(ties_shared(label_ratio, row.right))
    tried = Tried.of_rows("words of the question", credit, chance(rows), [row.family for row in rows])
    return tried.judged("the right option repeats the question's words too often")


def position(rows: Sequence[Choice]) -> Shortcut:
    """How often the right option is where it is most often."""
    counts = Counter(row.right for row in rows)
    place = max(sorted(counts), key=counts.__getitem__)
    credit = [float(row.right == place) for row in rows]
    most = max(len(row.options) for row in rows)
    families = [row.family for row in rows]
    tried = Tried.of_rows("position of the right option", credit, chance(rows), families, picked_from=most)
    return tried.judged(f"the right option is number {place + 1} too often")


def chance(rows: Sequence[Choice]) -> float:
    """The share of questions that guessing gets right."""
    return sum(1 / len(row.options) for row in rows) / len(rows)
