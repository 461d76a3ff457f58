"""How an example is written compactly for the model, and how a written item is read back.

The default style is `positional`: one JSON array per example, fields by position. Constants are not written. A fixed
label comes first, so that the model writes the text for it. If each example has its own options, the right option is
written first and the answer field is not written: every answer is then among its options. Reading shuffles the
options, because models prefer some positions. Options inside an object, or of another type than the answer, keep the
answer field and are shuffled too. The style `keyed` writes the JSON object unchanged, as the paper does.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from datacreate.formats.example import Example, FieldPath, Json, canonical_json, field_at, replace_field
from datacreate.formats.rules import Rule
from datacreate.formats.schema_utils import constant_of, free_texts, is_constant, schema_at
from datacreate.formats.task_format import TaskFormat

Style = Literal["positional", "keyed"]

_OPTION_WORDS = re.compile(
    r"\W*(?:\d+ )?(?:right |wrong |correct |incorrect )?options?(?: (?:\d+|[a-z]))?\W*", re.IGNORECASE
)
"""What small models write for an option, copied from `PromptEncoding.describe`."""

_STRAY_JSON = re.compile(
    r"""\s*[]},]\s*\S | .*[.?!]\s*(?:\[|[]}]\s*,[][{},"\s]*)\Z | .*\w\s.*,\s*\Z""", re.DOTALL | re.VERBOSE
)
"""No text begins or ends like this (a comma alone can be a token). Models continue so if the grammar keeps them from
closing a list."""


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
        is_top_level = len(self.format.roles.answer or ()) == 1
        return self.style == "positional" and bool(self.format.labels) and is_top_level

    @cached_property
    def _properties(self) -> dict[str, Json]:
        """The schemas of all fields. A fixed label comes before the text, inside an object, too."""
        properties = dict(self.format.schema["properties"])
        answer, labels = self.format.roles.answer, self.format.labels
        if answer and labels and self.style == "positional":
            properties[answer[0]] = _move_first(properties[answer[0]], answer[1:])
            if self.pseudo_labels:
                properties[answer[0]] = {"const": labels[0]}
        return properties

    @cached_property
    def _constants(self) -> dict[str, Json]:
        return {name: constant_of(schema) for name, schema in self._properties.items() if is_constant(schema)}

    @cached_property
    def _varying_options(self) -> FieldPath | None:
        """Where options are that each example has of its own, with the answer among them."""
        format = self.format
        varying = format.options_vary and format.roles.answer and Rule.ANSWER_IN_OPTIONS in format.rules
        return format.roles.options if varying and self.style == "positional" else None

    @cached_property
    def _answer_as_first_option(self) -> tuple[str, str] | None:
        """The fields of the options and of the answer, if the answer is written as the first option."""
        options, answer = self._varying_options, self.format.roles.answer
        if not options or not answer or self.format.labels or len(options) + len(answer) > 2:
            return None
        items = schema_at(self.format.schema, options).get("items")
        kind = schema_at(self.format.schema, answer).get("type")
        same_type = isinstance(items, Mapping) and kind and items.get("type") == kind
        return (options[0], answer[0]) if same_type else None

    @cached_property
    def _tagged(self) -> tuple[str, ...]:
        """The fields of the tokens and of their tags, written as one list of [token, tag]: equally many of each."""
        paths = (*self.format.roles.inputs[:1], *self.format.roles.tags)
        is_top_level = all(len(path) == 1 for path in paths) and self.style == "positional"
        return tuple(path[0] for path in paths) if self.format.roles.tags and is_top_level else ()

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The top-level fields that are written, in order."""
        if self.style == "keyed":
            return tuple(self._properties)
        answer = self.format.roles.answer
        skipped = {*self._constants, *self._tagged[1:], *(self._answer_as_first_option or ())[1:]}
        names = [name for name in self._properties if name not in skipped]
        if answer and self.format.labels:
            names.sort(key=lambda name: name != answer[0])
        return tuple(names)

    @property
    def field_schemas(self) -> dict[str, Json]:
        """The schema of each written field, in order."""
        schemas = {name: self._properties[name] for name in self.fields}
        if self._tagged:
            tokens, number = schemas[self._tagged[0]], len(self._tagged)
            parts = [self._properties[name]["items"] for name in self._tagged]
            item = {"type": "array", "prefixItems": parts, "minItems": number, "maxItems": number}
            schemas[self._tagged[0]] = {**tokens, "items": item}
        return schemas

    def has_placeholder(self, values: Mapping[str, Json]) -> bool:
        """Whether a text is a word of `describe` or JSON instead of content: a field's own name, "wrong option 2"."""
        options = self.format.roles.options
        for name in self.fields:
            own_name = re.compile(rf"\W*{re.escape(name)}\W*", re.IGNORECASE)
            for text in free_texts(values.get(name), self._properties[name]):
                if _STRAY_JSON.match(text) or (len(name) > 2 and own_name.fullmatch(text)):
                    return True
                if options and options[0] == name and _OPTION_WORDS.fullmatch(text):
                    return True
        return False

    def write(self, example: Example) -> Json:
        """The example as the prompt shows it."""
        if self.style == "keyed":
            return dict(example.values)
        row = [_in_order(example.values[name], self._properties[name]) for name in self.fields]
        if turns := self.format.roles.turns:  # the formatting example may have more than the format
            longest = schema_at(self.format.schema, turns)["maxItems"]
            row = [
                part[:longest] if (name,) == turns else part
                for name, part in zip(self.fields, row, strict=True)
            ]
        if self._answer_as_first_option:
            options, answer = self._answer_as_first_option
            right = str(example.values[answer])
            index = self.fields.index(options)
            row[index] = sorted(row[index], key=lambda option: _mismatch(str(option), right))
        if self._tagged:
            lists = (example.values[name] for name in self._tagged)
            row[self.fields.index(self._tagged[0])] = list(map(list, zip(*lists, strict=True)))
        return row

    def read(self, item: Json) -> dict[str, Json]:
        """The values of a written item, not validated. Raises MalformedItem if it has another shape."""
        if self.style == "keyed":
            if not isinstance(item, dict):
                raise MalformedItem("not an object")
            return dict(_in_order(item, self.format.schema))
        if not isinstance(item, list) or len(item) != len(self.fields):
            raise MalformedItem(f"not a list of {len(self.fields)}")
        values = dict(zip(self.fields, item, strict=True))
        if self._tagged:
            listed = values[self._tagged[0]]
            if not isinstance(listed, list) or not all(isinstance(part, list) for part in listed):
                raise MalformedItem("no list of tokens with tags")
            values |= zip(self._tagged, map(list, zip(*listed, strict=False)), strict=False)
        if self._answer_as_first_option:
            options, answer = self._answer_as_first_option
            listed = values[options]
            if not isinstance(listed, list) or not listed:
                raise MalformedItem("no options")
            values |= {answer: listed[0], options: _shuffled(listed, values)}
        elif self._varying_options:
            with suppress(KeyError, TypeError):  # malformed; validation rejects it
                listed = field_at(values, self._varying_options)
                if isinstance(listed, list):
                    values = replace_field(values, self._varying_options, _shuffled(listed, values))
        ordered: dict[str, Json] = _in_order(self._constants | values, self.format.schema)
        return ordered

    def describe(self) -> str:
        """The encoding in words for the prompt: `[question, [right option, 4 wrong options]]`."""
        words = list(self.fields)
        if self._answer_as_first_option:
            name = self._answer_as_first_option[0]
            wrong = self._properties[name].get("minItems", 2) - 1
            words[words.index(name)] = f"[right option, {wrong} wrong option{'s' if wrong > 1 else ''}]"
        if self._tagged:
            words[words.index(self._tagged[0])] = f"[[{', '.join(self._tagged)}], ...]"
        return f"[{', '.join(words)}]"


def _mismatch(option: str, answer: str) -> tuple[bool, bool]:
    return option != answer, option.casefold() != answer.casefold()


def _in_order(value: Json, schema: Json) -> Json:
    """The value with the fields of objects in the order of the schema, other fields last."""
    parts = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(parts, Mapping) or not isinstance(value, Mapping):
        return value
    names = [*(name for name in parts if name in value), *(name for name in value if name not in parts)]
    return {name: _in_order(value[name], parts.get(name)) for name in names}


def _move_first(schema: Json, path: FieldPath) -> Json:
    """The schema with the property at `path` before its siblings, at every level."""
    if not path:
        return schema
    properties = {**schema["properties"]}
    first = _move_first(properties.pop(path[0]), path[1:])
    return {**schema, "properties": {path[0]: first, **properties}}


def _shuffled(options: list[Json], values: Json) -> list[Json]:
    """The options in an order derived from the content, so that the same item always gives the same order."""
    digest = hashlib.sha256(canonical_json(values).encode("utf-8", "surrogatepass")).digest()
    return random.Random(digest).sample(options, len(options))
