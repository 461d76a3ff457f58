"""Infers the task format from one example.

Types, nesting and list lengths come from the values. Roles come from field names and from relations between values:
an answer that is one of the options, or a span of the context. A label is only inferred from a top-level field with a
usual name. Fixed labels and ranges cannot be seen in one example, except yes/no: the user gives them with --labels and
--range.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from datacreate.errors import ExampleError, UsageError
from datacreate.formats.example import (
    Example,
    FieldPath,
    Json,
    dotted,
    field_at,
    find_unsupported_value,
    one_line,
    values_in,
)
from datacreate.formats.schema_utils import (
    MAX_LABELS,
    Schema,
    fixed_labels,
    is_constant,
    is_number,
    schema_at,
    with_field,
)
from datacreate.formats.task_format import Roles, Rule, TaskFormat, bind, is_span, load_format
from datacreate.formats.yes_no import are_yes_no, yes_no_labels
from datacreate.paths import shipped

_ANSWER_NAMES = (
    "label labels answer answers output target class category sentiment emotion stance intent gold verdict correct "
    "stars rating score response completion"
).split()
_QUESTION_NAMES = (
    "question query claim hypothesis statement text sentence review prompt instruction input problem".split()
)
_CONTEXT_NAMES = "context passage premise document article paragraph story abstract background source".split()
_OPTIONS_NAMES = "options choices candidates alternatives answers endings".split()


_PLACEHOLDERS = ("a", "b", "c")
"""Stand for labels that cannot be derived from the example."""

_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number"}


@dataclass(frozen=True)
class InferredFormat:
    """A bound format, and a line for the user about what was inferred and how to change it."""

    format: TaskFormat
    notes: tuple[str, ...]


def infer_format(
    example: Example,
    format_name: str | None = None,
    labels: Mapping[str, str] | None = None,
    ranges: Mapping[str, str] | None = None,
) -> InferredFormat:
    """The format of an example: the one named, or the first shipped one that fits, or an inferred one.

    `labels` maps dotted paths to comma-separated values, `ranges` maps them to `low..high`. Raises ExampleError,
    FormatError or UsageError if these, the format and the example contradict each other.
    """
    if message := find_unsupported_value(example.values):
        raise ExampleError(f"{message}; fix the example")
    labels, ranges = labels or {}, ranges or {}
    if format_name is not None:
        if labels or ranges:
            raise UsageError("--labels and --range are for inferred formats; write them into the --format")
        format = bind(load_format(format_name), example)
        return InferredFormat(format, (_summary(format),))
    overrides = _overrides(example, labels, ranges)
    for format in () if overrides else _shipped_formats():
        if not format.validator.is_valid(example.values):
            continue
        options = format.roles.options if format.options_vary else None
        if options and are_yes_no(field_at(example.values, options)):
            continue  # these are labels, not options of one example
        # If the example breaks a rule, this is an error: another format would hide the mistake.
        format = bind(format, example)
        return InferredFormat(format, (_summary(format),))
    return _infer(example, overrides)


def _overrides(
    example: Example, labels: Mapping[str, str], ranges: Mapping[str, str]
) -> dict[FieldPath, dict[str, Json]]:
    """The schema of each field with --labels or --range. Raises UsageError for an invalid value."""
    fields = {".".join(path): (path, value) for path, value in _leaves(example.values)}
    schemas: dict[FieldPath, dict[str, Json]] = {}
    for option, given in (("--labels", labels), ("--range", ranges)):
        for name, text in given.items():
            if name not in fields:
                known = ", ".join(dotted(path) for path, _ in fields.values())
                raise UsageError(f"{option} {name}: the example has no such field; it has {known}")
            path, value = fields[name]
            if type(value) not in _TYPES:
                kind = "null" if value is None else "a list"
                raise UsageError(f"{option} {name}: the example has {kind} there; put a value there")
            if path in schemas:
                raise UsageError(f"{name} has both --labels and --range; give one of them")
            read = _labels if option == "--labels" else _range
            keywords = read(text, type(value), f"{option} {name}={text}")
            schemas[path] = {"type": _TYPES[type(value)], **keywords}
    return schemas


def _labels(text: str, kind: type, given: str) -> dict[str, Json]:
    labels = [_convert(part.strip(), kind, given) for part in text.split(",") if part.strip()]
    if len(set(labels)) < max(2, len(labels)):
        raise UsageError(f"{given}: give two or more different values, separated by commas")
    return {"enum": labels}


def _range(text: str, kind: type, given: str) -> dict[str, Json]:
    low, dots, high = text.partition("..")
    if kind not in (int, float) or not dots:
        problem = "write LOW..HIGH" if kind in (int, float) else "the example's value is not a number"
        raise UsageError(f"{given}: {problem}")
    bounds = _convert(low, kind, given), _convert(high, kind, given)
    if bounds[0] >= bounds[1]:
        raise UsageError(f"{given}: LOW must be less than HIGH")
    return {"minimum": bounds[0], "maximum": bounds[1]}


def _convert(text: str, kind: type, given: str) -> Json:
    """A value from the command line in the type of the example's value."""
    try:
        value = ("false", "true").index(text.casefold()) == 1 if kind is bool else kind(text)
        if kind is not float or math.isfinite(value):
            return value
    except ValueError:
        pass
    raise UsageError(f"{given}: {text!r} is not of the type that the example has, {_TYPES[kind]}")


