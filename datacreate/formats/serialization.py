"""How the model writes one example, and how what it wrote becomes an example again.

Constants are never generated, a fixed label comes first so that the text is written for it,
and everything else follows the declared order. The default layout is `positional`: one JSON
array per example, fields by position. Options that vary are written with the right one first
and the answer field is not written at all, so that every answer is among its options and none
is written twice; reading deals the options out again. Options inside an object, or of another
type than the answer, keep an answer of their own, and are dealt out all the same: a model has
its favourite places. `keyed` writes the object as it is, which is how the paper prompts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from datacreate.formats.example import Example, FieldPath, Json, canonical_json
from datacreate.formats.grammar import closed_object, grammar_schema, tuple_of
from datacreate.formats.roles import Rule, answer_text
from datacreate.formats.schema_utils import (
    constant_of,
    drop_constants,
    has_parts,
    is_constant,
    restore_constants,
    schema_at,
    without_constants,
)
from datacreate.formats.task_format import TaskFormat

Style = Literal["positional", "keyed"]


_OPTION_WORDS = r"(?:-?\d+ )?(?:right |wrong |correct |incorrect )?options?(?: (?:\d+|[a-z]))?"


class Malformed(ValueError):
    """What the model wrote does not have the layout's shape."""


@dataclass(frozen=True)
class Layout:
    """One way to write the examples of a format."""

    format: TaskFormat
    style: Style = "positional"
    pseudo_labels: bool = False  # the label is not written at all; reading puts the first in its place

    @property
    def can_write_text_first(self) -> bool:
        """Whether there is a label that could be left to somebody else."""
        return self.style == "positional" and bool(self.format.labels) and bool(self.format.roles.answer)

    @cached_property
    def _properties(self) -> dict[str, Json]:
        properties = dict(self.format.schema["properties"])
        answer, labels = self.format.roles.answer, self.format.labels
        if self.pseudo_labels and answer and labels:
            properties[answer[0]] = _with_constant(properties[answer[0]], answer[1:], labels[0])
        return properties

    @cached_property
    def _in_writing_order(self) -> dict[str, Json]:
        # Inside an object too, a fixed label is written before the text.
        answer = self.format.roles.answer
        if self.style == "keyed" or not answer or not self.format.labels:
            return self._properties
        return {**self._properties, answer[0]: _leading(self._properties[answer[0]], answer[1:])}

    @cached_property
    def _constants(self) -> dict[str, Json]:
        return {name: constant_of(schema) for name, schema in self._properties.items() if is_constant(schema)}

    @cached_property
    def _with_parts(self) -> list[str]:
        return [name for name in self.fields if has_parts(self._properties[name])]

    @cached_property
    def _merged(self) -> tuple[str, str] | None:
        """The fields of the options and of the answer, if the answer is the first option."""
        format = self.format
        options, answer = format.roles.options, format.roles.answer
        if self.style == "keyed" or Rule.ANSWER_IN_OPTIONS not in format.rules or not options or not answer:
            return None
        if format.labels or not format.options_vary or len(options) + len(answer) > 2:
            return None
        one, other = schema_at(format.schema, options).get("items"), schema_at(format.schema, answer)
        same_kind = isinstance(one, Mapping) and "type" in one and one["type"] == other.get("type")
        return (options[0], answer[0]) if same_kind else None

    @cached_property
    def _dealt(self) -> FieldPath | None:
        """Where options stand that keep an answer of their own beside them, whose order reading deals out."""
        roles = self.format.roles
        if self.style == "keyed" or self._merged or Rule.ANSWER_IN_OPTIONS not in self.format.rules:
            return None
        return roles.options if roles.answer and self.format.options_vary else None

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The top-level fields that are written, in writing order."""
        if self.style == "keyed":
            return tuple(self._properties)
        answer = self.format.roles.answer
        skipped = self._merged[1] if self._merged else None
        names = [name for name in self._properties if name != skipped and name not in self._constants]
        if answer and self.format.labels:
            names.sort(key=lambda name: name != answer[0])
        return tuple(names)

    @cached_property
    def echo(self) -> re.Pattern[str]:
        """Matches a text that is nothing but the words of `shape`, which small models copy."""
        words = [re.escape(name) for name in self.fields if len(name) > 2 and any(map(str.isalpha, name))]
        return re.compile(rf"\W*(?:{'|'.join([*words, _OPTION_WORDS])})\W*", re.IGNORECASE)

    def item_schema(self, label: Json = None, *, deal: bool = False) -> dict[str, Json]:
        """The grammar's schema of one written example; with `deal`, its answer is `label`."""
        keyed = self.style == "keyed"
        schemas = {name: self._in_writing_order[name] for name in self.fields}
        parts = {name: grammar_schema(s if keyed else without_constants(s)) for name, s in schemas.items()}
        answer = self.format.roles.answer
        if deal and answer:
            parts[answer[0]] = _with_constant(parts[answer[0]], answer[1:], label)
        return closed_object(parts) if keyed else tuple_of(list(parts.values()))

    def write(self, example: Example) -> Json:
        """The example as the model is shown it."""
        if self.style == "keyed":
            return dict(example.values)
        row = [drop_constants(example.values[name], self._in_writing_order[name]) for name in self.fields]
        if self._merged:
            options, answer = self._merged
            right = answer_text(example.values[answer])
            at = self.fields.index(options)
            row[at] = sorted(row[at], key=lambda option: _distance(answer_text(option), right))
        return row

    def read(self, item: Json) -> dict[str, Json]:
        """The fields of the example that was written as `item`; Malformed if it has another shape."""
        if self.style == "keyed":
            if not isinstance(item, dict):
                raise Malformed("not an object")
            return {name: item[name] for name in self._properties if name in item} | item
        if not isinstance(item, list) or len(item) != len(self.fields):
            raise Malformed(f"not a list of {len(self.fields)}")
        written = dict(zip(self.fields, item, strict=True))
        for name in self._with_parts:
            written[name] = restore_constants(written[name], self._properties[name])
        if self._merged:
            _deal_options(written, *self._merged)
        elif self._dealt:
            written = _with_dealt(written, self._dealt, _number_of(written))
        return {
            name: written[name] if name in written else self._constants[name] for name in self._properties
        }

    def shape(self) -> str:
        """The layout in words, for the prompt: `[question, [right option, 4 wrong options]]`."""
        if self.style == "keyed":
            return "{" + ", ".join(self.fields) + "}"
        return "[" + ", ".join(self._words_for(name) for name in self.fields) + "]"

    def _words_for(self, name: str) -> str:
        if self._merged and name == self._merged[0]:
            wrong = self._properties[name].get("minItems", 2) - 1
            return f"[right option, {wrong} wrong option{'s' if wrong > 1 else ''}]"
        return name


