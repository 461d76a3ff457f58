"""Rows as shortcuts see them: the text that a label stands on, or a question and its options."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from datacreate.formats.example import Json, field_at
from datacreate.formats.task_format import TaskFormat, answer_text
from datacreate.formats.text_normalization import words


@dataclass(frozen=True)
class Choice:
    """A question whose options are its own."""

    options: tuple[str, ...]  # two or more
    right: int  # index into `options`
    family: Hashable
    question: str = ""


@dataclass(frozen=True)
class Labelled:
    """A row with a label of a fixed set."""

    text: str
    passage: str  # empty where the format has none
    label: str
    family: Hashable


def choices(
    format: TaskFormat, rows: Iterable[Mapping[str, Json]], families: Iterable[Hashable]
) -> list[Choice]:
    """The rows that have two options or more and their answer among them."""
    found = []
    for values, family in zip(rows, families, strict=True):
        options = [answer_text(option) for option in _at(values, format.roles.options) or ()]
        answer = answer_text(_at(values, format.roles.answer)).casefold()
        places = [place for place, option in enumerate(options) if option.casefold() == answer]
        if places and len(options) > 1:
            found.append(Choice(tuple(options), places[0], family, text_in(format, values)))
    return found


def labelled(
    format: TaskFormat, rows: Iterable[Mapping[str, Json]], families: Iterable[Hashable]
) -> list[Labelled]:
    """The rows whose answer is one of the format's labels."""
    known = {answer_text(label) for label in format.labels or ()}
    found = []
    for values, family in zip(rows, families, strict=True):
        label = answer_text(_at(values, format.roles.answer))
        if label in known:
            passage = _at(values, format.roles.context)
            text = text_in(format, values)
            found.append(Labelled(text, passage if isinstance(passage, str) else "", label, family))
    return found


def text_in(format: TaskFormat, values: Mapping[str, Json]) -> str:
    """The question, else all free text; of a row that is not quite of this format, nothing."""
    try:
        return format.text_of(values)
    except (KeyError, TypeError):
        return ""


def _at(values: Mapping[str, Json], path: Sequence[str] | None) -> Json:
    try:
        return None if path is None else field_at(values, tuple(path))
    except (KeyError, TypeError):
        return None


def together(families: Sequence[Hashable], texts: Sequence[str]) -> list[int]:
    """A number for each row, the same for rows of one family and for rows of the same text.

    Twins with one question (or the same options) and opposite answers would else stand on both sides of a
    fold, where each teaches the other's wrong answer.
    """
    leader: dict[Hashable, Hashable] = {}

    def root(key: Hashable) -> Hashable:
        while (above := leader.setdefault(key, key)) != key:
            leader[key] = key = leader[above]
        return key

    for family, text in zip(families, texts, strict=True):
        leader[root(("family", family))] = root(("text", " ".join(words(text))))
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(root(("family", family)), len(numbers)) for family in families]
