"""A task format worked out from one JSON object.

Types, nesting and list lengths come from the values; roles from field names and from how the
values relate (an answer that is one of the options; an answer that is a span of the context).
What one example cannot say, a label set or a range, is told by the user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from datacreate.errors import ExampleError, UsageError
from datacreate.resources import shipped
from datacreate.tasks.example import Example, FieldPath, Json, field_at
from datacreate.tasks.format import Roles, Rule, TaskFormat, answer_text, bind, load_format, schema_at

_ANSWER = "label answer answers output target class category sentiment gold verdict stars rating score".split()
_QUESTION = "question query claim hypothesis statement text sentence review prompt instruction input problem".split()
_CONTEXT = "context passage premise document article paragraph story abstract background source".split()
_OPTIONS = "options choices candidates alternatives answers endings".split()
_YES_NO = ({"yes", "no"}, {"true", "false"}, {"yes", "no", "maybe"})


@dataclass(frozen=True)
class Understood:
    """An inferred format, and in a line or two what was understood."""

    format: TaskFormat
    notes: tuple[str, ...]


def understand(
    example: Example,
    format_name: str | None = None,
    labels: Mapping[str, str] | None = None,
    ranges: Mapping[str, str] | None = None,
) -> Understood:
    """The format of an example: the one named, else the first shipped one that fits, else an inferred one.

    `labels` maps dotted paths to comma-separated values, `ranges` to `low..high`. Raises
    ExampleError or FormatError if these, the format and the example contradict each other.
    """
    labels, ranges = labels or {}, ranges or {}
    if format_name is not None:
        if labels or ranges:
            raise UsageError("--labels and --range are for inferred formats; write them into the --format file")
        format = bind(load_format(format_name), example)
        return Understood(format, (_summary(format),))
    if not labels and not ranges:
        for path in sorted(shipped("schemas").glob("*.json")):
            try:
                format = bind(load_format(path.stem), example)
            except ExampleError:
                continue
            return Understood(format, (_summary(format),))
    return _infer(example, labels, ranges)


def _infer(example: Example, labels: Mapping[str, str], ranges: Mapping[str, str]) -> Understood:
    schema = _schema_of(example.values)
    told = [tuple(name.split(".")) for name in (*labels, *ranges)]
    for name, values in labels.items():
        _tell(schema, name, example, {"enum": _typed(values, example, name)})
    for name, bounds in ranges.items():
        _tell(schema, name, example, _range(bounds, example, name))
    roles = _roles_of(example.values, told)
    rules = set()
    if roles.answer and roles.answer not in told:
        _close_answer(schema, roles, example)
    if roles.options and roles.answer:
        rules = {Rule.ANSWER_IN_OPTIONS, Rule.OPTIONS_DIFFER}
    elif roles.context and roles.answer and _is_span(example.values, roles):
        rules = {Rule.ANSWER_IN_CONTEXT}
    format = bind(TaskFormat("inferred", schema, roles, frozenset(rules)), example)
    notes = [_summary(format)]
    if roles.answer and not format.labels and not format.head and not rules:
        name = ".".join(roles.answer)
        notes.append(f"{name} is free text; if it has a fixed set of values, say --labels {name}=a,b,c")
    return Understood(format, tuple(notes))


def _schema_of(value: Json) -> dict[str, Json]:
    if isinstance(value, Mapping):
        parts = {key: _schema_of(part) for key, part in value.items()}
        if not parts:
            return {"const": {}}
        return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}
    if isinstance(value, list):
        if not value:
            return {"const": []}  # an empty list does not say what it would hold
        kinds: list[dict[str, Json]] = []
        for kind in map(_schema_of, value):
            if kind not in kinds:
                kinds.append(kind)
        items = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        return {"type": "array", "items": items, "minItems": 1, "maxItems": max(3, 2 * len(value))}
    if value is None or value == "":
        return {"const": value}
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": names[type(value)]}


def _leaves(value: Json, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Json]]:
    """Every field that is not an object, with its path."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, (*path, key))
    else:
        yield path, value


def _roles_of(values: Mapping[str, Json], told: list[FieldPath]) -> Roles:
    fields = dict(_leaves(values))
    scalars = {path: v for path, v in fields.items() if v is not None and not isinstance(v, list)}
    texts = {path: v for path, v in scalars.items() if isinstance(v, str) and v}
    lists = {path: v for path, v in fields.items() if isinstance(v, list) and len(v) > 1}

    answer = told[0] if told else _named(scalars, _ANSWER)
    options = None
    for path in _by_name(lists, _OPTIONS):
        spelled = [answer_text(option).casefold() for option in lists[path] if not isinstance(option, dict | list)]
        member = next((p for p, v in scalars.items() if answer_text(v).casefold() in spelled), None)
        if answer is None or answer_text(field_at(values, answer)).casefold() in spelled:
            options, answer = (path, answer or member) if (answer or member) else (None, None)
            break
    if answer is None:
        booleans = [p for p, v in scalars.items() if isinstance(v, bool) or str(v).casefold() in {"yes", "no"}]
        answer = booleans[0] if len(booleans) == 1 else None
    if answer is not None and answer not in told and len(scalars) == 1 and isinstance(scalars.get(answer), str):
        answer = None  # a lone text is what is to be written, not an answer to anything
    texts.pop(answer or (), None)
    context = _named(texts, _CONTEXT)
    others = {path: v for path, v in texts.items() if path != context}
    question = _named(others, _QUESTION) or next(iter(others), None)
    if question is None:
        question, context = context, None
    return Roles(question, context, options, answer)


