"""Defines `TaskFormat`: the JSON Schema of one example, and the roles of its fields.

A task format is one JSON file: schemas/NAME.json, or a file given with `--format`. Its key `x-datacreate` says what
JSON Schema cannot:

    "x-datacreate": {
      "roles": {"question": "question", "context": "context", "options": "options", "answer": "label"},
      "rules": ["answer_in_options", "options_differ"]
    }

A role is a dotted path, or a list of keys if a key contains a dot. `load_format` reads a file, `bind` fits the format
to the formatting example: its number of options, and which fields are null.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jsonschema
from jsonschema.validators import extend

from datacreate.errors import ExampleError, FormatError
from datacreate.formats.example import (
    Example,
    FieldPath,
    Json,
    canonical_json,
    dotted,
    field_at,
    values_in,
)
from datacreate.formats.schema_keywords import FORMAT_CHECKER, resolve
from datacreate.formats.schema_utils import (
    Schema,
    fixed_labels,
    free_texts,
    input_schema,
    is_constant,
    narrow,
    schema_at,
)
from datacreate.formats.text_normalization import normalize_text
from datacreate.paths import shipped

Head = Literal["multiple_choice", "sequence_classification"]

# JSON Schema accepts 3.0 as an integer; a column of a data set does not.
_Validator: Any = extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


class Rule(StrEnum):
    """A condition between the fields of one example."""

    ANSWER_IN_OPTIONS = "answer_in_options"
    ANSWER_IN_CONTEXT = "answer_in_context"
    OPTIONS_DIFFER = "options_differ"


_ROLES_OF_RULE: Mapping[Rule, tuple[str, ...]] = {
    Rule.ANSWER_IN_OPTIONS: ("answer", "options"),
    Rule.ANSWER_IN_CONTEXT: ("answer", "context"),
    Rule.OPTIONS_DIFFER: ("options",),
}


@dataclass(frozen=True)
class Roles:
    """The path of the field with each role; None if the format has no such field."""

    question: FieldPath | None = None
    context: FieldPath | None = None
    options: FieldPath | None = None
    answer: FieldPath | None = None

    def paths(self) -> dict[str, FieldPath]:
        """The roles that have a field."""
        return {role: path for role, path in vars(self).items() if path is not None}

    def named(self) -> dict[str, str]:
        """The roles that have a field, with dotted paths for messages."""
        return {role: dotted(path) for role, path in self.paths().items()}

    def document(self) -> dict[str, Json]:
        """The roles as a format file writes them."""
        return {
            role: list(path) if any("." in key for key in path) else ".".join(path)
            for role, path in self.paths().items()
        }


_SPACED = r"[^\W_\u0530-\u1dff\u2c00-\U0010ffff]"  # Latin, Greek, Cyrillic letters and digits
_INSIDE_WORD = re.compile(rf"{_SPACED}(?:{_SPACED}|[\u0300-\u036f])")


def answer_text(value: Json) -> str:
    """An answer as the text of an option: "True" for true, "3" for 3."""
    return value if isinstance(value, str) else str(value)


def is_span(answer: str, context: str) -> bool:
    """Whether the answer is a part of the context, not the whole, that begins and ends where words do."""
    start = context.find(answer) if answer else -1
    while start >= 0:
        end = start + len(answer)
        inside_word = _joined(context, start) or _joined(context, end)
        if not inside_word and any(map(str.isalnum, context[:start] + context[end:])):
            return True
        start = context.find(answer, start + 1)
    return False


def _joined(text: str, place: int) -> bool:
    """Whether `place` is inside a word. Only alphabets that put spaces around every word can tell."""
    return bool(_INSIDE_WORD.match(text[max(0, place - 1) : place + 1]))


def label_key(value: Json) -> str:
    """The same text for equal labels: 4 and 4.0 are equal, 1 and true are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return canonical_json(value)


def rule_holds(rule: Rule, roles: Roles, values: Mapping[str, Json]) -> bool:
    """Whether an example satisfies `rule`. The fields of the rule must exist."""
    if rule is Rule.OPTIONS_DIFFER:
        options = [normalize_text(answer_text(option)) for option in field_at(values, roles.options or ())]
        return len(set(options)) == len(options)
    answer = answer_text(field_at(values, roles.answer or ()))
    if rule is Rule.ANSWER_IN_CONTEXT:
        context = field_at(values, roles.context or ())
        return isinstance(context, str) and is_span(answer, context)
    answer = answer.casefold()
    return any(answer_text(option).casefold() == answer for option in field_at(values, roles.options or ()))


