"""A task format: the JSON Schema of one example, and what its fields are for.

The schema says what every example looks like; `x-datacreate` says what JSON Schema cannot:

    "x-datacreate": {
      "roles": {"question": "question", "context": "context", "options": "options", "answer": "label"},
      "rules": ["answer_in_options", "options_differ"]
    }

A format becomes concrete when it is bound to the formatting example: the number of options,
and which fields are always null, come from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Literal

import jsonschema

from datacreate.errors import ExampleError, FormatError
from datacreate.resources import shipped
from datacreate.tasks.example import Example, FieldPath, Json, canonical_json, field_at, texts_in
from datacreate.tasks.keywords import refuse_unholdable

Head = Literal["multiple_choice", "sequence_classification"]

MOST_LABELS = 20
"""An integer answer with more values than this is a number, not a label set."""


class Rule(StrEnum):
    """What must hold between the fields of one example."""

    ANSWER_IN_OPTIONS = "answer_in_options"
    ANSWER_IN_CONTEXT = "answer_in_context"
    OPTIONS_DIFFER = "options_differ"


@dataclass(frozen=True)
class Roles:
    """Which field is which; None where the format has no such field."""

    question: FieldPath | None = None
    context: FieldPath | None = None
    options: FieldPath | None = None
    answer: FieldPath | None = None

    def named(self) -> dict[str, str]:
        """The roles that are there, as dotted paths."""
        return {role: ".".join(path) for role, path in vars(self).items() if path is not None}


@dataclass(frozen=True)
class TaskFormat:
    """A format bound to its formatting example. Property order is the order of writing."""

    name: str
    schema: Mapping[str, Json]
    roles: Roles = Roles()
    rules: frozenset[Rule] = frozenset()

    @cached_property
    def labels(self) -> tuple[Json, ...] | None:
        """The fixed label set as the answer field holds it, or None if answers vary."""
        return None if self.roles.answer is None else fixed_labels(schema_at(self.schema, self.roles.answer))

    @cached_property
    def options_vary(self) -> bool:
        """Whether every example brings options of its own."""
        path = self.roles.options
        return path is not None and not is_constant(schema_at(self.schema, path))

    @cached_property
    def head(self) -> Head | None:
        """The head that an encoder needs for this format; None if the answer is free text."""
        if self.options_vary and self.roles.answer is not None:
            return "multiple_choice"
        return "sequence_classification" if self.labels else None

    @cached_property
    def validator(self) -> jsonschema.Draft202012Validator:
        """The jsonschema validator of one example."""
        return jsonschema.Draft202012Validator(self.schema)

    def document(self) -> dict[str, Json]:
        """The format as `schema infer` prints it and `--format` reads it."""
        said = {"roles": self.roles.named(), "rules": sorted(self.rules)}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.name,
            **self.schema,
            "x-datacreate": said,
        }

    @property
    def digest(self) -> str:
        """The identity of the format: its canonical JSON."""
        return canonical_json(self.document())

    def text_of(self, values: Mapping[str, Json]) -> str:
        """What similarity and duplicates look at: the question, or else all text."""
        if self.roles.question is not None:
            return str(field_at(values, self.roles.question))
        return "\n".join(texts_in(values))

    def check(self, example: Example) -> None:
        """Raise ExampleError unless the example is valid under its own format."""
        error = jsonschema.exceptions.best_match(self.validator.iter_errors(example.values))
        if error is not None:
            where = ".".join(map(str, error.absolute_path)) or "the example"
            raise ExampleError(f"{where}: {error.message[:200]} (format {self.name}); mend the one or the other")
        for rule in sorted(self.rules):
            if not holds(rule, self.roles, example.values):
                said = ", ".join(f"{role} = {path}" for role, path in self.roles.named().items())
                raise ExampleError(f"the example breaks the rule {rule} ({said}); mend the example")


def answer_text(value: Json) -> str:
    """An answer as an option spells it: True for true, 3 for 3."""
    return value if isinstance(value, str) else str(value)


def holds(rule: Rule, roles: Roles, values: Mapping[str, Json]) -> bool:
    """Whether `rule` holds for the fields of one example."""
    if rule is Rule.OPTIONS_DIFFER:
        options = [answer_text(option).strip().casefold() for option in _value(values, roles.options)]
        return len(set(options)) == len(options)
    answer = answer_text(_value(values, roles.answer))
    if rule is Rule.ANSWER_IN_CONTEXT:
        return answer in str(_value(values, roles.context))
    return answer.casefold() in [answer_text(option).casefold() for option in _value(values, roles.options)]


def _value(values: Mapping[str, Json], path: FieldPath | None) -> Json:
    if path is None:  # refused by _roles_of when the format is read
        raise FormatError("a rule speaks of a role that the format does not name")
    return field_at(values, path)


def schema_at(schema: Mapping[str, Json], path: FieldPath) -> Mapping[str, Json]:
    """The schema of the field at `path`."""
    for key in path:
        schema = schema["properties"][key]
    return schema


def is_constant(schema: Mapping[str, Json]) -> bool:
    """Whether only one value is valid."""
    return "const" in schema or schema.get("type") == "null" or len(schema.get("enum", ())) == 1


def fixed_labels(schema: Mapping[str, Json]) -> tuple[Json, ...] | None:
    """The values of a closed answer field: an enumeration, a boolean or a short integer range."""
    if "enum" in schema:
        return tuple(schema["enum"])
    if schema.get("type") == "boolean":
        return (True, False)
    low, high = schema.get("minimum"), schema.get("maximum")
    if schema.get("type") == "integer" and low is not None and high is not None and high - low < MOST_LABELS:
        return tuple(range(low, high + 1))
    return None


def read_format(document: Mapping[str, Json], name: str) -> TaskFormat:
    """A format from its document (a schema with `x-datacreate`), not yet bound.

    Raises FormatError, naming the place, if it is no schema of an object, names fields that
    are not there, or uses a keyword that the grammar cannot hold.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("properties"), Mapping):
        raise FormatError(f"{name}: not the JSON Schema of an object; start from `datacreate schema infer`")
    try:
        jsonschema.Draft202012Validator.check_schema(document)
    except jsonschema.SchemaError as error:
        where = "/".join(map(str, error.absolute_path))
        raise FormatError(f"{name}: not a valid JSON Schema at /{where}: {error.message[:150]}") from None
    refuse_unholdable(document, name)
    said = document.get("x-datacreate", {})
    if unknown := set(said) - {"roles", "rules"}:
        raise FormatError(f"{name}: x-datacreate knows roles and rules, not {', '.join(sorted(unknown))}")
    schema = {k: v for k, v in document.items() if k not in ("$schema", "$id", "title", "x-datacreate")}
    roles = _roles_of(said.get("roles", {}), schema, name)
    return TaskFormat(name, schema, roles, _rules_of(said.get("rules", []), roles, name))


