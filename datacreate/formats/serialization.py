"""How an example is written compactly for the model, and how a written item is read back.

The default style is `positional`: one JSON array per example, fields by position. Constants are not written. A fixed
label comes first, so that the model writes the text for it. If each example has its own options, the right option is
written first and the answer field is not written: every answer is then among its options. Reading shuffles the
options, because models prefer some positions. Options inside an object, or of another type than the answer, keep the
answer field and are shuffled too. The style `keyed` writes the JSON object unchanged, as the paper does.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from datacreate.formats.example import Example, FieldPath, Json, canonical_json, field_at, strings_in
from datacreate.formats.schema_utils import (
    constant_of,
    drop_constants,
    is_constant,
    restore_constants,
    schema_at,
    text_reader,
    with_constant,
    without_constants,
)
from datacreate.formats.task_format import Rule, TaskFormat, answer_text

Style = Literal["positional", "keyed"]

_OPTION_WORDS = re.compile(
    r"\W*(?:\d+ )?(?:right |wrong |correct |incorrect )?options?(?: (?:\d+|[a-z]))?\W*", re.IGNORECASE
)
"""What small models write for an option, copied from `PromptEncoding.describe`."""


_AROUND_NAME = string.punctuation + string.whitespace


class MalformedItem(ValueError):
    """An item does not have the shape of the encoding."""


@dataclass(frozen=True)
class PromptEncoding:
    """How examples of a format are written.

    With `pseudo_labels` the label is not written, because the verifier assigns it later; reading sets the first label
    as a stand-in.
    """

    format: TaskFormat
    style: Style = "positional"
    pseudo_labels: bool = False

    @property
    def supports_pseudo_labels(self) -> bool:
        """Whether the format has a fixed label that need not be written."""
        return self.style == "positional" and bool(self.format.labels) and bool(self.format.roles.answer)

    @cached_property
    def _properties(self) -> dict[str, Json]:
        properties = dict(self.format.schema["properties"])
        answer, labels = self.format.roles.answer, self.format.labels
        if self.pseudo_labels and answer and labels:
            properties[answer[0]] = with_constant(properties[answer[0]], answer[1:], labels[0])
        return properties

    @cached_property
    def _label_first(self) -> dict[str, Json]:
        """The schemas of all fields; inside an object, too, a fixed label comes before the text."""
        answer = self.format.roles.answer
        if self.style == "keyed" or not answer or not self.format.labels:
            return self._properties
        return {**self._properties, answer[0]: _move_first(self._properties[answer[0]], answer[1:])}

    @cached_property
    def _constants(self) -> dict[str, Json]:
        return {name: constant_of(schema) for name, schema in self._properties.items() if is_constant(schema)}

    @cached_property
    def _answer_as_first_option(self) -> tuple[str, str] | None:
        """The fields of the options and of the answer, if the answer is written as the first option."""
        format = self.format
        options, answer = format.roles.options, format.roles.answer
        if self.style == "keyed" or Rule.ANSWER_IN_OPTIONS not in format.rules or not options or not answer:
            return None
        if format.labels or not format.options_vary or len(options) + len(answer) > 2:
            return None
        items, answer_schema = (
            schema_at(format.schema, options).get("items"),
            schema_at(format.schema, answer),
        )
        same_type = (
            isinstance(items, Mapping) and "type" in items and items["type"] == answer_schema.get("type")
        )
        return (options[0], answer[0]) if same_type else None

    @cached_property
    def _shuffled_options(self) -> FieldPath | None:
        """Where options are that have a separate answer field and are shuffled when read."""
        roles = self.format.roles
        if (
            self.style == "keyed"
            or self._answer_as_first_option
            or Rule.ANSWER_IN_OPTIONS not in self.format.rules
        ):
            return None
        return roles.options if roles.answer and self.format.options_vary else None

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The top-level fields that are written, in order."""
        if self.style == "keyed":
            return tuple(self._properties)
        answer = self.format.roles.answer
        skipped = self._answer_as_first_option[1] if self._answer_as_first_option else None
        names = [name for name in self._properties if name != skipped and name not in self._constants]
        if answer and self.format.labels:
            names.sort(key=lambda name: name != answer[0])
        return tuple(names)

    @property
    def field_schemas(self) -> dict[str, Json]:
        """The schema of each written field, in order."""
        schemas = {name: self._label_first[name] for name in self.fields}
        if self.style == "keyed":
            return schemas
        return {name: without_constants(schema) for name, schema in schemas.items()}

    @cached_property
    def _free_fields(self) -> tuple[str, ...]:
        return tuple(name for name in self.fields if text_reader(self._properties[name]))

    def has_placeholder(self, values: Mapping[str, Json]) -> bool:
        """Whether a text repeats the prompt instead of following it: a field's own name, "wrong option 2"."""
        if any(_is_own_name(values.get(name), name) for name in self._free_fields):
            return True
        if self.format.roles.options is None or not self.format.options_vary:
            return False
        try:
            options = field_at(values, self.format.roles.options)
        except (KeyError, TypeError):
            return False
        return any(map(_OPTION_WORDS.fullmatch, strings_in(options)))

    def write(self, example: Example) -> Json:
        """The example as the prompt shows it."""
        if self.style == "keyed":
            return dict(example.values)
        row = [drop_constants(example.values[name], self._label_first[name]) for name in self.fields]
        if self._answer_as_first_option:
            options, answer = self._answer_as_first_option
            right = answer_text(example.values[answer])
            index = self.fields.index(options)
            row[index] = sorted(row[index], key=lambda option: _mismatch(answer_text(option), right))
        return row

    def read(self, item: Json) -> dict[str, Json]:
        """The values of a written item, not validated. Raises MalformedItem if it has another shape."""
        if self.style == "keyed":
            if not isinstance(item, dict):
                raise MalformedItem("not an object")
            return {name: item[name] for name in self._properties if name in item} | item
        if not isinstance(item, list) or len(item) != len(self.fields):
            raise MalformedItem(f"not a list of {len(self.fields)}")
        written = zip(self.fields, item, strict=True)
        values = {name: restore_constants(value, self._properties[name]) for name, value in written}
        if self._answer_as_first_option:
            options, answer = self._answer_as_first_option
            listed = values[options]
            if not isinstance(listed, list) or not listed:
                raise MalformedItem("no options")
            values |= {answer: listed[0], options: _shuffled(listed, _hash_number(values))}
        elif self._shuffled_options:
            values = _with_shuffled(values, self._shuffled_options, _hash_number(values))
        return {name: values[name] if name in values else self._constants[name] for name in self._properties}

    def describe(self) -> str:
        """The encoding in words for the prompt: `[question, [right option, 4 wrong options]]`."""
        if self.style == "keyed":
            return "{" + ", ".join(self.fields) + "}"
        words = list(self.fields)
        if self._answer_as_first_option:
            name = self._answer_as_first_option[0]
            wrong = self._properties[name].get("minItems", 2) - 1
            words[words.index(name)] = f"[right option, {wrong} wrong option{'s' if wrong > 1 else ''}]"
        return f"[{', '.join(words)}]"


