"""Defines `PromptEncoding`: writes examples in a compact form for the model, and reads back the items it writes.

The default style is `positional`: one JSON array per example, fields by position, without constants. If each example
has its own options, the right option is written first and the answer field is not written: every answer is then among
its options, and keys are always right. `{"question": "Which flies?", "options": ["fish", "bird"], "label": "bird"}` is
written as `["Which flies?", ["bird", "fish"]]`; options are shuffled when an item is read. docs/formats.md, How the
model writes an example, has all rules. The style `keyed` writes the JSON object unchanged, as the paper does.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

from datacreate.formats.example import Example, FieldPath, Json, canonical_json, leaf_values, replace_field, value_at
from datacreate.formats.rules import Rule, context_spelling, find_span
from datacreate.formats.schema_utils import (
    Schema,
    constant_of,
    free_texts,
    is_constant,
    schema_at,
    tuple_schema,
    with_field,
)
from datacreate.formats.task_format import TaskFormat

Style = Literal["positional", "keyed"]

_OPTION_WORDS = re.compile(
    r"\W*(?:\d+ )?(?:right |wrong |correct |incorrect )?options?(?: (?:\d+|[a-z]))?\W*", re.IGNORECASE
)
"""Words of `PromptEncoding.describe` that small models copy instead of writing an option."""

_STRAY_JSON = re.compile(
    r"""\s*[]},]\s*\S | \s*\[\s*\w[^]]*\Z | .*[.?!]\s*(?:\[|[]}]\s*,[][{},"\s]*)\Z""", re.DOTALL | re.VERBOSE
)
"""Matches texts that begin or end like a JSON list, as no real text does (a comma alone can be a token). Models
continue so if the schema keeps them from closing a list."""


_MIN_NAME_LENGTH = 3  # a text may be equal to the name of its field if the name is shorter, such as `a` or `to`


class MalformedItem(ValueError):
    """The item of a response does not have the shape in which the encoding writes examples."""


@cache
def _name_alone(name: str) -> re.Pattern[str]:
    """Matches the name of a field without other words."""
    return re.compile(rf"\W*{re.escape(name)}\W*", re.IGNORECASE)