@dataclass(frozen=True)
class TaskFormat:
    """A format, bound to the formatting example. Fields are written in the order of `properties`."""

    name: str
    schema: Mapping[str, Json]
    roles: Roles = field(default_factory=Roles)
    rules: frozenset[Rule] = frozenset()

    @cached_property
    def labels(self) -> tuple[Json, ...] | None:
        """The fixed labels as the answer field has them; None if each example has its own answers."""
        if self.roles.answer is None:
            return None
        schema = schema_at(self.schema, self.roles.answer)
        # Another keyword of the field can exclude values of the enumeration or range.
        validator = self.validator.evolve(schema=schema)
        labels = tuple(filter(validator.is_valid, fixed_labels(schema) or ()))
        return labels if len(labels) > 1 else None

    @cached_property
    def options_vary(self) -> bool:
        """Whether each example has its own options."""
        path = self.roles.options
        return path is not None and not is_constant(schema_at(self.schema, path))

    @cached_property
    def head(self) -> Head | None:
        """The encoder head for this format; None if the answer is free text."""
        if self.options_vary and self.roles.answer is not None:
            return "multiple_choice"
        return "sequence_classification" if self.labels else None

    @cached_property
    def validator(self) -> jsonschema.protocols.Validator:
        """The validator of one example. It checks `format`, and 3.0 is not an integer."""
        validator: jsonschema.protocols.Validator = _Validator(self.schema, format_checker=FORMAT_CHECKER)
        return validator

    def document(self) -> dict[str, Json]:
        """The format as a file: `schema infer` prints it, `--format` reads it."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.name,
            **self.schema,
            "x-datacreate": {"roles": self.roles.document(), "rules": sorted(self.rules)},
        }

    @property
    def digest(self) -> str:
        """Canonical JSON of the document: equal formats have equal digests."""
        return canonical_json(self.document())

    def free_texts(self, values: Mapping[str, Json]) -> list[str]:
        """The texts of an example that the model worded: no constants, no enumerations."""
        return free_texts(values, self.schema)

    @cached_property
    def input_schema(self) -> Schema:
        """The schema without answer and options; the question comes first, the context last."""
        return input_schema(self.schema, self.roles.paths())

    def input_texts(self, values: Mapping[str, Json]) -> tuple[str, ...]:
        """What makes an example different from others: filters and similarity compare these texts.

        These are all free texts that are neither answer nor options, the question first and the context last. If the
        example has none, they are all its values that are not constant.
        """
        parts = self.schema["properties"]
        varying = {name: value for name, value in values.items() if not is_constant(parts.get(name))}
        for texts in (free_texts(values, self.input_schema), values_in(varying)):
            if any(texts):
                return tuple(texts)
        return (canonical_json(values),)

    def question_text(self, values: Mapping[str, Json]) -> str:
        """The text that an encoder reads beside the context: the question, or all free text, or the JSON."""
        if self.roles.question is not None:
            question = field_at(values, self.roles.question)
            if question is not None:
                return str(question)
        return "\n".join(self.free_texts(values)) or canonical_json(values)

    def check(self, example: Example) -> None:
        """Raise ExampleError unless the formatting example is valid in this format."""
        error = jsonschema.exceptions.best_match(self.validator.iter_errors(example.values))
        if error is not None:
            where = dotted(tuple(map(str, error.absolute_path))) or "the example"
            message = " ".join(error.message[:200].split())
            raise ExampleError(f"{where}: {message} (format {self.name}); change the example or the format")
        for rule in sorted(self.rules):
            for path in (getattr(self.roles, role) for role in _ROLES_OF_RULE[rule]):
                if not _has_field(example.values, path):
                    raise ExampleError(
                        f"the rule {rule} needs the field {dotted(path)}; add it to the example"
                    )
            if not rule_holds(rule, self.roles, example.values):
                roles = ", ".join(f"{role} = {path}" for role, path in self.roles.named().items())
                raise ExampleError(f"the example breaks the rule {rule} ({roles}); fix the example")


def _has_field(values: Json, path: FieldPath) -> bool:
    try:
        field_at(values, path)
    except (KeyError, TypeError):
        return False
    return True


def load_format(name_or_path: str) -> TaskFormat:
    """A shipped format by name, or a format from a JSON file; not yet bound. Raises FormatError."""
    path = Path(name_or_path)
    if path.suffix != ".json" and not path.is_file():
        path = shipped("schemas", f"{name_or_path}.json")
        if not path.is_file():
            names = ", ".join(sorted(p.stem for p in shipped("schemas").glob("*.json")))
            raise FormatError(f"unknown format {name_or_path!r}; choose one of {names}, or give a JSON file")
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file; --format takes a name or a JSON file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read as JSON ({error}); fix the file") from None
    name = document.get("title", path.stem) if isinstance(document, dict) else path.stem
    return read_format(document, name)


def read_format(document: Mapping[str, Json], name: str) -> TaskFormat:
    """A format from its document, not yet bound.

    Raises FormatError with the location if the document is not the schema of an object, names a field that does not
    exist, or uses an unsupported keyword.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("properties"), Mapping):
        raise FormatError(f"{name}: not the JSON Schema of an object; start from `datacreate schema infer`")
    try:
        jsonschema.Draft202012Validator.check_schema(document)
    except jsonschema.SchemaError as error:
        where = dotted(tuple(map(str, error.absolute_path))).replace(".", "/")
        message = " ".join(error.message[:150].split())
        raise FormatError(f"{name}: not a valid JSON Schema at /{where}: {message}") from None
    if document.get("type", "object") != "object":
        raise FormatError(
            f'{name}: an example is an object, not {document["type"]!r}; write "type": "object"'
        )
    extension = document.get("x-datacreate", {})
    if not isinstance(extension, Mapping) or set(extension) - {"roles", "rules"}:
        raise FormatError(
            f"{name}: x-datacreate must be an object with roles and rules, not {str(extension)[:80]}"
        )
    kept = {k: v for k, v in document.items() if k not in ("$schema", "$id", "title", "x-datacreate")}
    schema = resolve(kept, name)
    roles = _read_roles(extension.get("roles", {}), schema, name)
    return TaskFormat(name, schema, roles, _read_rules(extension.get("rules", []), roles, name))