@cache
def _shipped_formats() -> tuple[TaskFormat, ...]:
    return tuple(load_format(path.stem) for path in sorted(shipped("schemas").glob("*.json")))


def _infer(example: Example, overrides: Mapping[FieldPath, dict[str, Json]]) -> InferredFormat:
    schema: Schema = _infer_schema(example.values)
    if is_constant(schema) or not example.values:
        raise ExampleError("the example has no field that can vary: all are null or empty; fill one in")
    for path, override in overrides.items():
        schema = with_field(schema, path, override)
    roles = _infer_roles(example.values, list(overrides))
    if roles.answer:
        schema = _with_labels(schema, roles, example, overrides)
    format = TaskFormat("inferred", schema, roles)
    rules: set[Rule] = set()
    if roles.options and roles.answer:
        rules = {Rule.ANSWER_IN_OPTIONS, Rule.OPTIONS_DIFFER}
    elif roles.context and roles.answer and not format.labels:
        answer, context = field_at(example.values, roles.answer), field_at(example.values, roles.context)
        if isinstance(answer, str) and is_span(answer, context):
            rules = {Rule.ANSWER_IN_CONTEXT}
    format = bind(TaskFormat("inferred", schema, roles, frozenset(rules)), example)
    advice = "" if overrides or rules or format.head == "multiple_choice" else _advice(format, example)
    notes = [_summary(format) + advice]
    others = [dotted(path) for path in overrides if path != roles.answer]
    if roles.answer and roles.answer in overrides and others:
        notes.append(
            f"only the answer, {dotted(roles.answer)}, is balanced and verified, not {', '.join(others)}"
        )
    if roles.answer and roles.answer in overrides and not format.labels:
        notes.append(
            f"{dotted(roles.answer)} has no fixed labels: a range is one only with at most {MAX_LABELS} whole numbers"
        )
    return InferredFormat(format, tuple(notes))


def _advice(format: TaskFormat, example: Example) -> str:
    """How to change what was inferred about the label."""
    answer = format.roles.answer
    if answer is not None:
        value = field_at(example.values, answer)
        if format.labels:
            return "" if isinstance(value, bool) else f"; for other labels add {_option(answer, value)}"
        return f"; if {dotted(answer)} has a fixed set of values, add {_option(answer, value)}"
    scalars = {path: value for path, value in _leaves(example.values) if isinstance(value, str | int | float)}
    for path, value in scalars.items():
        if _is_yes_no(value):
            texts = [text for text in scalars.values() if isinstance(text, str)]
            labels = yes_no_labels(value, texts) if isinstance(value, str) else None
            return f"; if {dotted(path)} is a label, add {_option(path, value, labels or _PLACEHOLDERS)}"
    return "; for a field with fixed values add --labels FIELD=a,b,c" if len(scalars) > 1 else ""


def _option(path: FieldPath, value: Json, labels: Sequence[str] = _PLACEHOLDERS) -> str:
    """The option that makes a field a label, for a message; a text may have these `labels`."""
    name = dotted(path)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 5:
        return f"--range {name}=1..5"
    numbers = f"{value},{value + 1}" if is_number(value) else ",".join(labels)
    return f"--labels {name}={'true,false' if isinstance(value, bool) else numbers}"


def _infer_schema(value: Json) -> dict[str, Json]:
    if isinstance(value, Mapping):
        parts = {key: _infer_schema(part) for key, part in value.items()}
        if not parts:
            return {"const": {}}
        return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}
    if isinstance(value, list):
        kinds: list[dict[str, Json]] = []
        for kind in map(_infer_schema, value):
            if kind not in kinds:
                kinds.append(kind)
        if all(map(is_constant, kinds)):
            return {"const": value}  # empty items do not show a type
        if {"type": "string"} in kinds and {"const": ""} in kinds:
            kinds.remove({"const": ""})
        items = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        return {"type": "array", "items": items, "minItems": 1, "maxItems": max(3, 2 * len(value))}
    if value is None or value == "":
        return {"const": value}
    return {"type": _TYPES[type(value)]}


