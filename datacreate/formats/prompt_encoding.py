"""How an example is written compactly for the model, and how a written item is read back.

The default style is `positional`: one JSON array per example, fields by position, without what can be added when an
item is read (docs/formats.md, How the model writes an example). If each example has its own options, the right option
is written first and the answer field is not written: every answer is then among its options, and positions and letters
are always right. The style `keyed` writes the JSON object unchanged, as the paper does.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from datacreate.formats.example import (
    Example,
    FieldPath,
    Json,
    canonical_json,
    leaves_of,
    replace_field,
    value_at,
)
from datacreate.formats.rules import Rule, as_written, find_span
from datacreate.formats.schema_utils import (
    Schema,
    constant_of,
    free_texts,
    is_constant,
    schema_at,
    with_field,
)
from datacreate.formats.task_format import TaskFormat

Style = Literal["positional", "keyed"]

_OPTION_WORDS = re.compile(
    r"\W*(?:\d+ )?(?:right |wrong |correct |incorrect )?options?(?: (?:\d+|[a-z]))?\W*", re.IGNORECASE
)
"""What small models write for an option, copied from `PromptEncoding.describe`."""

_STRAY_JSON = re.compile(
    r"""\s*[]},]\s*\S | \s*\[\s*\w[^]]*\Z | .*[.?!]\s*(?:\[|[]}]\s*,[][{},"\s]*)\Z""", re.DOTALL | re.VERBOSE
)
"""No text begins or ends like this (a comma alone can be a token). Models continue so if the grammar keeps them from
closing a list."""


class MalformedItem(ValueError):
    """An item does not have the shape of the encoding."""