def _distance(option: str, answer: str) -> tuple[bool, bool]:
    return option != answer, option.casefold() != answer.casefold()


def _deal_options(written: dict[str, Json], options: str, answer: str) -> None:
    """Take the first option for the answer and give the options an order, in place.

    The order is drawn from the content, so that it is the same whenever it is read, and the
    right option's place is uniform.
    """
    listed = written[options]
    if not isinstance(listed, list) or not listed:
        raise Malformed("no options")
    number = _number_of(written)
    written[answer] = listed[0]
    written[options] = _shuffled(listed, number)


def _with_dealt(values: Json, path: FieldPath, number: int) -> Json:
    """The values with the options at `path` in the order of this number; nothing else is changed.

    Where there are none, everything stays, for validation to refuse.
    """
    if not path:
        return _shuffled(values, number) if isinstance(values, list) and values else values
    if not isinstance(values, Mapping) or path[0] not in values:
        return values
    return {**values, path[0]: _with_dealt(values[path[0]], path[1:], number)}


def _number_of(written: dict[str, Json]) -> int:
    """A number of 256 bits that follows from the content."""
    drawn = hashlib.sha256(canonical_json(written).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(drawn, "little")


def _shuffled(options: list[Json], number: int) -> list[Json]:
    """The permutation of this number: its digits, base 2, 3, 4 and so on, say who changes places.

    A fifth of the cost of seeding a generator for five options. 256 bits are enough for 57 options
    to come in every order, and for the first to be anywhere among 10^60.
    """
    dealt = list(options)
    number, first = divmod(number, len(dealt))
    for last in range(len(dealt) - 1, 1, -1):
        number, other = divmod(number, last)
        dealt[last], dealt[other + 1] = dealt[other + 1], dealt[last]
    dealt[0], dealt[first] = dealt[first], dealt[0]
    return dealt


def _leading(schema: Json, path: FieldPath) -> Json:
    """The schema with the properties of `path` declared before those beside them."""
    if not path:
        return schema
    properties = {**schema["properties"]}
    first = _leading(properties.pop(path[0]), path[1:])
    return {**schema, "properties": {path[0]: first, **properties}}


def _with_constant(schema: Json, path: FieldPath, value: Json) -> Json:
    if not path:
        return {"const": value}
    inner = _with_constant(schema["properties"][path[0]], path[1:], value)
    return {**schema, "properties": {**schema["properties"], path[0]: inner}}


def build_response_schema(layout: Layout, count: int, labels: list[Json] | None) -> str:
    """The grammar of one request, as canonical JSON: an array of `count` examples.

    With `labels` (one per example) each label is a constant of its item: that is how labels
    are dealt. The string is canonical so that the engine compiles each grammar once.
    """
    if labels is None:
        items = {"type": "array", "items": layout.item_schema(), "minItems": count, "maxItems": count}
    else:
        items = tuple_of([layout.item_schema(label, deal=True) for label in labels])
    # Property order is the order of writing, so the keys are not sorted here.
    return json.dumps(items, separators=(",", ":"), ensure_ascii=False)