def _roles_of(said: Mapping[str, str], schema: Mapping[str, Json], name: str) -> Roles:
    known = set(vars(Roles()))
    if unknown := set(said) - known:
        raise FormatError(f"{name}: unknown role {unknown.pop()!r}; roles are {', '.join(sorted(known))}")
    roles = Roles(**{role: tuple(path.split(".")) for role, path in said.items()})
    for role, path in roles.named().items():
        try:
            schema_at(schema, tuple(path.split(".")))
        except (KeyError, TypeError):
            raise FormatError(f"{name}: the role {role} names {path!r}, which the schema has not") from None
    return roles


def _rules_of(said: list[str], roles: Roles, name: str) -> frozenset[Rule]:
    needs = {
        Rule.ANSWER_IN_OPTIONS: ("answer", "options"),
        Rule.ANSWER_IN_CONTEXT: ("answer", "context"),
        Rule.OPTIONS_DIFFER: ("options",),
    }
    for rule in said:
        if rule not in list(Rule):
            raise FormatError(f"{name}: unknown rule {rule!r}; rules are {', '.join(Rule)}")
        for role in needs[Rule(rule)]:
            if getattr(roles, role) is None:
                raise FormatError(f"{name}: the rule {rule} needs the role {role}; name it under roles")
    return frozenset(map(Rule, said))


def load_format(name_or_path: str) -> TaskFormat:
    """A shipped format by name, or one from a file; not yet bound."""
    path = Path(name_or_path)
    if path.suffix != ".json" and not path.is_file():
        path = shipped("schemas", f"{name_or_path}.json")
        if not path.is_file():
            names = ", ".join(sorted(p.stem for p in shipped("schemas").glob("*.json")))
            raise FormatError(f"no format {name_or_path!r}; shipped are {names}, or give a JSON file")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file; --format takes a name or a JSON file") from None
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read as JSON ({error})") from None
    return read_format(document, document.get("title", path.stem) if isinstance(document, dict) else path.stem)


def bind(format: TaskFormat, example: Example) -> TaskFormat:
    """The format as this example narrows it: its fields, its nulls, its number of options.

    Raises ExampleError if the example has fields that the format lacks, or is not valid.
    """
    properties = format.schema["properties"]
    if unknown := [key for key in example.values if key not in properties]:
        raise ExampleError(f"the field {unknown[0]!r} is not in the format {format.name}; add it or drop it")
    format.check(example)
    options = format.roles.options
    narrowed = {}
    for key, schema in properties.items():
        if key not in example.values:
            continue
        value = example.values[key]
        if isinstance(schema.get("type"), list) and "null" in schema["type"]:
            kind = [t for t in schema["type"] if t != "null"]
            schema = {"type": "null"} if value is None else {**schema, "type": kind[0] if len(kind) == 1 else kind}
        if options == (key,) and not is_constant(schema):
            schema = {**schema, "minItems": len(value), "maxItems": len(value)}
        narrowed[key] = schema
    schema = {**format.schema, "properties": narrowed, "required": list(narrowed), "additionalProperties": False}
    roles = Roles(**{r: tuple(p.split(".")) for r, p in format.roles.named().items() if p.split(".")[0] in narrowed})
    return replace(format, schema=schema, roles=roles)
