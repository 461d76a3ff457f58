"""Defines `Roles`, what each field of a task format is for, and `Answers`, which answer is right.

The right answer is one of the fixed labels, or one of the example's own options. The answer field can hold the option
itself, its code (its letter, or its position from 0 or 1, as a number or a text), or its key in a list beside the
options. `Answers` hides the difference: a choice is always an index. `draw_balanced` draws examples with balanced
labels.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Self, TypeVar

from datacreate.formats.example import FieldPath, Json, canonical_json, dotted, replace_field, value_at

T = TypeVar("T")


@dataclass(frozen=True)
class Roles:
    """The fields with each role; None or () if the format has none."""

    inputs: tuple[FieldPath, ...] = ()  # what the answer depends on, in the order of the schema
    context: FieldPath | None = None  # the input that holds the passage
    options: FieldPath | None = None
    keys: FieldPath | None = None  # the letters or numbers of the options, in a list beside them
    answer: FieldPath | None = None
    answer_start: FieldPath | None = None  # where an extractive answer starts in the context
    rejected: FieldPath | None = None  # a worse answer
    turns: FieldPath | None = None  # a conversation
    tools: FieldPath | None = None  # functions; the answer is the name of one, in a call
    tags: tuple[FieldPath, ...] = ()  # each has a tag for every token of the first input
    ignored: tuple[FieldPath, ...] = ()  # nothing uses them, and the model does not write them

    @classmethod
    def of(cls, paths: Mapping[str, Sequence[FieldPath]]) -> Self:
        """The roles of these fields."""
        fields: dict[str, Any] = {
            role: tuple(listed) if role in LIST_ROLES else listed[0] for role, listed in paths.items() if listed
        }
        return cls(**fields)

    @property
    def call(self) -> FieldPath | None:
        """The object with the name of a function and its arguments."""
        return self.answer[:-1] if self.tools and self.answer else None

    def paths(self) -> dict[str, tuple[FieldPath, ...]]:
        """The fields of each role that has one."""
        return {role: value if role in LIST_ROLES else (value,) for role, value in vars(self).items() if value}

    def single(self) -> dict[str, FieldPath]:
        """The roles of one field each."""
        return {role: paths[0] for role, paths in self.paths().items() if role not in LIST_ROLES}

    def named(self) -> dict[str, str]:
        """The roles that have a field, with dotted paths for messages."""
        return {role: ", ".join(map(dotted, paths)) for role, paths in self.paths().items()}

    def document(self) -> dict[str, Json]:
        """The roles as a format file writes them: a path is joined by dots, or a list of keys if a key has a dot."""
        documents = {
            role: [list(path) if any("." in key for key in path) else ".".join(path) for path in paths]
            for role, paths in self.paths().items()
        }
        lists_first = sorted(documents, key=lambda role: role not in LIST_ROLES)
        return {role: documents[role] if role in LIST_ROLES else documents[role][0] for role in lists_first}


LIST_ROLES = ("inputs", "tags", "ignored")
"""The roles that several fields can have."""


_PATH = {"type": ["string", "array"], "items": {"type": "string"}}
_PATHS = {"type": "array", "items": _PATH}
ROLES_SCHEMA = {
    "properties": {role: _PATHS if role in LIST_ROLES else _PATH for role in vars(Roles())},
    "additionalProperties": False,
    "type": "object",
}
"""The schema of `roles` in a format file."""

FIRST_CODES: tuple[Json, ...] = (0, 1, "0", "1", "A", "a")
"""Possible codes of the first option."""


def codes(first: Json, number: int) -> list[Json]:
    """The codes of `number` options: A, B, C, ... or 0, 1, 2, ..."""
    if isinstance(first, str):
        return [str(int(first) + i) if first.isdigit() else chr(ord(first) + i) for i in range(number)]
    return [first + i for i in range(number)]


def first_code(values: Sequence[Json]) -> Json:
    """The first of consecutive codes; None if the values are something else."""
    first = values[0] if values and type(values[0]) is not bool else None
    return first if first in FIRST_CODES and list(values) == codes(first, len(values)) else None


def is_code(answer: Json, first: Json, number: int) -> bool:
    """Whether the answer is a code of one of `number` options, if `first` is the code of the first."""
    return type(answer) is type(first) and answer in codes(first, number)


def label_key(value: Json) -> str:
    """A text that is the same for equal labels: 4 and 4.0 are equal, 1 and true are not."""
    return canonical_json(_whole(value))


def label_text(value: Json) -> str:
    """A label as a text; 4.0 becomes 4, because tables with empty cells hold integers as floats."""
    return str(_whole(value))


def _whole(value: Json) -> Json:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def draw_balanced(
    items: Sequence[T],
    number: int,
    rng: Random,
    label_of: Callable[[T], Json],
    shown: Iterable[T] = (),
    fits: Callable[[T], bool] = lambda _: True,
) -> list[T]:
    """At most `number` of the items that fit, at random; together with `shown` they have each label equally often."""
    items_by_label: dict[str, deque[T]] = {}
    for item in rng.sample(items, len(items)):
        items_by_label.setdefault(label_key(label_of(item)), deque()).append(item)
    counts = Counter(label_key(label_of(item)) for item in shown)
    drawn: list[T] = []
    while items_by_label and len(drawn) < number:
        label = min(items_by_label, key=counts.__getitem__)
        item = items_by_label[label].popleft()
        if not items_by_label[label]:
            del items_by_label[label]
        if fits(item):
            drawn.append(item)
            counts[label] += 1
    return drawn


@dataclass(frozen=True)
class Answers:
    """The possible answers of an example of one format (`choices`), and the index of the right one."""

    roles: Roles
    labels: tuple[Json, ...] | None  # fixed for all examples
    options_vary: bool  # each example has its own options
    first_code: Json = None  # the code of the first option, if the answer is a code
    is_text: bool = True  # the answer field holds text

    @property
    def are_coded(self) -> bool:
        """Whether the answer names an option by its position, letter or key."""
        return self.roles.keys is not None or self.first_code is not None

    def choices(self, values: Mapping[str, Json]) -> list[Json]:
        """The possible answers: the fixed labels, or the example's own options; empty for free text."""
        if self.labels:
            return list(self.labels)
        options = value_at(values, self.roles.options) if self.roles.answer and self.options_vary else None
        return list(options) if isinstance(options, list) else []

    def right_index(self, values: Mapping[str, Json]) -> int | None:
        """The index of the right one of `choices`; None if the answer is none of them, or free text."""
        answer, possible_answers = value_at(values, self.roles.answer), self._field_values(values)
        if self.labels:
            keys = list(map(label_key, possible_answers))
            if label_key(answer) in keys:
                return keys.index(label_key(answer))
        texts, answer_text = list(map(label_text, possible_answers)), label_text(answer)
        if answer_text not in texts:  # case and outer spaces do not count
            texts = [text.casefold().strip() for text in texts]
            answer_text = answer_text.casefold().strip()
        return texts.index(answer_text) if answer_text in texts else None

    def with_choice(self, values: Mapping[str, Json], index: int) -> dict[str, Json]:
        """The example with another of its `choices` as the answer."""
        assert self.roles.answer is not None, "called only for formats with an answer"
        answer = self._field_values(values)[index]
        if not self.labels and self.is_text:
            answer = str(answer)  # options may be numbers where the answer field holds text
        return replace_field(values, self.roles.answer, answer)

    def with_options(self, values: Mapping[str, Json], order: Sequence[int]) -> dict[str, Json]:
        """The example with its options in another order; a position, letter or key as the answer follows its option."""
        assert self.roles.options is not None, "called only for formats with options"
        right, options = self.right_index(values), self.choices(values)
        moved = replace_field(values, self.roles.options, [options[index] for index in order])
        return moved if right is None or not self.are_coded else self.with_choice(moved, order.index(right))

    def text(self, values: Mapping[str, Json]) -> str:
        """The answer in words: the text of the right option, the label, or the free text."""
        index = self.right_index(values)
        if index is not None:
            return str(self.choices(values)[index])
        answer = value_at(values, self.roles.answer)
        if isinstance(answer, list):
            return ", ".join(map(str, answer[:1] if self.roles.answer_start else answer))
        return str(answer)

    def _field_values(self, values: Mapping[str, Json]) -> list[Json]:
        """The value of the answer field for each of `choices`: the choice itself, its code or its key."""
        choices = self.choices(values)
        if self.roles.keys and not self.labels:
            keys = value_at(values, self.roles.keys)
            return list(keys) if isinstance(keys, list) and len(keys) == len(choices) else []
        return choices if self.first_code is None else codes(self.first_code, len(choices))
