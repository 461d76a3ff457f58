"""Infers one task format from many rows: those of a file, or several formatting examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice

from datacreate.errors import DatacreateError, ExampleError
from datacreate.formats import FormatOptions
from datacreate.formats.example import JSON_TYPES, Example, FieldPath, Json, dotted, leaf_values, one_line, value_at
from datacreate.formats.infer import InferredFormat, infer_format, with_ignored
from datacreate.formats.infer_labels import MAX_FOUND_LABELS, few_labels
from datacreate.formats.roles import default_inputs
from datacreate.formats.rules import Rule
from datacreate.formats.schema_utils import (
    Schema,
    allows_null,
    infer_schema,
    leaf_schemas,
    nullable,
    schema_at,
    with_field,
)
from datacreate.formats.task_format import TaskFormat, load_format

_FORMAT_ROWS = 1000  # fields, types and roles come from this many rows
_VOTES = 50  # the roles are those that most of this many typical rows give
_TYPES = JSON_TYPES | {int: "number"}  # JSON types, in which integers and other numbers are alike


def infer_from_rows(rows: Iterable[Mapping[str, Json]], format_options: FormatOptions) -> TaskFormat:
    """Infer the one format of many rows, for commands that read a file: a shipped format, or a new one.

    A new format allows what occurs in the first 1,000 rows. A field is required if all rows have it. Answer and options
    are always required, and answers have their most frequent type. If the answers of all rows are few, they are the
    labels. Raises what `infer_format` raises if no row has a format.
    """
    rows = iter(rows)
    first_rows = list(islice(rows, _FORMAT_ROWS))
    typical, task_format = _vote([Example(row) for row in first_rows], format_options)
    if task_format.name != "inferred":
        return _general_format(task_format)
    roles = task_format.roles
    is_span = Rule.ANSWER_IN_CONTEXT in task_format.rules
    declared = {*format_options.label_sets, *format_options.range}
    # These schemas do not follow from the values of the first rows alone: labels, ranges, answers, constant options.
    fixed = {path: part for path, part in leaf_schemas(task_format.schema) if "enum" in part or "minimum" in part}
    if roles.answer and task_format.answers.are_keys:
        fixed.pop(roles.answer, None)  # a row with more options has more positions
    elif roles.answer and not (roles.options or is_span or ".".join(roles.answer) in declared):
        answers = (value_at(row, roles.answer) for row in chain(first_rows, rows))
        fixed[roles.answer] = _answer_schema(answers, fixed.get(roles.answer, {}))
    if roles.options and not task_format.options_vary:
        fixed[roles.options] = schema_at(task_format.schema, roles.options)

    # Rows whose answer or options have a different type from those of the typical row are invalid, and show nothing.
    required = [path for path in (roles.answer, roles.options, roles.keys, roles.context if is_span else None) if path]
    types = [_TYPES[type(value_at(typical.values, path))] for path in required]
    complete = [row for row in first_rows if [_TYPES[type(value_at(row, path))] for path in required] == types]
    schema: Schema = {**_relaxed(infer_schema(complete)), "additionalProperties": False}
    for path, part in fixed.items():
        may_be_null = path != roles.answer and allows_null(schema_at(schema, path))
        schema = with_field(schema, path, nullable(part) if may_be_null else part)
    if not format_options.inputs:
        roles = replace(roles, inputs=default_inputs(schema, roles))
    return replace(task_format, schema=schema, roles=roles)


def _general_format(specialized: TaskFormat) -> TaskFormat:
    """The shipped format before it was specialized, with the ignored fields of the rows and the declared tags."""
    task_format = with_ignored(load_format(specialized.name), specialized.roles.ignored)
    for path in specialized.roles.tags:
        tags = schema_at(specialized.schema, path)
        task_format = replace(task_format, schema=with_field(task_format.schema, path, tags))
    return task_format


def infer_from_examples(
    examples: Sequence[Example], format_options: FormatOptions
) -> tuple[tuple[Example, ...], InferredFormat]:
    """Infer the one format of the formatting examples of a run; returns the examples with it.

    The returned examples all have the same fields: those that one lacks are null. A field has the type that most
    examples give it, and may be null if it is null in one, except the answer and the options. Raises what
    `infer_format` raises, and ExampleError, which names the origin, for an example that does not fit the format of
    most.
    """
    if len(examples) == 1:
        return tuple(examples), infer_format(examples, format_options)
    keys = dict.fromkeys(key for example in examples for key in example.values)
    filled = [replace(example, values={**dict.fromkeys(keys), **example.values}) for example in examples]
    typical = filled[0] if format_options.format else _vote(filled, format_options)[0]
    others = [example for example in filled if example is not typical]
    try:
        return tuple(filled), infer_format([typical, *others], format_options)
    except ExampleError as error:
        _check_fields(error, examples, examples[filled.index(typical)])
        raise


def _check_fields(error: ExampleError, examples: Sequence[Example], typical: Example) -> None:
    """Raise a clearer ExampleError if this one is about a field that an example of another layout lacks."""
    for example in examples:
        lacking = tuple(f"{example.where}{dotted((name,))}: null" for name in typical.values.keys() - example.values)
        if str(error).startswith(lacking) and example.values.keys() - typical.values:
            fields, typical_fields = (", ".join(map(one_line, each.values)) for each in (example, typical))
            raise ExampleError(
                f"{example.where}its fields are {fields}, but those of {typical.origin} are {typical_fields}; give "
                "examples with the same fields"
            )


def _vote(examples: Sequence[Example], format_options: FormatOptions) -> tuple[Example, TaskFormat]:
    """Infer a format from each of the typical rows; returns the most frequent result, with a row that gives it.

    Typical are the rows with the most fields of the type that is usual for the field. Raises the first error if there
    is not a typical row with a format.
    """
    rows = [example.values for example in examples]
    counts = Counter(field for row in rows for field in _field_types(row))
    usual = {path: json_type for (path, json_type), _ in reversed(counts.most_common())}
    by_usual_fields = sorted(
        examples, key=lambda example: -sum(usual[path] == json_type for path, json_type in _field_types(example.values))
    )
    votes: list[tuple[Example, TaskFormat]] = []
    errors: list[DatacreateError] = []
    for example in by_usual_fields[:_VOTES]:
        try:
            votes.append((example, infer_format([example], format_options, rows).format))
        except DatacreateError as error:
            is_named = str(error).startswith(example.where)
            errors.append(error if is_named else type(error)(f"{example.where}{error}"))
    if not votes:
        raise errors[0] if errors else ExampleError("no rows")
    results = [
        (task_format.name, replace(task_format.roles, inputs=(), ignored=()), task_format.rules, task_format.labels)
        for _, task_format in votes
    ]
    return votes[results.index(Counter(results).most_common(1)[0][0])]


def _field_types(row: Mapping[str, Json]) -> Iterator[tuple[FieldPath, str]]:
    """The path and the type of each field with a value."""
    return ((path, JSON_TYPES[type(value)]) for path, value in leaf_values(row) if value not in (None, "", []))


def _answer_schema(answers: Iterable[Json], voted_schema: Schema) -> Schema:
    """The schema of the answer field, from the answers of all rows: their most frequent type, and labels if few differ.

    `voted_schema` is the one that typical rows give; it is kept if no answer is outside of its labels. Answers that are
    lists, and of which few different items occur, get these as the labels of the items.
    """
    counts, values = Counter[str](), defaultdict[str, set[Json]](set)
    for answer in answers:
        json_type = _TYPES[type(answer)]
        counts[json_type] += 1
        parts = answer if isinstance(answer, list) else [answer]
        if len(values[json_type]) <= MAX_FOUND_LABELS:
            values[json_type].update(part for part in parts if isinstance(part, str | int | float))
    json_type = max(filter(values.get, values), key=counts.__getitem__, default="null")
    labels = sorted((int(x) if json_type == "number" and x == int(x) else x for x in values[json_type]), key=str)
    are_few = few_labels(len(labels), counts.total())
    voted_labels = {str(label).casefold() for label in voted_schema.get("enum", ())}
    if json_type == "null" or {str(label).casefold() for label in labels} <= voted_labels:
        return voted_schema
    if json_type == "array":
        return {"type": json_type, "items": {"enum": labels} if are_few else {}}
    if are_few and json_type != "boolean":
        return {"type": json_type, "enum": labels}
    return voted_schema or {"type": json_type}


def _relaxed(schema: Schema) -> Schema:
    """The schema for rows that were not read yet: lists have any length, objects can have more fields, and a field that
    is always empty or null can have any value."""
    if {"const", "enum"} & schema.keys():
        return {}
    if {"const": ""} in schema.get("anyOf", ()):  # texts, some of them empty
        types = [part["type"] for part in schema["anyOf"] if "type" in part]
        return {"type": types if len(types) > 1 else types[0]}
    relaxed = {key: part for key, part in schema.items() if key not in ("minItems", "maxItems", "additionalProperties")}
    if "properties" in schema:
        relaxed["properties"] = {name: _relaxed(part) for name, part in schema["properties"].items()}
    if "items" in schema:
        relaxed["items"] = _relaxed(schema["items"])
    return relaxed
