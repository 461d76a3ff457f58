"""Infers one task format from many rows: those of a file, or several formatting examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice

from datacreate.errors import DatacreateError, ExampleError
from datacreate.formats.example import JSON_TYPES, Example, FieldPath, Json, leaves_of, value_at
from datacreate.formats.infer import InferredFormat, infer_format, with_ignored
from datacreate.formats.infer_answers import MAX_FOUND_LABELS, few_labels
from datacreate.formats.options import FormatOptions
from datacreate.formats.rules import Rule
from datacreate.formats.schema_utils import Schema, is_number, leaves, nullable, schema_at, with_field
from datacreate.formats.task_format import TaskFormat, default_inputs, load_format

_ROWS = 1000
"""Fields, types and roles come from this many rows."""

_VOTES = 50
"""The roles are those that most of this many typical rows give."""


def infer_from_rows(rows: Iterable[Mapping[str, Json]], options: FormatOptions) -> TaskFormat:
    """The one format of many rows: a shipped one, or one that allows what occurs in the first 1,000 of them.

    A field is required if all rows have it. Answer and options are required, and answers have their most frequent type.
    If the answers of all rows are few, they are the labels. Raises what `infer_format` raises if no row has a format.
    """
    rows = iter(rows)
    first = list(islice(rows, _ROWS))
    _, voted = _vote([Example(row) for row in first], options)
    if voted.name != "inferred":
        format = with_ignored(load_format(voted.name), voted.roles.ignored)
        for path in voted.roles.tags:  # the tags that the user declares
            format = replace(format, schema=with_field(format.schema, path, schema_at(voted.schema, path)))
        return format
    roles, fixed = voted.roles, dict[FieldPath, Schema]()
    for path, schema in leaves(voted.schema):
        if path == roles.answer and voted.answers.are_coded:
            continue  # a row with more options has more positions
        if "enum" in schema or "minimum" in schema or (path == roles.options and "const" in schema):
            fixed[path] = schema
    needed = [path for path in (roles.answer, roles.options, roles.keys) if path]
    needed += [roles.context] if roles.context and Rule.ANSWER_IN_CONTEXT in voted.rules else []
    given = {*options.label_sets, *options.ranges}
    if roles.answer and not (
        roles.options or Rule.ANSWER_IN_CONTEXT in voted.rules or ".".join(roles.answer) in given
    ):
        fixed[roles.answer] = _answer_schema(chain(first, rows), roles.answer, fixed.get(roles.answer, {}))
    schema = {**_schema_of(first, (), fixed, needed), "additionalProperties": False}
    roles = roles if options.inputs else replace(roles, inputs=default_inputs(schema, roles))
    return replace(voted, schema=schema, roles=roles)


def infer_from_examples(
    examples: Sequence[Example], options: FormatOptions
) -> tuple[tuple[Example, ...], InferredFormat]:
    """The format of all formatting examples, and the examples with the same fields: one that is missing becomes null.

    A field has the type that most of them give it, and may be null if it is null in one; the answer and its options may
    not. Raises what `infer_format` raises; ExampleError, naming the origin, for an example that does not fit.
    """
    if len(examples) == 1:
        return tuple(examples), infer_format(examples[0], options)
    keys = dict.fromkeys(key for each in examples for key in each.values)
    filled = [
        each
        if keys.keys() == each.values.keys()
        else replace(each, values={**dict.fromkeys(keys), **each.values})
        for each in examples
    ]
    typical = filled[0] if options.format else _vote(filled, options)[0]
    others = [each for each in filled if each is not typical]
    return tuple(filled), infer_format(typical, options, others=others)


def _vote(examples: Sequence[Example], options: FormatOptions) -> tuple[Example, TaskFormat]:
    """A row and its format, with the roles and rules that most rows with many fields of the usual types have."""
    rows = [each.values for each in examples]
    counts = Counter(kind for row in rows for kind in _kinds(row))
    usual = {path: kind for (path, kind), _ in reversed(counts.most_common())}
    typical = sorted(
        examples, key=lambda each: -sum(usual[path] == kind for path, kind in _kinds(each.values))
    )
    found: list[tuple[Example, TaskFormat]] = []
    errors: list[DatacreateError] = []
    for each in typical[:_VOTES]:
        try:
            found.append((each, infer_format(each, options, rows).format))
        except DatacreateError as error:
            is_named = str(error).startswith(each.where)
            errors.append(error if is_named else type(error)(f"{each.where}{error}"))
    if not found:
        raise errors[0] if errors else ExampleError("no rows")
    keys = [
        (format.name, replace(format.roles, inputs=(), ignored=()), format.rules, format.labels)
        for _, format in found
    ]
    return found[keys.index(Counter(keys).most_common(1)[0][0])]


def _kinds(row: Mapping[str, Json]) -> Iterator[tuple[FieldPath, str]]:
    """The path and the type of each field with a value."""
    return ((path, JSON_TYPES[type(value)]) for path, value in leaves_of(row) if value not in (None, "", []))


def _answer_schema(rows: Iterable[Mapping[str, Json]], path: FieldPath, own: Schema) -> Schema:
    """The schema of the answer: its most frequent type, with the values that occur, also in lists, if they are few."""
    total, kinds, values, decimal = 0, Counter[str](), defaultdict[str, set[Json]](set), False
    for total, row in enumerate(rows, 1):  # noqa: B007 (used after the loop)
        value = value_at(row, path)
        kind = "number" if is_number(value) else JSON_TYPES[type(value)]
        kinds[kind] += 1
        decimal |= isinstance(value, float)  # 1.0 is equal to 1, but no integer
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, str | int | float) and len(values[kind]) <= MAX_FOUND_LABELS:
                values[kind].add(part)
    if not values:
        return own
    kind = max(values, key=kinds.__getitem__)
    if kind == "array":
        labels = sorted(values[kind], key=str)
        return {"type": kind, "items": {"enum": labels} if few_labels(len(labels), total) else {}}
    if kind == "boolean":
        return {"type": kind}
    known = {str(label).casefold() for label in own.get("enum", ())}
    found = sorted((int(x) if kind == "number" and x == int(x) else x for x in values[kind]), key=str)
    kind = "integer" if all(isinstance(value, int) for value in values[kind]) and not decimal else kind
    if few_labels(len(found), total) and not {str(label).casefold() for label in found} <= known:
        return {"type": kind, "enum": found}
    return own or {"type": kind}


def _schema_of(
    values: Sequence[Json], path: FieldPath, fixed: Mapping[FieldPath, Schema], needed: Sequence[FieldPath]
) -> Schema:
    """The schema of a field with these values; `fixed` has the schemas that are known, by path."""
    kinds = Counter(JSON_TYPES[type(value)] for value in values)
    if any(each[: len(path)] == path for each in needed):
        del kinds["null"]
        kinds = Counter(dict(kinds.most_common(1)))
    if path in fixed:
        return nullable(fixed[path]) if "null" in kinds else fixed[path]
    if kinds.keys() <= {"null"}:
        return {}  # other rows show what it is
    if "number" in kinds:
        del kinds["integer"]
    schema: dict[str, Json] = {"type": next(iter(kinds)) if len(kinds) == 1 else list(kinds)}
    if "object" in kinds:
        objects = [value for value in values if isinstance(value, dict)]
        names = list(dict.fromkeys(name for each in objects for name in each))
        schema["properties"] = {
            name: _schema_of([each[name] for each in objects if name in each], (*path, name), fixed, needed)
            for name in names
        }
        needed_here = {
            each[len(path)] for each in needed if len(each) > len(path) and each[: len(path)] == path
        }
        schema["required"] = [
            name for name in names if name in needed_here or all(name in each for each in objects)
        ]
    if "array" in kinds:
        items = [item for value in values if isinstance(value, list) for item in value]
        schema["items"] = _schema_of(items, (*path, ""), {}, ())
    return schema