@dataclass(frozen=True)
class PromptEncoding:
    """The form in which a prompt shows the examples of a format, and in which the model writes new ones."""

    format: TaskFormat
    style: Style = "positional"
    pseudo_labels: bool = False  # the label is not written; reading sets the first, the verifier assigns it
    passage: str = ""  # the context of the items that are read, if the format has given contexts
    may_have_placeholders: bool = False  # a formatting example has a text that looks like a placeholder

    @cached_property
    def _schema(self) -> Schema:
        """The schema of an example, in which a given context and a label that the verifier assigns are constants."""
        schema, roles = self.format.schema, self.format.roles
        if roles.context and self.format.context_is_given:
            schema = with_field(schema, roles.context, {"const": self.passage})
        if roles.answer and self.format.labels and self.pseudo_labels:
            schema = with_field(schema, roles.answer, {"const": self.format.labels[0]})
        return schema

    @property
    def supports_pseudo_labels(self) -> bool:
        """Whether the model can leave out the label, so that the verifier assigns it."""
        is_top_level = len(self.format.roles.answer or ()) == 1
        return self.style == "positional" and bool(self.format.labels) and is_top_level

    @cached_property
    def field_schemas(self) -> dict[str, Json]:
        """The schemas of the fields that are written, by name, in the order of writing.

        A fixed label comes before the text, also inside an object. Constants, an answer that follows from the options,
        and the start of an extractive answer are not written. Tags are in the field of the tokens.
        """
        schema, roles = self._schema, self.format.roles
        if self.style == "keyed":
            return dict(schema["properties"])
        for path in filter(None, (roles.answer if self._answer_follows_options else None, roles.answer_start)):
            schema = with_field(schema, path, None)
        if roles.answer and self.format.labels:
            schema = _move_first(schema, roles.answer)
        schemas = dict(_without_constants(schema)["properties"])
        if self._tagged:
            pair = tuple_schema([schemas[name]["items"] for name in self._tagged])
            tokens, *tags = self._tagged
            schemas[tokens] = {**schemas[tokens], "items": pair}
            schemas = {name: part for name, part in schemas.items() if name not in tags}
        return schemas

    @cached_property
    def _moved_options(self) -> FieldPath | None:
        """The field of the options, if the right one is written first: each example has its own, with the answer."""
        task_format = self.format
        are_checked = (
            task_format.options_vary and task_format.roles.answer and Rule.ANSWER_IN_OPTIONS in task_format.rules
        )
        return task_format.roles.options if are_checked and self.style == "positional" else None

    @cached_property
    def _answer_follows_options(self) -> bool:
        """Whether the answer is not written, because it follows from the first option."""
        options, answer = self._moved_options, self.format.roles.answer
        if not options or not answer or self.format.labels:
            return False
        if self.format.answers.are_keys or self.format.answers.is_text:
            return True
        item_schema = schema_at(self.format.schema, options).get("items") or {}
        answer_type = schema_at(self.format.schema, answer).get("type")
        return answer_type is not None and item_schema.get("type") == answer_type

    @cached_property
    def _tagged(self) -> tuple[str, ...]:
        """The fields of the tokens and of their tags, if they are written as one list of [token, tag, ...]."""
        if not self.format.roles.tags or self.style == "keyed":
            return ()
        paths = (*self.format.roles.inputs[:1], *self.format.roles.tags)
        return tuple(path[0] for path in paths) if all(len(path) == 1 for path in paths) else ()

    @property
    def is_bare(self) -> bool:
        """Whether an example is written as the value of its only field, a list of tokens with tags.

        With a list around it, small models lose count of the brackets.
        """
        return bool(self._tagged) and len(self.field_schemas) == 1

    def has_placeholder(self, values: Mapping[str, Json]) -> bool:
        """Whether a text is not content, but JSON, a label, or a word of the prompt, such as the name of its field."""
        if self.may_have_placeholders:
            return False
        for name, schema in self.field_schemas.items():
            value = values.get(name)
            texts = free_texts(value, schema)
            if self._tagged[:1] == (name,):
                texts = [" ".join(texts)]
            if any(self._is_label(text, value) or self._is_placeholder(text, name) for text in texts):
                return True
        return False

    @cached_property
    def _label_words(self) -> frozenset[str]:
        """The fixed labels that are words, in lower case. No text of another field should be only one of them."""
        labels = (label for label in self.format.labels or () if isinstance(label, str | bool))
        return frozenset(str(label).casefold() for label in labels)

    def _is_label(self, text: str, value: Json) -> bool:
        """Whether a text of the field with this value is only a label. In a list, a label may be one word of many."""
        is_label = text.strip(" .?!").casefold() in self._label_words
        return is_label and any(text == leaf for _, leaf in leaf_values({"": value}))

    def _is_placeholder(self, text: str, name: str) -> bool:
        """Whether a text of the field `name` is only a word of the prompt, or goes on with the next JSON value."""
        if _STRAY_JSON.match(text) or (text.rstrip().endswith(",") and len(text.split()) > 1):
            return True
        options = self.format.roles.options
        if options and options[0] == name and _OPTION_WORDS.fullmatch(text):
            return True
        return len(name) >= _MIN_NAME_LENGTH and _name_alone(name).fullmatch(text) is not None

    def write(self, example: Example) -> Json:
        """The example in the form in which the prompt shows it."""
        values = example.values
        if self.style == "keyed":
            return dict(values)
        if self._answer_follows_options:
            right = self.format.answers.right_index(values) or 0
            others = (index for index in range(len(self.format.answers.choices(values))) if index != right)
            values = self.format.answers.with_options(values, [right, *others])
        if turns := self.format.roles.turns:  # the formatting example may have more turns than the format
            max_turns = schema_at(self.format.schema, turns)["maxItems"]
            values = replace_field(values, turns, value_at(values, turns)[:max_turns])
        item = [_selected(values[name], schema) for name, schema in self.field_schemas.items()]
        if self._tagged:
            lists = (values[name] for name in self._tagged)
            item[list(self.field_schemas).index(self._tagged[0])] = list(map(list, zip(*lists, strict=True)))
        return item[0] if self.is_bare else item

    def read(self, item: Json) -> dict[str, Json]:
        """The values of the example that an item stands for: constants are added, options shuffled, spans computed.

        They are not validated. Raises MalformedItem if the item does not have the shape of the encoding.
        """
        if self.style == "keyed":
            if not isinstance(item, dict):
                raise MalformedItem("not an object")
            return dict(_completed(self._with_spans(item), self.format.schema))
        item = [item] if self.is_bare else item
        if not isinstance(item, list) or len(item) != len(self.field_schemas):
            raise MalformedItem(f"not a list of {len(self.field_schemas)}")
        written = dict(zip(self.field_schemas, item, strict=True))
        values = dict(written)
        if self._tagged:
            pairs = values[self._tagged[0]]
            if not isinstance(pairs, list) or not all(isinstance(pair, list) for pair in pairs):
                raise MalformedItem("no list of tokens with tags")
            values |= zip(self._tagged, map(list, zip(*pairs, strict=False)), strict=False)
        values = dict(_completed(values, self._schema))
        if self._moved_options:
            values = self._with_shuffled_options(values, written)
        return dict(_completed(self._with_spans(values), self.format.schema))

    def _with_shuffled_options(self, values: dict[str, Json], written: dict[str, Json]) -> dict[str, Json]:
        """The values with the answer, and with the options in an order that depends only on the written item."""
        answers = self.format.answers
        seed = hashlib.sha256(canonical_json(written).encode("utf-8", "surrogatepass")).digest()
        try:
            count = len(answers.choices(values))
            if self._answer_follows_options:
                values = answers.with_choice(values, 0)
            return answers.with_options(values, random.Random(seed).sample(range(count), count))
        except (KeyError, IndexError, TypeError, AttributeError):
            raise MalformedItem("the options or the answer have another type") from None

    def _with_spans(self, values: Mapping[str, Json]) -> Mapping[str, Json]:
        """The values with what is computed for an extractive answer, or for each of several.

        If the context is given, that is its spelling, since small models change the case. With `answer_start` it is
        also the index where it starts in the context, -1 if it does not occur there.
        """
        roles = self.format.roles
        answer, context = value_at(values, roles.answer), str(value_at(values, roles.context))
        if roles.answer is None or answer is None:
            return values
        spans = [str(text) for text in (answer if isinstance(answer, list) else [answer])]
        computed: dict[FieldPath, list[Json]] = {}
        if self.format.context_is_given and Rule.ANSWER_IN_CONTEXT in self.format.rules:
            spans = [context_spelling(span, context) for span in spans]
            computed[roles.answer] = list(spans)
        if roles.answer_start:
            starts = [find_span(span, context) for span in spans]
            computed[roles.answer_start] = [-1 if start is None else start for start in starts]
        for path, parts in computed.items():
            values = replace_field(values, path, parts if isinstance(answer, list) else parts[0])
        return values

    def describe(self) -> str:
        """The form of a written example in words: `[question, [right option, 4 wrong options]]`."""
        words = {name: name for name in self.field_schemas}
        if self._answer_follows_options and self._moved_options:
            first, *inner = self._moved_options
            wrong = schema_at(self.format.schema, self._moved_options).get("minItems", 2) - 1
            options = f"[right option, {wrong} wrong option{'s' if wrong > 1 else ''}]"
            words[first] = f"{first} with {'.'.join(inner)}: {options}" if inner else options
        if self._tagged:
            words[self._tagged[0]] = f"[[{', '.join(self._tagged)}], ...]"
        return words[self._tagged[0]] if self.is_bare else f"[{', '.join(words.values())}]"