def _read_roles(given: Json, schema: Mapping[str, Json], name: str) -> Roles:
    known = ", ".join(sorted(vars(Roles())))
    if not isinstance(given, Mapping):
        raise FormatError(f"{name}: roles must be an object from role to field; roles are {known}")
    paths: dict[str, FieldPath] = {}
    for role, path in given.items():
        if role not in vars(Roles()):
            raise FormatError(f"{name}: unknown role {role!r}; roles are {known}")
        try:
            paths[role] = tuple(path) if isinstance(path, list) else tuple(path.split("."))
            field_schema = schema_at(schema, paths[role])
        except (KeyError, TypeError, AttributeError):
            raise FormatError(f"{name}: the role {role} names {path!r}, which the schema lacks") from None
        if role == "options" and not _is_list(field_schema):
            raise FormatError(f"{name}: the role options names {path!r}, which is not a list")
    return Roles(**paths)


def _is_list(schema: Json) -> bool:
    if not isinstance(schema, Mapping):
        return False
    values = [schema["const"]] if "const" in schema else schema.get("enum", ())
    return "array" in schema.get("type", ()) or (bool(values) and all(isinstance(v, list) for v in values))


def _read_rules(given: Json, roles: Roles, name: str) -> frozenset[Rule]:
    if not isinstance(given, list):
        raise FormatError(f"{name}: rules must be a list; rules are {', '.join(Rule)}")
    for rule in given:
        if rule not in list(Rule):
            raise FormatError(f"{name}: unknown rule {rule!r}; rules are {', '.join(Rule)}")
        for role in _ROLES_OF_RULE[Rule(rule)]:
            if getattr(roles, role) is None:
                raise FormatError(f"{name}: the rule {rule} needs the role {role}; name it under roles")
    return frozenset(map(Rule, given))


def bind(format: TaskFormat, example: Example) -> TaskFormat:
    """The format, specialized to the formatting example: its fields, nulls and number of options.

    Raises ExampleError if the example has unknown fields, is invalid, or has only constant fields.
    """
    properties = format.schema["properties"]
    if unknown := [key for key in example.values if key not in properties]:
        raise ExampleError(f"the field {unknown[0]!r} is not in the format {format.name}; add it or drop it")
    format.check(example)
    schema = narrow(format.schema, example.values, (), format.roles.options)
    if all(map(is_constant, schema["properties"].values())):
        raise ExampleError(
            "the example has no field that can vary: all are null, empty or fixed; fill one in"
        )
    roles = {role: path for role, path in format.roles.paths().items() if _has_field(example.values, path)}
    return replace(format, schema=schema, roles=Roles(**roles))
