"""Defines `Roles`, what each field of a task format is for, and `Answers`, which answer is right.

The right answer is one of the fixed labels, or one of the example's own options. The answer field can hold the option
itself or its key: its letter, or its position from 0 or 1, as a number or a text. The keys are in a list beside the
options, or follow from the first key. `Answers` hides the difference: it names a choice by its index, always from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from datacreate.formats.example import FieldPath, Json, canonical_json, dotted, replace_field, value_at
from datacreate.formats.schema_utils import Schema, is_constant, leaf_schemas, may_have_text


@dataclass(frozen=True)
class Roles:
    """The fields with each role. A role that no field has is None, or () if several fields can have it."""

    inputs: tuple[FieldPath, ...] = ()  # what the answer depends on, in the order of the schema
    context: FieldPath | None = None  # the input that holds the passage
    options: FieldPath | None = None
    keys: FieldPath | None = None  # a list beside the options with the key (letter or number) of each
    answer: FieldPath | None = None
    answer_start: FieldPath | None = None  # where an extractive answer starts in the context
    rejected: FieldPath | None = None  # a worse answer
    turns: FieldPath | None = None  # a conversation
    tools: FieldPath | None = None  # functions; the answer is the name of one, in a call
    tags: tuple[FieldPath, ...] = ()  # each has a tag for every token of the first input
    ignored: tuple[FieldPath, ...] = ()  # nothing uses them, and the model does not write them

    @classmethod
    def of(cls, paths: Mapping[str, Sequence[FieldPath]]) -> Self:
        """Make the record from the fields of each role, given by its name; a role can have no field."""
        fields: dict[str, Any] = {
            role: tuple(listed) if role in LIST_ROLES else listed[0] for role, listed in paths.items() if listed
        }
        return cls(**fields)

    @property
    def call(self) -> FieldPath | None:
        """The object with the name of a function and its arguments."""
        return self.answer[:-1] if self.tools and self.answer else None

    def paths(self) -> dict[str, tuple[FieldPath, ...]]:
        """The fields of each role that has one, by the name of the role."""
        return {role: value if role in LIST_ROLES else (value,) for role, value in vars(self).items() if value}

    def named(self) -> dict[str, str]:
        """The fields of each role as a text for messages: `{"inputs": "title, review.text", "answer": "stars"}`."""
        return {role: ", ".join(map(dotted, paths)) for role, paths in self.paths().items()}

    def document(self) -> dict[str, Json]:
        """The roles as a format file writes them: a path is joined by dots, or a list of keys if a key has a dot."""
        documents = {
            role: [list(path) if any("." in key for key in path) else ".".join(path) for path in paths]
            for role, paths in self.paths().items()
        }
        lists_first = sorted(documents, key=lambda role: role not in LIST_ROLES)
        return {role: documents[role] if role in LIST_ROLES else documents[role][0] for role in lists_first}


LIST_ROLES = ("inputs", "tags", "ignored")  # the roles that several fields can have


_PATH = {"type": ["string", "array"], "items": {"type": "string"}}
_PATHS = {"type": "array", "items": _PATH}
ROLES_SCHEMA = {
    "properties": {role: _PATHS if role in LIST_ROLES else _PATH for role in vars(Roles())},
    "additionalProperties": False,
    "type": "object",
}
"""The schema of `roles` in a format file."""

FIRST_KEYS: tuple[Json, ...] = (0, 1, "0", "1", "A", "a")
"""The keys that the first option can have, if no list says what the keys are."""


def option_keys(first: Json, count: int) -> list[Json]:
    """The keys of `count` options if `first` is that of the first: A, B, C or 1, 2, 3 for three."""
    if isinstance(first, str):
        return [str(int(first) + i) if first.isdigit() else chr(ord(first) + i) for i in range(count)]
    return [first + i for i in range(count)]


def first_key_in(values: Sequence[Json]) -> Json:
    """The first of the values, if they are the keys of options in order; None if they are something else."""
    first = values[0] if values and type(values[0]) is not bool else None
    return first if first in FIRST_KEYS and list(values) == option_keys(first, len(values)) else None


def is_option_key(answer: Json, first: Json, count: int) -> bool:
    """Whether the answer is the key of one of `count` options, if `first` is the key of the first."""
    return type(answer) is type(first) and answer in option_keys(first, count)


def canonical_label(value: Json) -> str:
    """The label as canonical JSON, equal for equal labels: `4` for 4 and 4.0, `1` for 1, `true` for true."""
    return canonical_json(_whole(value))


def label_text(value: Json) -> str:
    """The label as a text: `4` for 4.0, because tables with empty cells hold integers as floats."""
    return str(_whole(value))


def _whole(value: Json) -> Json:
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True)
class Answers:
    """Finds and sets the right answer in examples of one format, whatever the answer field holds."""

    roles: Roles
    labels: tuple[Json, ...] | None  # fixed for all examples
    options_vary: bool  # each example has its own options
    first_key: Json = None  # the key of the first option, if the answer is a key that no list gives
    is_text: bool = True  # the answer field holds text

    @property
    def are_keys(self) -> bool:
        """Whether the answer field holds the key of an option (its letter or position), not its text."""
        return self.roles.keys is not None or self.first_key is not None

    def choices(self, values: Mapping[str, Json]) -> list[Json]:
        """The possible answers: the fixed labels, or the example's own options. Empty if the answer is free text."""
        if self.labels:
            return list(self.labels)
        options = value_at(values, self.roles.options) if self.roles.answer and self.options_vary else None
        return list(options) if isinstance(options, list) else []

    def right_index(self, values: Mapping[str, Json]) -> int | None:
        """The index of the right answer in `choices`; None if the answer is none of them, or is free text."""
        answer, possible_answers = value_at(values, self.roles.answer), self._field_values(values)
        if self.labels:
            keys = list(map(canonical_label, possible_answers))
            if canonical_label(answer) in keys:
                return keys.index(canonical_label(answer))
        if answer is None:  # no answer, and not that of a choice "None"
            return None
        texts, answer_text = list(map(label_text, possible_answers)), label_text(answer)
        if answer_text not in texts:  # case and outer spaces do not count
            texts = [text.casefold().strip() for text in texts]
            answer_text = answer_text.casefold().strip()
        return texts.index(answer_text) if answer_text in texts else None

    def with_choice(self, values: Mapping[str, Json], index: int) -> dict[str, Json]:
        """The example with the choice at `index` as the right answer. Raises IndexError if there are fewer choices."""
        assert self.roles.answer is not None, "called only for formats with an answer"
        answer = self._field_values(values)[index]
        if not self.labels and self.is_text:
            answer = str(answer)  # options may be numbers where the answer field holds text
        return replace_field(values, self.roles.answer, answer)

    def with_options(self, values: Mapping[str, Json], order: Sequence[int]) -> dict[str, Json]:
        """The example with its options in the order of these indices; if the answer is a key, it follows its option."""
        assert self.roles.options is not None, "called only for formats with options"
        right, options = self.right_index(values), self.choices(values)
        moved = replace_field(values, self.roles.options, [options[index] for index in order])
        return moved if right is None or not self.are_keys else self.with_choice(moved, order.index(right))

    def text(self, values: Mapping[str, Json]) -> str:
        """The answer in words: the text of the right option, the label, or the free text; of a list its parts."""
        index = self.right_index(values)
        if index is not None:
            return str(self.choices(values)[index])
        answer = value_at(values, self.roles.answer)
        if isinstance(answer, list):
            return ", ".join(map(str, answer[:1] if self.roles.answer_start else answer))
        return str(answer)

    def _field_values(self, values: Mapping[str, Json]) -> list[Json]:
        """What the answer field holds if each of `choices` is right: the choice itself, or its key."""
        choices = self.choices(values)
        if self.roles.keys and not self.labels:
            keys = value_at(values, self.roles.keys)
            return list(keys) if isinstance(keys, list) and len(keys) == len(choices) else []
        return choices if self.first_key is None else option_keys(self.first_key, len(choices))


def default_inputs(schema: Schema, roles: Roles) -> tuple[FieldPath, ...]:
    """The inputs of a format that does not name them: the fields with free text and no role, and the context.

    If no such field has free text, they are the fields without a role that vary.
    """
    may_be_inputs = ("inputs", "context", "tags")
    with_role = {path for role, paths in roles.paths().items() if role not in may_be_inputs for path in paths}
    fields = {
        path: part
        for path, part in leaf_schemas(schema)
        if not is_constant(part) and not any(path[: len(other)] == other for other in with_role)
    }
    return tuple(path for path, part in fields.items() if may_have_text(part)) or tuple(fields)
