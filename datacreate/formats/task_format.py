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
from datacreate.formats.example import Example, FieldPath, Json, canonical_json, dotted, field_at, values_in
from datacreate.formats.schema_keywords import FORMAT_CHECKER, describe_error, resolve
from datacreate.formats.schema_utils import (
    Schema,
    fixed_labels,
    free_texts,
    is_constant,
    may_have_text,
    narrow,
    schema_at,
    with_field,
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


_PATH = {"type": ["string", "array"], "items": {"type": "string"}}
_ROLES = {"properties": dict.fromkeys(vars(Roles()), _PATH), "additionalProperties": False, "type": "object"}
_RULES = {"type": "array", "items": {"enum": [rule.value for rule in Rule]}}
_EXTENSION = {
    "properties": {"roles": _ROLES, "rules": _RULES},
    "additionalProperties": False,
    "type": "object",
}
"""The schema of `x-datacreate`."""

_LETTER = r"[^\W_\u0530-\u1dff\u2c00-\U0010ffff]"
"""A digit, or a letter of an alphabet that puts spaces around every word: Latin, Greek, Cyrillic."""


def is_span(answer: str, context: str) -> bool:
    """Whether the answer is a part of the context, not the whole, that begins and ends where words do."""
    before = rf"(?<!{_LETTER})" if re.match(_LETTER, answer) else ""
    after = rf"(?!{_LETTER}|[\u0300-\u036f])" if re.search(rf"{_LETTER}$", answer) else ""
    found = re.finditer(before + re.escape(answer) + after, context)
    return any(map(str.isalnum, "".join(context[: m.start()] + context[m.end() :] for m in found)))


def label_key(value: Json) -> str:
    """The same text for equal labels: 4 and 4.0 are equal, 1 and true are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return canonical_json(value)


def rule_holds(rule: Rule, roles: Roles, values: Mapping[str, Json]) -> bool:
    """Whether an example satisfies `rule`. The fields of the rule must exist."""
    if rule is Rule.OPTIONS_DIFFER:
        options = [normalize_text(str(option)) for option in field_at(values, roles.options or ())]
        return len(set(options)) == len(options)
    answer = str(field_at(values, roles.answer or ()))
    if rule is Rule.ANSWER_IN_CONTEXT:
        context = field_at(values, roles.context or ())
        return isinstance(context, str) and is_span(answer, context)
    options = field_at(values, roles.options or ())
    return answer.casefold() in [str(option).casefold() for option in options]


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

    def free_texts(self, values: Mapping[str, Json]) -> list[str]:
        """The texts of an example that the model worded: no constants, no enumerations."""
        return free_texts(values, self.schema)

    @cached_property
    def input_schema(self) -> Schema:
        """The schema without answer and options; the question comes first, the context last."""
        schema, roles = self.schema, self.roles
        for path in filter(None, (roles.answer, roles.options)):
            schema = with_field(schema, path, None)
        first, last = (path and path[0] for path in (roles.question, roles.context))
        properties = sorted(
            schema["properties"].items(), key=lambda part: (part[0] != first, part[0] == last)
        )
        return {**schema, "properties": dict(properties)}

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

    @cached_property
    def other_inputs(self) -> Mapping[str, Schema]:
        """The inputs without a role: top-level field -> schema of its part with free text."""
        schema = self.input_schema
        for path in filter(None, (self.roles.question, self.roles.context)):
            schema = with_field(schema, path, None)
        return {name: part for name, part in schema["properties"].items() if may_have_text(part)}

    def question_text(self, values: Mapping[str, Json]) -> str:
        """What encoder and verifier read beside context and options: the question, and the other inputs.

        With other inputs each stands on a line with its name. Without a question it is all free text of the inputs,
        or the JSON. The answer is never in it.
        """
        path = self.roles.question
        question = field_at(values, path) if path else None
        if path and question is not None:
            found = {
                name: " ".join(free_texts(values.get(name), part)) for name, part in self.other_inputs.items()
            }
            others = [f"{name}: {text}" for name, text in found.items() if text]
            return "\n".join([f"{dotted(path)}: {question}", *others]) if others else str(question)
        texts = free_texts(values, self.input_schema)
        return "\n".join(texts) if any(texts) else canonical_json(self.without_answer(values))

    def without_answer(self, values: Mapping[str, Json]) -> dict[str, Json]:
        """The values without the answer and the options."""
        kept = {name: json.loads(json.dumps(value)) for name, value in values.items()}
        for path in filter(None, (self.roles.answer, self.roles.options)):
            field_at(kept, path[:-1]).pop(path[-1], None)
        return kept

    def check(self, example: Example) -> None:
        """Raise ExampleError unless the formatting example is valid in this format."""
        error = jsonschema.exceptions.best_match(self.validator.iter_errors(example.values))
        if error is not None:
            where = dotted(tuple(map(str, error.absolute_path))) or "the example"
            raise ExampleError(f"{where}: {describe_error(error)[:200]} (format {self.name}); change the example or the format")
        for rule in sorted(self.rules):
            for path in (getattr(self.roles, role) for role in _ROLES_OF_RULE[rule]):
                if not _has_field(example.values, path):
                    raise ExampleError(f"the rule {rule} needs the field {dotted(path)}; add it")
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
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}; --format takes a name or a JSON file") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read as JSON ({error}); fix the file") from None
    name = document.get("title", path.stem) if isinstance(document, dict) else path.stem
    return read_format(document, name)


def read_format(document: Mapping[str, Json], name: str) -> TaskFormat:
    """A format from its document, not yet bound.

    Raises FormatError with the location if the document is not the schema of an object, names a field that does not
    exist, or uses an unsupported keyword.
    """
    is_object = isinstance(document, Mapping) and document.get("type", "object") == "object"
    if not is_object or not isinstance(document.get("properties"), Mapping):
        raise FormatError(f"{name}: not the JSON Schema of an object; start from `datacreate schema infer`")
    try:
        jsonschema.Draft202012Validator.check_schema(document)
        jsonschema.Draft202012Validator({"properties": {"x-datacreate": _EXTENSION}}).validate(document)
    except (jsonschema.SchemaError, jsonschema.ValidationError) as error:
        where = "/".join(map(str, error.absolute_path))
        message = " ".join(error.message[:150].split())
        raise FormatError(f"{name}: not a valid format at /{where}: {message}; correct it there") from None
    kept = {k: v for k, v in document.items() if k not in ("$schema", "$id", "title", "x-datacreate")}
    extension, fields = document.get("x-datacreate", {}), resolve(kept, name)
    roles = _read_roles(extension.get("roles", {}), fields, name)
    rules = frozenset(map(Rule, extension.get("rules", [])))
    for rule in sorted(rules):
        for role in _ROLES_OF_RULE[rule]:
            if getattr(roles, role) is None:
                raise FormatError(f"{name}: the rule {rule} needs the role {role}; name it under roles")
    return TaskFormat(name, fields, roles, rules)


def _read_roles(given: Mapping[str, Json], schema: Mapping[str, Json], name: str) -> Roles:
    paths = {role: tuple(path.split(".") if isinstance(path, str) else path) for role, path in given.items()}
    for role, path in paths.items():
        try:
            field_schema = schema_at(schema, path)
        except (KeyError, TypeError):
            why = f"the role {role} names {dotted(path)}, which the schema lacks; name one of its fields"
            raise FormatError(f"{name}: {why}") from None
        if role == "options" and not _is_list(field_schema):
            raise FormatError(
                f"{name}: the role options names {dotted(path)}, which is not a list; name a list"
            )
    return Roles(**paths)


def _is_list(schema: Json) -> bool:
    if not isinstance(schema, Mapping):
        return False
    values = [schema["const"]] if "const" in schema else schema.get("enum", ())
    return "array" in schema.get("type", ()) or (bool(values) and all(isinstance(v, list) for v in values))


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
        raise ExampleError("the example has no field that can vary: all are null or fixed; fill one in")
    roles = {role: path for role, path in format.roles.paths().items() if _has_field(example.values, path)}
    return replace(format, schema=schema, roles=Roles(**roles))