@dataclass(frozen=True)
class PromptEncoding:
    """How examples of a format are written."""

    format: TaskFormat
    style: Style = "positional"
    pseudo_labels: bool = False  # the label is not written; reading sets the first, the verifier assigns it
    passage: str = ""  # the context of the items that are read, if the format has given contexts
    may_have_placeholders: bool = False  # a formatting example has a text that looks like one

    @cached_property
    def _schema(self) -> Schema:
        """The schema of an example, in which a given context is a constant."""
        context = self.format.roles.context
        given = context if self.format.context_is_given else None
        return with_field(self.format.schema, given, {"const": self.passage}) if given else self.format.schema

    @property
    def supports_pseudo_labels(self) -> bool:
        """Whether the format has a fixed label that need not be written."""
        is_top_level = len(self.format.roles.answer or ()) == 1
        return self.style == "positional" and bool(self.format.labels) and is_top_level

    @cached_property
    def _properties(self) -> dict[str, Json]:
        """The schemas of what is written. A fixed label comes before the text, also inside an object."""
        schema, roles, labels = self._schema, self.format.roles, self.format.labels
        if self.style == "keyed":
            return dict(schema["properties"])
        answer = roles.answer
        for path in (answer if self._answer_follows_options else None, roles.answer_start):
            schema = with_field(schema, path, None) if path else schema
        if answer and labels and self.pseudo_labels:
            schema = with_field(schema, answer, {"const": labels[0]})
        elif answer and labels:
            schema = _move_first(schema, answer)
        return dict(_without_constants(schema)["properties"])

    @cached_property
    def _moved_options(self) -> FieldPath | None:
        """Where options are that each example has of its own, with the answer among them: the right one comes first."""
        format = self.format
        varying = format.options_vary and format.roles.answer and Rule.ANSWER_IN_OPTIONS in format.rules
        return format.roles.options if varying and self.style == "positional" else None

    @cached_property
    def _answer_follows_options(self) -> bool:
        """Whether the answer is not written, because it is the first option."""
        options, answer = self._moved_options, self.format.roles.answer
        if not options or not answer or self.format.labels:
            return False
        if self.format.answers.are_coded or self.format.answers.is_text:
            return True
        items = schema_at(self.format.schema, options).get("items") or {}
        kind = schema_at(self.format.schema, answer).get("type")
        return kind is not None and items.get("type") == kind

    @cached_property
    def _tagged(self) -> tuple[str, ...]:
        """The fields of the tokens and of their tags, written as one list of [token, tag]: equally many of each."""
        paths = (*self.format.roles.inputs[:1], *self.format.roles.tags)
        is_top_level = all(len(path) == 1 for path in paths) and self.style == "positional"
        return tuple(path[0] for path in paths) if self.format.roles.tags and is_top_level else ()

    @property
    def is_bare(self) -> bool:
        """Whether an example is written as its only field: small models lose count of more brackets."""
        return bool(self._tagged) and len(self.fields) == 1

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(name for name in self._properties if name not in self._tagged[1:])

    @property
    def field_schemas(self) -> dict[str, Json]:
        schemas = {name: self._properties[name] for name in self.fields}
        if self._tagged:
            tokens, number = schemas[self._tagged[0]], len(self._tagged)
            parts = [self._properties[name]["items"] for name in self._tagged]
            item = {"type": "array", "prefixItems": parts, "minItems": number, "maxItems": number}
            schemas[self._tagged[0]] = {**tokens, "items": item}
        return schemas

    @cached_property
    def _label_words(self) -> frozenset[str]:
        """The fixed labels that are words: no content of another field."""
        labels = (label for label in self.format.labels or () if isinstance(label, str | bool))
        return frozenset(str(label).casefold() for label in labels)

    def has_placeholder(self, values: Mapping[str, Json]) -> bool:
        """Whether a text is a word of the prompt or JSON instead of content, such as a field's own name or a label."""
        options = self.format.roles.options
        for name in () if self.may_have_placeholders else self.fields:
            own_name = re.compile(rf"\W*{re.escape(name)}\W*", re.IGNORECASE)
            texts = free_texts(values.get(name), self._properties[name])
            for text in [" ".join(texts)] if self._tagged[:1] == (name,) else texts:
                is_label = text.strip(" .?!").casefold() in self._label_words
                if (
                    # In a list, a label may be a keyword among others.
                    (is_label and any(text == value for _, value in leaves_of({name: values[name]})))
                    or _STRAY_JSON.match(text)
                    or (text.rstrip().endswith(",") and len(text.split()) > 1)  # went on with the next field
                    or (len(name) > 2 and own_name.fullmatch(text))
                    or (options and options[0] == name and _OPTION_WORDS.fullmatch(text))
                ):
                    return True
        return False

    def write(self, example: Example) -> Json:
        """The example as the prompt shows it."""
        values = example.values
        if self.style == "keyed":
            return dict(values)
        if self._answer_follows_options:
            right = self.format.answers.chosen(values) or 0
            others = (index for index in range(len(self.format.answers.choices(values))) if index != right)
            values = self.format.answers.with_options(values, [right, *others])
        if turns := self.format.roles.turns:  # the formatting example may have more than the format
            longest = schema_at(self.format.schema, turns)["maxItems"]
            values = replace_field(values, turns, value_at(values, turns)[:longest])
        row = [_selected(values[name], self._properties[name]) for name in self.fields]
        if self._tagged:
            lists = (values[name] for name in self._tagged)
            row[self.fields.index(self._tagged[0])] = list(map(list, zip(*lists, strict=True)))
        return row[0] if self.is_bare else row

    def read(self, item: Json) -> dict[str, Json]:
        """The values of a written item, not validated. Raises MalformedItem if it has another shape."""
        if self.style == "keyed":
            if not isinstance(item, dict):
                raise MalformedItem("not an object")
            return dict(_completed(self._with_start(item), self.format.schema))
        item = [item] if self.is_bare else item
        if not isinstance(item, list) or len(item) != len(self.fields):
            raise MalformedItem(f"not a list of {len(self.fields)}")
        written = dict(zip(self.fields, item, strict=True))
        values, roles = dict(written), self.format.roles
        if self._tagged:
            listed = values[self._tagged[0]]
            if not isinstance(listed, list) or not all(isinstance(part, list) for part in listed):
                raise MalformedItem("no list of tokens with tags")
            values |= zip(self._tagged, map(list, zip(*listed, strict=False)), strict=False)
        if self.pseudo_labels and self.format.labels and roles.answer:
            values = {**values, roles.answer[0]: self.format.labels[0]}
        values = dict(_completed(values, self._schema))
        try:
            if self._moved_options:
                number = len(self.format.answers.choices(values))
                if self._answer_follows_options:
                    values = self.format.answers.with_choice(values, 0)
                values = self.format.answers.with_options(values, _shuffled(number, written))
        except (KeyError, IndexError, TypeError, AttributeError):
            raise MalformedItem("the options or the answer have another type") from None
        return dict(_completed(self._with_start(self._with_span(values)), self.format.schema))

    def _with_span(self, values: Mapping[str, Json]) -> Mapping[str, Json]:
        """The values with an extractive answer as a given context writes it: small models change its case."""
        is_span = self.format.context_is_given and Rule.ANSWER_IN_CONTEXT in self.format.rules
        path = self.format.roles.answer if is_span else None
        answer = value_at(values, path)
        if not path or answer is None:
            return values
        answers = answer if isinstance(answer, list) else [answer]
        written = [as_written(str(each), self.passage) for each in answers]
        return replace_field(values, path, written if isinstance(answer, list) else written[0])

    def _with_start(self, values: Mapping[str, Json]) -> Mapping[str, Json]:
        """The values with where an extractive answer starts in the context; -1 if it does not occur there."""
        roles = self.format.roles
        if not roles.answer_start or (answer := value_at(values, roles.answer)) is None:
            return values
        answers = answer if isinstance(answer, list) else [answer]
        found = [find_span(str(each), str(value_at(values, roles.context))) for each in answers]
        starts = [-1 if start is None else start for start in found]
        return replace_field(values, roles.answer_start, starts if isinstance(answer, list) else starts[0])

    def describe(self) -> str:
        """The encoding in words for the prompt: `[question, [right option, 4 wrong options]]`."""
        words = {name: name for name in self.fields}
        if self._answer_follows_options and self._moved_options:
            first, *inner = self._moved_options
            wrong = schema_at(self.format.schema, self._moved_options).get("minItems", 2) - 1
            options = f"[right option, {wrong} wrong option{'s' if wrong > 1 else ''}]"
            words[first] = f"{first} with {'.'.join(inner)}: {options}" if inner else options
        if self._tagged:
            words[self._tagged[0]] = f"[[{', '.join(self._tagged)}], ...]"
        return words[self._tagged[0]] if self.is_bare else f"[{', '.join(words.values())}]"


