"""How the model writes one example, and how what it wrote becomes an example again.

Constants are never generated, a fixed label comes first so that the text is written for it,
and everything else follows the declared order. The default layout is `positional`: one JSON
array per example, fields by position. Options that vary are written with the right one first
and the answer field is not written at all, so that every answer is among its options and none
is written twice; reading deals the options out again. `keyed` writes the object as it is,
which is how the paper prompts.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from datacreate.tasks.example import Example, FieldPath, Json, canonical_json, field_at
from datacreate.tasks.format import Rule, TaskFormat, answer_text, is_constant
from datacreate.tasks.keywords import for_grammar

Style = Literal["positional", "keyed"]


class Malformed(ValueError):
    """What the model wrote does not have the layout's shape."""


@dataclass(frozen=True)
class Layout:
    """One way to write the examples of a format."""

    format: TaskFormat
    style: Style = "positional"

    @cached_property
    def _properties(self) -> dict[str, Json]:
        return dict(self.format.schema["properties"])

    @cached_property
    def merges_answer(self) -> bool:
        """Whether the answer is written as the first option instead of in a field of its own."""
        roles = self.format.roles
        return (
            self.style == "positional"
            and self.format.options_vary
            and Rule.ANSWER_IN_OPTIONS in self.format.rules
            and len(roles.answer or ()) == len(roles.options or ()) == 1
        )

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The top-level fields that are written, in writing order."""
        if self.style == "keyed":
            return tuple(self._properties)
        answer = self.format.roles.answer
        skipped = answer[0] if answer and self.merges_answer else None
        names = [n for n, s in self._properties.items() if n != skipped and not is_constant(s)]
        if answer and self.format.labels and answer[0] in names:
            names.sort(key=lambda name: name != answer[0])
        return tuple(names)

    def item_schema(self, label: Json = None, *, deal: bool = False) -> dict[str, Json]:
        """The grammar's schema of one written example; with `deal`, its answer is `label`."""
        parts = {name: for_grammar(self._properties[name]) for name in self.fields}
        answer = self.format.roles.answer
        if deal and answer:
            parts[answer[0]] = _with_constant(parts[answer[0]], answer[1:], label)
        if self.style == "keyed":
            return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}
        return _tuple_of(list(parts.values()))

    def write(self, example: Example) -> Json:
        """The example as the model is shown it."""
        if self.style == "keyed":
            return dict(example.values)
        row = [example.values[name] for name in self.fields]
        if self.merges_answer:
            roles = self.format.roles
            assert roles.options and roles.answer  # merges_answer says so
            answer = answer_text(field_at(example.values, roles.answer))
            options = field_at(example.values, roles.options)
            at = self.fields.index(roles.options[0])
            row[at] = sorted(options, key=lambda option: answer_text(option).casefold() != answer.casefold())
        return row

    def read(self, item: Json) -> dict[str, Json]:
        """The fields of the example that was written as `item`; Malformed if it has another shape."""
        if self.style == "keyed":
            if not isinstance(item, Mapping):
                raise Malformed("not an object")
            return dict(item)
        if not isinstance(item, list) or len(item) != len(self.fields):
            raise Malformed(f"not a list of {len(self.fields)}")
        written = dict(zip(self.fields, item, strict=True))
        if self.merges_answer:
            self._deal_options(written)
        return {name: written[name] if name in written else _constant(s) for name, s in self._properties.items()}

    def _deal_options(self, written: dict[str, Json]) -> None:
        # The order is drawn from the content, so that it is the same whenever it is read,
        # and the right option's place is uniform.
        roles = self.format.roles
        assert roles.options and roles.answer  # merges_answer says so
        options = written[roles.options[0]]
        if not isinstance(options, list) or not options:
            raise Malformed("no options")
        seed = hashlib.sha256(canonical_json(written).encode("utf-8", "surrogatepass")).digest()
        written[roles.answer[0]] = options[0]
        written[roles.options[0]] = random.Random(seed).sample(options, len(options))

    def shape(self) -> str:
        """The layout in words, for the prompt: `[question, [right option, 4 wrong options]]`."""
        if self.style == "keyed":
            return "{" + ", ".join(self.fields) + "}"
        return "[" + ", ".join(self._words_for(name) for name in self.fields) + "]"

    def _words_for(self, name: str) -> str:
        if self.merges_answer and (name,) == self.format.roles.options:
            wrong = self._properties[name].get("minItems", 2) - 1
            return f"[right option, {wrong} wrong option{'s' if wrong > 1 else ''}]"
        return name


def _tuple_of(parts: list[Json]) -> dict[str, Json]:
    return {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts), "maxItems": len(parts)}


def _constant(schema: Mapping[str, Json]) -> Json:
    return schema["const"] if "const" in schema else schema["enum"][0] if "enum" in schema else None


def _with_constant(schema: Json, path: FieldPath, value: Json) -> Json:
    if not path:
        return {"const": value}
    properties = {**schema["properties"]}
    inner = _with_constant(properties.pop(path[0]), path[1:], value)
    # Inside an object too, the label is written before the text.
    return {**schema, "properties": {path[0]: inner, **properties}}


def batch_schema(layout: Layout, count: int, labels: list[Json] | None) -> str:
    """The grammar of one request, as canonical JSON: an array of `count` examples.

    With `labels` (one per example) each label is a constant of its item: that is how labels
    are dealt. The string is canonical so that the engine compiles each grammar once.
    """
    if labels is None:
        items = {"type": "array", "items": layout.item_schema(), "minItems": count, "maxItems": count}
    else:
        items = _tuple_of([layout.item_schema(label, deal=True) for label in labels])
    if "$defs" in layout.format.schema:
        items["$defs"] = {k: for_grammar(s) for k, s in layout.format.schema["$defs"].items()}
    # Property order is the order of writing, so the keys are not sorted here.
    return json.dumps(items, separators=(",", ":"), ensure_ascii=False)