def _is_own_name(value: Json, name: str) -> bool:
    """Whether a text in `value` is only the name of its field."""
    if isinstance(value, Mapping):
        return any(_is_own_name(part, key) for key, part in value.items())
    if isinstance(value, list):
        return any(_is_own_name(part, name) for part in value)
    if not isinstance(value, str) or len(name) < 3 or len(value) > len(name) + 8:
        return False
    return value.strip(_AROUND_NAME).casefold() == name.strip(_AROUND_NAME).casefold()


def _mismatch(option: str, answer: str) -> tuple[bool, bool]:
    return option != answer, option.casefold() != answer.casefold()


def _move_first(schema: Json, path: FieldPath) -> Json:
    """The schema with the property at `path` before its siblings, at every level."""
    if not path:
        return schema
    properties = {**schema["properties"]}
    first = _move_first(properties.pop(path[0]), path[1:])
    return {**schema, "properties": {path[0]: first, **properties}}


def _with_shuffled(values: Json, path: FieldPath, number: int) -> Json:
    """The values with the options at `path` shuffled; unchanged if there are none."""
    if not path:
        return _shuffled(values, number) if isinstance(values, list) and values else values
    if not isinstance(values, Mapping) or path[0] not in values:
        return values
    return {**values, path[0]: _with_shuffled(values[path[0]], path[1:], number)}


def _hash_number(values: Json) -> int:
    """256 bits derived from the content, so that the same item always gives the same order."""
    digest = hashlib.sha256(canonical_json(values).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest, "little")


def _shuffled(options: list[Json], number: int) -> list[Json]:
    """A permutation chosen by the digits of `number` in factorial base; the first option's place is uniform.

    This is faster than seeding a generator. 256 bits reach every order of up to 57 options.
    """
    shuffled = list(options)
    number, first = divmod(number, len(shuffled))
    for last in range(len(shuffled) - 1, 1, -1):
        number, other = divmod(number, last)
        shuffled[last], shuffled[other + 1] = shuffled[other + 1], shuffled[last]
    shuffled[0], shuffled[first] = shuffled[first], shuffled[0]
    return shuffled