def _without_constants(schema: Schema) -> Schema:
    """The schema without constants, and without objects of constants only; an object with variants stays."""
    if not schema.get("properties") or "anyOf" in schema:
        return schema
    parts = {name: _without_constants(part) for name, part in schema["properties"].items()}
    kept = {
        name: part for name, part in parts.items() if not is_constant(part) and part.get("properties") != {}
    }
    return {**schema, "properties": kept, "required": list(kept)}


def _selected(value: Json, schema: Schema) -> Json:
    """The part of a value that the schema of its written form has, in its order."""
    parts = schema.get("properties")
    if parts is None or not isinstance(value, Mapping):
        return value
    return {name: _selected(value[name], part) for name, part in parts.items() if name in value}


def _completed(value: Json, schema: Schema) -> Json:
    """The value with the fields of objects in the order of the schema, other fields last, and with its constants."""
    parts = schema.get("properties")
    if parts is None or not isinstance(value, Mapping):
        return value
    known: dict[str, Json] = {}
    for name, part in parts.items():
        if name in value:
            known[name] = _completed(value[name], part)
        elif is_constant(part):
            known[name] = constant_of(part)
    return {**known, **{name: value[name] for name in value if name not in known}}


def _move_first(schema: Schema, path: FieldPath) -> Schema:
    """The schema with the property at `path` before its siblings, at every level."""
    if not path:
        return schema
    properties = {**schema["properties"]}
    first = _move_first(properties.pop(path[0]), path[1:])
    return {**schema, "properties": {path[0]: first, **properties}}


def _shuffled(number: int, written: Json) -> list[int]:
    """An order of the options derived from the content, so that the same item always gives the same order."""
    digest = hashlib.sha256(canonical_json(written).encode("utf-8", "surrogatepass")).digest()
    return random.Random(digest).sample(range(number), number)
