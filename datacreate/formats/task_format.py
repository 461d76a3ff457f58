"""Defines `TaskFormat`: the JSON Schema of one example, the roles of its fields, and rules between them.

Most formats are inferred from examples (infer.py). A format can also be written as a JSON file: schemas/NAME.json, or
a file given with `--format`. Its key `x-datacreate` says what JSON Schema cannot:

    "x-datacreate": {
      "roles": {"inputs": ["question", "context"], "context": "context", "options": "options", "answer": "label"},
      "rules": ["answer_in_options", "options_differ"]
    }

A field is a dotted path, or a list of keys if a key contains a dot. `load_format` reads a file. `specialize` narrows
the format to the formatting examples of a run: their number of options, the fields that are null, ...
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jsonschema
from jsonschema.validators import extend

from datacreate.errors import ExampleError, FormatError, UsageError
from datacreate.files import shipped
from datacreate.formats.example import (
    Example,
    FieldPath,
    Json,
    canonical_json,
    dotted,
    field_at,
    fields_of,
    replace_field,
    value_at,
    values_in,
)
from datacreate.formats.roles import (
    LIST_ROLES,
    ROLES_SCHEMA,
    Answers,
    Roles,
    canonical_label,
    default_inputs,
    first_key_in,
    option_keys,
)
from datacreate.formats.rules import (
    Rule,
    check_alike,
    check_rules,
    specialize_kind,
    texts_of_kind,
    turn_schemas,
    with_turns,
)
from datacreate.formats.schema_keywords import FORMAT_CHECKER, describe_error, find_contradiction, resolve_refs
from datacreate.formats.schema_utils import (
    Schema,
    fixed_labels,
    free_texts,
    is_constant,
    may_have_text,
    schema_at,
    specialize_schema,
    with_field,
)

Head = Literal["multiple_choice", "sequence_classification"]

_Validator: Any = extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)
"""JSON Schema accepts 3.0 as an integer; a column of a data set does not."""

_ROLES_OF_LISTS = ("options", "keys", "turns", "tools", "tags")  # a field with one of them holds a list
_RULES = {"type": "array", "items": {"enum": [rule.value for rule in Rule]}}
_EXTENSION = {"properties": {"roles": ROLES_SCHEMA, "rules": _RULES}, "additionalProperties": False, "type": "object"}
"""The schema of `x-datacreate`."""


@dataclass(frozen=True)
class TaskFormat:
    """The schema of an example, the roles of its fields, and the rules that each example must satisfy."""

    name: str
    schema: Mapping[str, Json]
    roles: Roles = field(default_factory=Roles)
    rules: frozenset[Rule] = frozenset()
    first_key: Json = None  # the position or letter of the first option, if the answer is one of an option
    context_is_given: bool = False  # the context is a passage of a document, which the model does not write

    @cached_property
    def labels(self) -> tuple[Json, ...] | None:
        """The labels: the answer of each example is one of them. None if each example has its own answers."""
        if self.roles.answer is None or self.roles.keys or self.first_key is not None:
            return None
        schema = schema_at(self.schema, self.roles.answer)
        # Another keyword of the field can exclude values of the enumeration or range.
        validator = self.validator.evolve(schema=schema)
        labels = tuple(filter(validator.is_valid, fixed_labels(schema) or ()))
        are_scalar = not any(isinstance(label, list | dict) for label in labels)  # a list is not a label
        return labels if are_scalar and len(labels) > 1 else None

    @cached_property
    def answers(self) -> Answers:
        """What finds the possible answers of an example, and the right one."""
        schema = schema_at(self.schema, self.roles.answer or ())
        is_text = schema.get("type") == "string"
        return Answers(self.roles, self.labels, self.options_vary, self.first_key, is_text)

    @cached_property
    def options_vary(self) -> bool:
        """Whether each example has its own options. Options that are the same in all examples are labels."""
        path = self.roles.options
        return path is not None and not is_constant(schema_at(self.schema, path))

    @cached_property
    def head(self) -> Head | None:
        """The kind of encoder that can predict the answer; None if the answer is free text."""
        if self.options_vary and self.roles.answer is not None:
            return "multiple_choice"
        return "sequence_classification" if self.labels else None

    @cached_property
    def validator(self) -> jsonschema.protocols.Validator:
        """The validator of the values of one example. It also checks `format`, and 3.0 is not an integer for it."""
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

    @cached_property
    def _input_schemas(self) -> dict[FieldPath, Schema]:
        """The schemas of the inputs that vary. That of an input without free text is {}, so that all of it is text."""
        schemas = {path: schema_at(self.schema, path) for path in self.roles.inputs}
        varying = {path: schema for path, schema in schemas.items() if not is_constant(schema)}
        return {path: schema if may_have_text(schema) else {} for path, schema in varying.items()}

    def _texts(self, path: FieldPath, values: Mapping[str, Json]) -> list[str]:
        """The texts of the input at `path`. Its values, such as numbers, are the texts if it has no free text."""
        value = value_at(values, path)
        schema = self._input_schemas.get(path)
        if schema is None or value is None:
            return []
        texts = texts_of_kind(self.roles, path, value)
        return free_texts(value, schema) if texts is None else texts

    @cached_property
    def passage_field(self) -> FieldPath | None:
        """The field of the passage: the context, if there are several inputs. A single input is not a passage."""
        context, inputs = self.roles.context, self.roles.inputs
        return context if context in inputs and len(inputs) > 1 else None

    def passage(self, values: Mapping[str, Json]) -> str:
        """The text of the passage; empty if there is none."""
        return " ".join(self._texts(self.passage_field, values)) if self.passage_field else ""

    def texts_beside_passage(self, values: Mapping[str, Json]) -> list[str]:
        """The texts of all inputs but the passage."""
        paths = (path for path in self.roles.inputs if path != self.passage_field)
        return [text for path in paths for text in self._texts(path, values)]

    def input_texts(self, values: Mapping[str, Json]) -> tuple[str, ...]:
        """The texts that filters compare: those of all inputs, the passage last; else all values that vary."""
        texts = self.texts_beside_passage(values)
        if self.passage_field and (passage := self._texts(self.passage_field, values)):
            texts.append(" ".join(passage))
        if not any(texts):
            parts = self.schema["properties"]
            texts = values_in({name: v for name, v in values.items() if not is_constant(parts.get(name, {}))})
        return tuple(texts) or (canonical_json(values),)

    def embedding_text(self, values: Mapping[str, Json]) -> str:
        """The inputs as one text, for embeddings: without a passage of a document, which several examples share."""
        texts = self.texts_beside_passage(values) if self.context_is_given and self.passage_field else ()
        return "\n".join(texts if any(texts) else self.input_texts(values))

    def text_for_model(self, values: Mapping[str, Json]) -> str:
        """The text that encoder and verifier read beside the passage and the options: that of the other inputs.

        If several inputs have a text, each is on a line with its name: `premise: ...`. Constants are left out.
        """
        paths = (path for path in self.roles.inputs if path != self.passage_field)
        texts = {path: text for path in paths if (text := " ".join(self._texts(path, values)))}
        named = [f"{dotted(path)}: {text}" for path, text in texts.items()]
        return "\n".join(named if len(texts) > 1 else texts.values())

    def with_turn_count(self, example: Example) -> Example:
        """The example with its conversation cut or repeated, so that it has as many turns as the format."""
        if self.roles.turns is None:
            return example
        count = schema_at(self.schema, self.roles.turns)["maxItems"] // 2
        turns = with_turns(field_at(example.values, self.roles.turns), count)
        return Example(replace_field(example.values, self.roles.turns, turns))

    def check(self, example: Example) -> None:
        """Raise ExampleError, with origin and field, unless the formatting example is valid in this format."""
        where = example.where
        if unknown := [key for key in example.values if key not in self.schema["properties"]]:
            raise ExampleError(
                f"{where}the field {unknown[0]!r} is not in the format {self.name}; add it to the format, or remove it "
                "from the example"
            )
        error = jsonschema.exceptions.best_match(self.validator.iter_errors(example.values))
        if error is not None:
            location = dotted(tuple(map(str, error.absolute_path))) or "the example"
            problem = f"{describe_error(error)[:200]} (format {self.name})"
            raise ExampleError(f"{where}{location}: {problem}; change the example or the format")
        for rule in sorted(self.rules):
            try:
                holds = rule.holds(self.answers, example.values)
            except (KeyError, TypeError):  # a field that the schema does not require
                holds = False
            if not holds:
                roles = ", ".join(f"{role} = {path}" for role, path in self.roles.named().items())
                problem = f"breaks the rule {rule}: {rule.meaning} ({roles})"
                raise ExampleError(f"{where}the example {problem}; fix the example")


def load_format(name_or_path: str) -> TaskFormat:
    """Read a shipped format by its name, or the format in a JSON file or in the config.json of a run.

    Raises FormatError if there is none, or if it is not valid, or if no example can be valid in it.
    """
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
    if isinstance(document, dict) and isinstance(spec := document.get("spec"), dict):
        return read_format(spec.get("format", {}), path.stem)  # a run that exists is read as it is
    task_format = read_format(document, path.stem)
    problem, answer = find_contradiction(task_format.schema), task_format.roles.answer
    labels = schema_at(task_format.schema, answer).get("enum") if answer else None
    if answer and labels is not None and len({str(label).casefold() for label in labels}) < max(2, len(labels)):
        problem = f"the answer {dotted(answer)} needs two or more values, which differ in more than case"
    if problem:
        raise FormatError(f"{task_format.name}: {problem}; change the schema")
    return task_format


def read_format(document: Mapping[str, Json], name: str = "format") -> TaskFormat:
    """Read a format from its JSON document. `name` is its name if the document has no title.

    Raises FormatError, with the place, for a document that is not a JSON Schema of an object, keywords that cannot be
    used, and roles, rules or labels that do not fit the schema.
    """
    is_object = isinstance(document, Mapping) and document.get("type", "object") == "object"
    name = str(document.get("title", name)) if is_object else name
    if not is_object or not isinstance(document.get("properties"), Mapping):
        raise FormatError(f"{name}: not the JSON Schema of an object; start from `datacreate schema infer`")
    try:
        jsonschema.Draft202012Validator.check_schema(document)
        jsonschema.Draft202012Validator({"properties": {"x-datacreate": _EXTENSION}}).validate(document)
    except (jsonschema.SchemaError, jsonschema.ValidationError) as error:
        where = "/".join(map(str, error.absolute_path))
        message = " ".join(error.message[:150].split())
        raise FormatError(f"{name}: not a valid format at /{where}: {message}; correct it there") from None
    extension, header = document.get("x-datacreate", {}), ("$schema", "$id", "title", "x-datacreate")
    schema = resolve_refs({key: value for key, value in document.items() if key not in header}, name)
    roles = _read_roles(extension.get("roles", {}), schema, name)
    rules = frozenset(rule for rule in Rule if rule in extension.get("rules", ()))
    check_rules(name, rules, roles)
    task_format = TaskFormat(name, schema, roles, rules, find_first_key(schema, roles))
    labels = task_format.labels or ()
    if min(len({*map(canonical_label, labels)}), len({*map(str, labels)})) < len(labels):
        shown = ", ".join(map(canonical_json, labels))
        raise FormatError(f"{name}: two of the labels are the same ({shown[:150]}); name each once")
    return task_format


def _read_roles(document: Mapping[str, Json], schema: Schema, name: str) -> Roles:
    """Read the roles of a format file; the inputs are the default ones if it names none.

    Raises FormatError if the schema lacks a field with a role, or if the field cannot have it.
    """
    paths: dict[str, list[FieldPath]] = {}
    for role, value in document.items():
        listed = value if role in LIST_ROLES else [value]
        paths[role] = [tuple(path.split(".") if isinstance(path, str) else path) for path in listed]
        for path in paths[role]:
            try:
                field_schema = schema_at(schema, path)
            except (KeyError, TypeError):
                raise FormatError(
                    f"{name}: the role {role} names {dotted(path)}, which the schema lacks; name one of its fields"
                ) from None
            values = field_schema.get("enum", [field_schema.get("const")])
            are_lists = all(isinstance(value, list) for value in values)
            if role in _ROLES_OF_LISTS and not (are_lists or "array" in field_schema.get("type", ())):
                raise FormatError(f"{name}: the role {role} names {dotted(path)}, which is not a list; name a list")
            if role == "turns" and not turn_schemas(field_schema):
                raise FormatError(
                    f"{name}: the role turns names {dotted(path)}, which is not a conversation; name a list of objects "
                    "with role and content"
                )
    roles = Roles.of(paths)
    return roles if "inputs" in document else replace(roles, inputs=default_inputs(schema, roles))


def find_first_key(schema: Schema, roles: Roles) -> Json:
    """The key of the first option, if the schema says that the answer is a position or letter; None otherwise.

    It is "A" if the answer field has `{"enum": ["A", "B", "C"]}`, and 0 if it has `{"minimum": 0, "maximum": 3}`.
    """
    if not roles.answer or not roles.options or roles.keys or is_constant(schema_at(schema, roles.options)):
        return None
    return first_key_in(fixed_labels(schema_at(schema, roles.answer)) or ())


def specialize(task_format: TaskFormat, *examples: Example, turns: int | None = None) -> TaskFormat:
    """Narrow the format to what its formatting examples have in common.

    This fixes which fields there are and are null, the number of options and of turns, the tools and the ignored
    values. A field that is null in some examples may be null. `turns` is the number of user messages, by default that
    of the longest conversation. Raises UsageError for `turns` if the format is not a conversation, and ExampleError for
    an example that is not valid, or that differs from the first where all must be alike.
    """
    for example in examples:
        task_format.check(example)
        check_alike(task_format.roles, example, examples[0])
    return specialize_unchecked(task_format, [example.values for example in examples], turns)


def specialize_unchecked(
    task_format: TaskFormat, rows: Sequence[Mapping[str, Json]], turns: int | None = None
) -> TaskFormat:
    """Narrow the format as `specialize` does, but without a check: the texts of the rows may be empty."""
    if turns and not task_format.roles.turns:
        raise UsageError(f"--turns: the format {task_format.name} is not a conversation; remove --turns")
    roles, values = task_format.roles, rows[0]
    schema = specialize_schema(task_format.schema, rows, (), roles.options)
    if roles.answer and task_format.answers.are_keys:
        count = len(value_at(values, roles.options) or ())
        keys = value_at(values, roles.keys) if roles.keys else option_keys(task_format.first_key, count)
        schema = with_field(schema, roles.answer, {"enum": list(keys)})
    fields = dict(fields_of(values))
    for path in filter(fields.__contains__, (*roles.ignored, roles.keys or ())):
        schema = with_field(schema, path, {"const": fields[path]})
    schema = specialize_kind(schema, roles, rows, turns)
    roles = _roles_of_fields(roles, schema, fields)
    check_rules(task_format.name, task_format.rules, roles)
    if all(map(is_constant, schema["properties"].values())):
        raise ExampleError("no field can vary: all are null, empty, fixed or not required; fill one in")
    return replace(task_format, schema=schema, roles=roles)


def _roles_of_fields(roles: Roles, schema: Schema, fields: Collection[FieldPath]) -> Roles:
    """The roles without the fields that an example lacks, and without inputs and context that are constant."""

    def varies(path: FieldPath) -> bool:
        with suppress(KeyError, TypeError):
            return not is_constant(schema_at(schema, path))
        return False

    kept = {
        role: [path for path in paths if (varies(path) if role in ("inputs", "context") else path in fields)]
        for role, paths in roles.paths().items()
    }
    return Roles.of(kept)
