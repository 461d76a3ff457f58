"""A task format: the JSON Schema of one example, and what its fields are for.

The schema says what every example looks like; `x-datacreate` says what JSON Schema cannot:

    "x-datacreate": {
      "roles": {"question": "question", "context": "context", "options": "options", "answer": "label"},
      "rules": ["answer_in_options", "options_differ"]
    }

A role is a dotted path, or a list of keys where a key has a dot itself. A format becomes
concrete when it is bound to the formatting example: the number of options, and which fields
are always null, come from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jsonschema
from jsonschema.validators import extend

from datacreate.errors import ExampleError, FormatError
from datacreate.formats.example import Example, FieldPath, Json, canonical_json, dotted, field_at
from datacreate.formats.keywords import check_keywords, write_out_refs
from datacreate.formats.roles import ROLES_OF_RULE, Roles, Rule, holds
from datacreate.formats.schema_utils import (
    TextReader,
    fixed_labels,
    holds_numbers,
    is_constant,
    narrowed,
    schema_at,
    text_reader,
)
from datacreate.formats.string_formats import FORMAT_CHECKER
from datacreate.paths import shipped

__all__ = ["Roles", "Rule", "TaskFormat", "bind", "holds", "load_format", "read_format"]

Head = Literal["multiple_choice", "sequence_classification"]

# JSON Schema takes 3.0 for an integer; a column of a data set does not.
_Validator: Any = extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


@dataclass(frozen=True)
class TaskFormat:
    """A format bound to its formatting example. Property order is the order of writing."""

    name: str
    schema: Mapping[str, Json]
    roles: Roles = field(default_factory=Roles)
    rules: frozenset[Rule] = frozenset()

    @cached_property
    def labels(self) -> tuple[Json, ...] | None:
        """The fixed label set as the answer field holds it, or None if answers vary."""
        if self.roles.answer is None:
            return None
        schema = schema_at(self.schema, self.roles.answer)
        # An enumeration or a range may list values that another keyword of the field excludes.
        validator = self.validator.evolve(schema=schema)
        labels = tuple(filter(validator.is_valid, fixed_labels(schema) or ()))
        return labels if len(labels) > 1 else None

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
    def validator(self) -> jsonschema.protocols.Validator:
        """The validator of one example, `format` included; stricter in one thing: 3.0 is no integer."""
        validator: jsonschema.protocols.Validator = _Validator(self.schema, format_checker=FORMAT_CHECKER)
        return validator

    def document(self) -> dict[str, Json]:
        """The format as `schema infer` prints it and `--format` reads it."""
        said = {"roles": self.roles.document(), "rules": sorted(self.rules)}
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

    @cached_property
    def free_texts(self) -> TextReader:
        """From a valid example to the texts that are the model's own: not constant, not closed."""
        return text_reader(self.schema) or (lambda _: [])

    @cached_property
    def holds_numbers(self) -> bool:
        """Whether an example may hold numbers that are not from a fixed list."""
        return holds_numbers(self.schema)

    def text_of(self, values: Mapping[str, Json]) -> str:
        """What similarity and duplicates look at: the question, else all free text, else all there is."""
        if self.roles.question is not None:
            question = field_at(values, self.roles.question)
            if question is not None:
                return str(question)
        return "\n".join(self.free_texts(values)) or canonical_json(values)

    def check(self, example: Example) -> None:
        """Raise ExampleError unless the example is valid under its own format."""
        error = jsonschema.exceptions.best_match(self.validator.iter_errors(example.values))
        if error is not None:
            where = dotted(tuple(map(str, error.absolute_path))) or "the example"
            said = " ".join(error.message[:200].split())
            raise ExampleError(f"{where}: {said} (format {self.name}); fix the one or the other")
        for rule in sorted(self.rules):
            for path in (getattr(self.roles, role) for role in ROLES_OF_RULE[rule]):
                if not _has(example.values, path):
                    raise ExampleError(
                        f"the rule {rule} needs the field {dotted(path)}; the example lacks it"
                    )
            if not holds(rule, self.roles, example.values):
                said = ", ".join(f"{role} = {path}" for role, path in self.roles.named().items())
                raise ExampleError(f"the example breaks the rule {rule} ({said}); fix the example")