def _by_name(fields: Mapping[FieldPath, Json], names: list[str]) -> list[FieldPath]:
    """The paths, those with a known name first and in the order of the names."""
    rank = {name: i for i, name in enumerate(names)}
    return sorted(fields, key=lambda path: rank.get(path[-1].casefold(), len(names)))


def _named(fields: Mapping[FieldPath, Json], names: list[str]) -> FieldPath | None:
    paths = _by_name(fields, names)
    return paths[0] if paths and paths[0][-1].casefold() in names else None


def _is_span(values: Mapping[str, Json], roles: Roles) -> bool:
    answer, context = field_at(values, roles.answer or ()), field_at(values, roles.context or ())
    return isinstance(answer, str) and len(answer) < len(context) and answer in context


def _close_answer(schema: dict[str, Json], roles: Roles, example: Example) -> None:
    """Fix what yes/no answers and options can be; in place."""
    assert roles.answer  # the caller asked
    value = field_at(example.values, roles.answer)
    if roles.options:
        options = field_at(example.values, roles.options)
        spelled = {answer_text(option).casefold() for option in options}
        if spelled in _YES_NO or isinstance(value, bool):
            _replace(schema, roles.options, {"const": options})
            if isinstance(value, str):
                _replace(schema, roles.answer, {"enum": list(options)})
    elif isinstance(value, str):
        for words in (("yes", "no"), ("true", "false")):
            if value.casefold() in words:
                change = str.upper if value.isupper() else str.capitalize if value[0].isupper() else str.lower
                _replace(schema, roles.answer, {"enum": [change(word) for word in words]})


def _tell(schema: dict[str, Json], name: str, example: Example, said: dict[str, Json]) -> None:
    path = tuple(name.split("."))
    value = field_at(example.values, path)
    if ("enum" in said and value not in said["enum"]) or not said.get("minimum", value) <= value <= said.get(
        "maximum", value
    ):
        raise ExampleError(f"{name}: the example has {value!r}, which is not among the values given")
    _replace(schema, path, said)


def _replace(schema: dict[str, Json], path: FieldPath, said: dict[str, Json]) -> None:
    dict.__setitem__(schema_at(schema, path[:-1])["properties"], path[-1], said)


def _value_told(example: Example, name: str) -> Json:
    try:
        return field_at(example.values, tuple(name.split(".")))
    except (KeyError, TypeError):
        known = ", ".join(".".join(path) for path, _ in _leaves(example.values))
        raise UsageError(f"the example has no field {name!r}; it has {known}") from None


def _typed(values: str, example: Example, name: str) -> list[Json]:
    """Comma-separated values in the type that the example's field has."""
    kind = type(_value_told(example, name))
    parts = [part.strip() for part in values.split(",") if part.strip()]
    if len(set(parts)) < 2 or len(set(parts)) != len(parts):
        raise UsageError(f"--labels {name}={values}: give two or more different values, separated by commas")
    if kind is str:
        return list(parts)
    if kind is bool:
        return [part.casefold() == "true" for part in parts]
    try:
        return [kind(part) for part in parts]
    except (TypeError, ValueError):
        raise UsageError(f"--labels {name}={values}: the example's {name} is of type {kind.__name__}") from None


def _range(bounds: str, example: Example, name: str) -> dict[str, Json]:
    value = _value_told(example, name)
    low, dots, high = bounds.partition("..")
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UsageError(f"--range {name}={bounds}: the example's {name} is not a number")
    try:
        kind = int if isinstance(value, int) else float
        ends = kind(low), kind(high)
    except ValueError:
        raise UsageError(f"--range {name}={bounds}: write it as LOW..HIGH, e.g. --range {name}=1..5") from None
    if not dots or ends[0] >= ends[1]:
        raise UsageError(f"--range {name}={bounds}: the lower end must be below the upper one")
    return {"type": "integer" if kind is int else "number", "minimum": ends[0], "maximum": ends[1]}


def _summary(format: TaskFormat) -> str:
    parts = [f"{role} = {path}" for role, path in format.roles.named().items()]
    if format.labels:
        shown = ", ".join(answer_text(label) for label in format.labels)
        parts.append(f"labels {shown}")
    elif format.options_vary and format.roles.options:
        parts.append(f"{schema_at(format.schema, format.roles.options).get('minItems')} options an example")
    if Rule.ANSWER_IN_CONTEXT in format.rules:
        parts.append("the answer is a span of the context")
    said = "; ".join(parts) or "no question or answer field found; every text is new in each example"
    return f"format {format.name}: {said}"