def _without_constants(schema: Schema) -> Schema:
    """The schema without constants, and without objects that hold only constants; an object with `anyOf` stays."""
    if not schema.get("properties") or "anyOf" in schema:
        return schema
    parts = {name: _without_constants(part) for name, part in schema["properties"].items()}
    varying = {name: part for name, part in parts.items() if not is_constant(part) and part.get("properties") != {}}
    return {**schema, "properties": varying, "required": list(varying)}


def _selected(value: Json, schema: Schema) -> Json:
    """The value with only the fields that the schema has, in the order of the schema."""
    parts = schema.get("properties")
    if parts is None or not isinstance(value, Mapping):
        return value
    return {name: _selected(value[name], part) for name, part in parts.items() if name in value}


def _completed(value: Json, schema: Schema) -> Json:
    """The value with the constants of the schema added, and the fields in its order; unknown fields come last."""
    parts = schema.get("properties")
    if parts is None or not isinstance(value, Mapping):
        return value
    completed: dict[str, Json] = {}
    for name, part in parts.items():
        if name in value:
            completed[name] = _completed(value[name], part)
        elif is_constant(part):
            completed[name] = constant_of(part)
    return {**completed, **{name: value[name] for name in value if name not in completed}}


def _move_first(schema: Schema, path: FieldPath) -> Schema:
    """The schema with the property at `path` before its siblings, at every level."""
    if not path:
        return schema
    properties = {**schema["properties"]}
    first = _move_first(properties.pop(path[0]), path[1:])
    return {**schema, "properties": {path[0]: first, **properties}}