def _has(values: Json, path: FieldPath) -> bool:
    try:
        field_at(values, path)
    except (KeyError, TypeError):
        return False
    return True


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
        where = dotted(tuple(map(str, error.absolute_path))).replace(".", "/")
        said = " ".join(error.message[:150].split())
        raise FormatError(f"{name}: not a valid JSON Schema at /{where}: {said}") from None
    if document.get("type", "object") != "object":
        raise FormatError(
            f'{name}: an example is an object, not {document["type"]!r}; write "type": "object"'
        )
    check_keywords(document, name)
    said = document.get("x-datacreate", {})
    if not isinstance(said, Mapping) or set(said) - {"roles", "rules"}:
        raise FormatError(f"{name}: x-datacreate is an object with roles and rules, not {str(said)[:80]}")
    kept = {k: v for k, v in document.items() if k not in ("$schema", "$id", "title", "x-datacreate")}
    schema = write_out_refs(kept, name)
    roles = _roles_of(said.get("roles", {}), schema, name)
    return TaskFormat(name, schema, roles, _rules_of(said.get("rules", []), roles, name))


def _roles_of(said: Json, schema: Mapping[str, Json], name: str) -> Roles:
    known = ", ".join(sorted(vars(Roles())))
    if not isinstance(said, Mapping):
        raise FormatError(f"{name}: roles is an object from role to field; roles are {known}")
    paths: dict[str, FieldPath] = {}
    for role, path in said.items():
        if role not in vars(Roles()):
            raise FormatError(f"{name}: unknown role {role!r}; roles are {known}")
        try:
            paths[role] = tuple(path) if isinstance(path, list) else tuple(path.split("."))
            place = schema_at(schema, paths[role])
        except (KeyError, TypeError, AttributeError):
            raise FormatError(f"{name}: the role {role} names {path!r}, which the schema has not") from None
        if role == "options" and not _is_list(place):
            raise FormatError(f"{name}: the role options names {path!r}, which is not a list")
    return Roles(**paths)


def _is_list(schema: Json) -> bool:
    if not isinstance(schema, Mapping):
        return False
    listed = [schema["const"]] if "const" in schema else schema.get("enum", ())
    return "array" in schema.get("type", ()) or (bool(listed) and all(isinstance(v, list) for v in listed))


def _rules_of(said: Json, roles: Roles, name: str) -> frozenset[Rule]:
    if not isinstance(said, list):
        raise FormatError(f"{name}: rules is a list; rules are {', '.join(Rule)}")
    for rule in said:
        if rule not in list(Rule):
            raise FormatError(f"{name}: unknown rule {rule!r}; rules are {', '.join(Rule)}")
        for role in ROLES_OF_RULE[Rule(rule)]:
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
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file; --format takes a name or a JSON file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read as JSON ({error})") from None
    return read_format(
        document, document.get("title", path.stem) if isinstance(document, dict) else path.stem
    )


def bind(format: TaskFormat, example: Example) -> TaskFormat:
    """The format as this example narrows it: its fields, its nulls, its number of options.

    Raises ExampleError if the example has fields that the format lacks, is not valid, or has
    nothing in it that could vary.
    """
    properties = format.schema["properties"]
    if unknown := [key for key in example.values if key not in properties]:
        raise ExampleError(f"the field {unknown[0]!r} is not in the format {format.name}; add it or drop it")
    format.check(example)
    schema = narrowed(format.schema, example.values, (), format.roles.options)
    if all(map(is_constant, schema["properties"].values())):
        raise ExampleError(
            "the example has no field that can vary: all are null, empty or fixed; fill one in"
        )
    roles = {role: path for role, path in format.roles.paths().items() if _has(example.values, path)}
    return replace(format, schema=schema, roles=Roles(**roles))