def _leaves(value: Json, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Json]]:
    """Every field that is not an object, with its path."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, (*path, key))
    else:
        yield path, value


def _infer_roles(values: Mapping[str, Json], overridden: list[FieldPath]) -> Roles:
    fields = dict(_leaves(values))
    scalars = {path: v for path, v in fields.items() if v not in (None, "") and not isinstance(v, list)}
    texts = {path: v for path, v in scalars.items() if isinstance(v, str)}
    lists = {path: v for path, v in fields.items() if isinstance(v, list) and len(v) > 1}

    answer: FieldPath | None
    if overridden:
        answer = _find_named(overridden, _ANSWER_NAMES) or overridden[0]
    else:
        # Inside an object a boolean or a yes/no text can mean anything: it would be assigned and verified as the label.
        candidates = [path for path, value in scalars.items() if len(path) == 1 or not _is_yes_no(value)]
        answer = _find_named(candidates, _ANSWER_NAMES)
    options, answer = _infer_options(lists, scalars, answer)
    only_text = len(scalars) == 1 and isinstance(scalars.get(answer or ()), str)
    if answer not in overridden and only_text:
        answer = None  # a single text is what the model writes, not an answer to something
    texts.pop(answer or (), None)
    context = _find_named(texts, _CONTEXT_NAMES)
    others = {path: v for path, v in texts.items() if path != context}
    question = _find_named(others, _QUESTION_NAMES) or next(iter(others), None)
    if question is None:
        question, context = context, None
    return Roles(question, context, options, answer)


def _is_yes_no(value: Json) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and yes_no_labels(value, ()) is not None)


def _infer_options(
    lists: Mapping[FieldPath, list[Json]], scalars: Mapping[FieldPath, Json], answer: FieldPath | None
) -> tuple[FieldPath | None, FieldPath | None]:
    """The fields of the options and of the answer: a list that contains the answer.

    Raises ExampleError if a list is named like options but lacks the answer.
    """
    for path in _sort_by_name(lists, _OPTIONS_NAMES):
        values, named = lists[path], path[-1].casefold() in _OPTIONS_NAMES
        texts = [str(v).casefold() for v in values if not isinstance(v, dict | list)]
        answers = [answer] if answer else list(scalars)
        found = next((p for p in answers if str(scalars[p]).casefold() in texts), None)
        if found and (named or (len(set(texts)) == len(values) and all(isinstance(v, str) for v in values))):
            return path, found
        given = scalars[answer] if answer else None
        # 2 and "B" are positions in the list.
        if named and not found and isinstance(given, str) and len(given) > 1 and not given.isdigit():
            raise ExampleError(
                f"{dotted(answer or ())}: {given!r} is not among {dotted(path)}; fix the example"
            )
    return None, answer


def _sort_by_name(fields: Iterable[FieldPath], names: list[str]) -> list[FieldPath]:
    """The paths, those with a known name first, in the order of the names."""
    rank = {name: i for i, name in enumerate(names)}
    return sorted(fields, key=lambda path: rank.get(path[-1].casefold(), len(names)))


def _find_named(fields: Iterable[FieldPath], names: list[str]) -> FieldPath | None:
    paths = _sort_by_name(fields, names)
    return paths[0] if paths and paths[0][-1].casefold() in names else None


def _with_labels(
    schema: Schema, roles: Roles, example: Example, overrides: Mapping[FieldPath, dict[str, Json]]
) -> Schema:
    """The schema with the enumeration of a yes/no answer, and of options that are the labels."""
    assert roles.answer is not None, "the caller checks it"
    value, own = field_at(example.values, roles.answer), schema_at(schema, roles.answer)
    given = roles.answer in overrides
    if roles.options:
        options = field_at(example.values, roles.options)
        texts = {str(option).casefold() for option in options}
        are_labels = texts == {str(label).casefold() for label in fixed_labels(own) or ()}
        if are_labels or are_yes_no(texts) or isinstance(value, bool):
            schema = with_field(schema, roles.options, {"const": options})
            if not given and value in options:
                schema = with_field(schema, roles.answer, {**own, "enum": list(options)})
    elif isinstance(value, str) and not given and len(roles.answer) == 1:
        pair = yes_no_labels(value, values_in(example.values))
        if pair:
            schema = with_field(schema, roles.answer, {**own, "enum": list(pair)})
    return schema


def _summary(format: TaskFormat) -> str:
    parts = [f"{role} = {path}" for role, path in format.roles.named().items()]
    if format.roles.question and format.other_inputs:
        parts.append(f"other inputs {', '.join(map(one_line, format.other_inputs))}")
    if format.labels:
        parts.append(f"labels {', '.join(one_line(str(label)) for label in format.labels)}")
    elif format.options_vary and format.roles.options:
        number = schema_at(format.schema, format.roles.options).get("minItems")
        parts.append(f"{number} options per example")
    if Rule.ANSWER_IN_CONTEXT in format.rules:
        parts.append("the answer is a span of the context")
    summary = "; ".join(parts) or "no question or answer field found; every text is new in each example"
    return f"format {format.name}: {summary}"
