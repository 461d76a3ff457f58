"""Which answer is right: one of the fixed labels, or one of the example's own options.

The answer field can hold the right option itself, its position (from 0 or 1, as a number or a text), its letter, or
its key in a list beside the options. These functions hide the difference: a choice is always an index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from datacreate.formats.example import Json, canonical_json, replace_field, value_at

if TYPE_CHECKING:
    from datacreate.formats.task_format import TaskFormat

FIRST_CODES: tuple[Json, ...] = (0, 1, "0", "1", "A", "a")
"""What an answer field holds for the first option, if it holds positions or letters."""


def codes(first: Json, number: int) -> list[Json]:
    """What an answer field holds for each of `number` options: A, B, C, ... or 0, 1, 2, ..."""
    if isinstance(first, str):
        return [str(int(first) + i) if first.isdigit() else chr(ord(first) + i) for i in range(number)]
    return [first + i for i in range(number)]


def first_code(values: Sequence[Json]) -> Json:
    """The first of consecutive codes; None if the values are something else."""
    first = values[0] if values and type(values[0]) is not bool else None
    return first if first in FIRST_CODES and list(values) == codes(first, len(values)) else None


def label_key(value: Json) -> str:
    """The same text for equal labels: 4 and 4.0 are equal, 1 and true are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return canonical_json(value)


def choices(format: TaskFormat, values: Mapping[str, Json]) -> list[Json]:
    """The possible answers: the fixed labels, or the example's own options; empty for free text."""
    if format.labels:
        return list(format.labels)
    listed = value_at(values, format.roles.options) if format.roles.answer and format.options_vary else None
    return list(listed) if isinstance(listed, list) else []


def chosen(format: TaskFormat, values: Mapping[str, Json]) -> int | None:
    """The index of the right one of `choices`; None if the answer is none of them, or free text."""
    answer, possible = value_at(values, format.roles.answer), _codes(format, values)
    if format.labels:
        keys = list(map(label_key, possible))
        if label_key(answer) in keys:
            return keys.index(label_key(answer))
    texts, text = list(map(str, possible)), str(answer)
    if text not in texts:  # case and outer spaces do not count
        texts, text = [each.casefold().strip() for each in texts], text.casefold().strip()
    return texts.index(text) if text in texts else None


def with_choice(format: TaskFormat, values: Mapping[str, Json], index: int) -> dict[str, Json]:
    """The example with another of its `choices` as the answer."""
    assert format.roles.answer is not None, "called only for formats with an answer"
    code = _codes(format, values)[index]
    if not format.labels and format.answer_is_text:
        code = str(code)  # options may be numbers where the answer field holds text
    return replace_field(values, format.roles.answer, code)


def with_options(format: TaskFormat, values: Mapping[str, Json], order: Sequence[int]) -> dict[str, Json]:
    """The example with its options in another order; a position, letter or key as the answer follows its option."""
    assert format.roles.options is not None, "called only for formats with options"
    right, listed = chosen(format, values), choices(format, values)
    moved = replace_field(values, format.roles.options, [listed[index] for index in order])
    return moved if right is None or not format.is_coded else with_choice(format, moved, order.index(right))


def answer_text(format: TaskFormat, values: Mapping[str, Json]) -> str:
    """The answer in words: the text of the right option, the label, or the free text."""
    index = chosen(format, values)
    if index is not None:
        return str(choices(format, values)[index])
    answer = value_at(values, format.roles.answer)
    if isinstance(answer, list):
        return ", ".join(map(str, answer[:1] if format.roles.answer_start else answer))
    return str(answer)


def _codes(format: TaskFormat, values: Mapping[str, Json]) -> list[Json]:
    """What the answer field holds for each of `choices`."""
    possible = choices(format, values)
    if format.labels or not possible:
        return possible
    if format.roles.keys:
        keys = value_at(values, format.roles.keys)
        return list(keys) if isinstance(keys, list) and len(keys) == len(possible) else []
    return possible if format.first_code is None else codes(format.first_code, len(possible))
