"""A task format worked out from one JSON object.

Types, nesting and list lengths come from the values; roles from field names and from how the
values relate (an answer that is one of the options; an answer that is a span of the context).
What one example cannot say, a label set or a range, is told by the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from datacreate.errors import ExampleError, UsageError
from datacreate.formats.example import Example, FieldPath, Json, dotted, field_at, flaw_in, one_line
from datacreate.formats.field_overrides import leaves, schemas_told
from datacreate.formats.roles import Roles, Rule, answer_text
from datacreate.formats.schema_utils import fixed_labels, is_constant, schema_at
from datacreate.formats.task_format import TaskFormat, bind, load_format
from datacreate.paths import shipped

_ANSWER = (
    "label answer answers output target class category sentiment gold verdict stars rating score".split()
)
_QUESTION = (
    "question query claim hypothesis statement text sentence review prompt instruction input problem".split()
)
_CONTEXT = "context passage premise document article paragraph story abstract background source".split()
_OPTIONS = "options choices candidates alternatives answers endings".split()
_YES_NO = ({"yes", "no"}, {"true", "false"}, {"yes", "no", "maybe"})


@dataclass(frozen=True)
class InferredFormat:
    """An inferred format, and in a line or two what was understood."""

    format: TaskFormat
    notes: tuple[str, ...]


def infer_format(
    example: Example,
    format_name: str | None = None,
    labels: Mapping[str, str] | None = None,
    ranges: Mapping[str, str] | None = None,
) -> InferredFormat:
    """The format of an example: the one named, else the first shipped one that fits, else an inferred one.

    `labels` maps dotted paths to comma-separated values, `ranges` to `low..high`. Raises
    ExampleError or FormatError if these, the format and the example contradict each other.
    """
    if flaw := flaw_in(example.values):
        raise ExampleError(f"{flaw}; fix the example")
    labels, ranges = labels or {}, ranges or {}
    if format_name is not None:
        if labels or ranges:
            raise UsageError(
                "--labels and --range are for inferred formats; write them into the --format file"
            )
        format = bind(load_format(format_name), example)
        return InferredFormat(format, (_summary(format),))
    told = schemas_told(example, labels, ranges)
    shipped_format = None if told else _shipped_format(example)
    if shipped_format is not None:
        return InferredFormat(shipped_format, (_summary(shipped_format),))
    return _infer(example, told)


def _shipped_format(example: Example) -> TaskFormat | None:
    """The first shipped format whose fields the example has, bound.

    An example that has the fields but breaks a rule is wrong: ExampleError, rather than a format
    in which, say, the answer need not be among the options.
    """
    for format in _shipped_formats():
        if format.validator.is_valid(example.values):
            return bind(format, example)
    return None


@cache
def _shipped_formats() -> tuple[TaskFormat, ...]:
    return tuple(load_format(path.stem) for path in sorted(shipped("schemas").glob("*.json")))


def _infer(example: Example, told: Mapping[FieldPath, dict[str, Json]]) -> InferredFormat:
    schema = _schema_of(example.values)
    if is_constant(schema) or not example.values:
        raise ExampleError("the example has no field that can vary: all are null or empty; fill one in")
    for path, said in told.items():
        _replace(schema, path, said)
    roles = _roles_of(example.values, list(told))
    if roles.answer:
        _close(schema, roles, example, told)
    format = TaskFormat("inferred", schema, roles)
    rules: set[Rule] = set()
    if roles.options and roles.answer:
        rules = {Rule.ANSWER_IN_OPTIONS, Rule.OPTIONS_DIFFER}
    elif roles.context and roles.answer and not format.labels and _is_span(example.values, roles):
        rules = {Rule.ANSWER_IN_CONTEXT}
    format = bind(TaskFormat("inferred", schema, roles, frozenset(rules)), example)
    notes = [_summary(format)]
    if roles.answer and not format.labels and not format.head and not rules:
        name = dotted(roles.answer)
        kind = "a number" if isinstance(field_at(example.values, roles.answer), int | float) else "free text"
        how = f"--range {name}=1..5" if kind == "a number" else f"--labels {name}=a,b,c"
        notes.append(f"{name} is {kind}; if it has a fixed set of values, say {how}")
    return InferredFormat(format, tuple(notes))


def _schema_of(value: Json) -> dict[str, Json]:
    if isinstance(value, Mapping):
        parts = {key: _schema_of(part) for key, part in value.items()}
        if not parts:
            return {"const": {}}
        return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}
    if isinstance(value, list):
        kinds: list[dict[str, Json]] = []
        for kind in map(_schema_of, value):
            if kind not in kinds:
                kinds.append(kind)
        if all(map(is_constant, kinds)):
            return {"const": value}  # a list of nothing does not say what it would hold
        if {"type": "string"} in kinds and {"const": ""} in kinds:
            kinds.remove({"const": ""})
        items = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        return {"type": "array", "items": items, "minItems": 1, "maxItems": max(3, 2 * len(value))}
    if value is None or value == "":
        return {"const": value}
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": names[type(value)]}


def _roles_of(values: Mapping[str, Json], told: list[FieldPath]) -> Roles:
    fields = dict(leaves(values))
    scalars = {path: v for path, v in fields.items() if v not in (None, "") and not isinstance(v, list)}
    texts = {path: v for path, v in scalars.items() if isinstance(v, str)}
    lists = {path: v for path, v in fields.items() if isinstance(v, list) and len(v) > 1}

    answer = _named(told, _ANSWER) or told[0] if told else _named(scalars, _ANSWER)
    options = None
    for path in _by_name(lists, _OPTIONS):
        answers = [answer] if answer else list(scalars)
        spelled = [answer_text(v).casefold() for v in lists[path] if not isinstance(v, dict | list)]
        found = next((p for p in answers if answer_text(scalars[p]).casefold() in spelled), None)
        named = path[-1].casefold() in _OPTIONS
        alike = len(set(spelled)) == len(lists[path]) and all(isinstance(v, str) for v in lists[path])
        if found and (named or alike):
            options, answer = path, found
            break
        if answer and named and not found and _is_whole_answer(scalars[answer]):
            raise ExampleError(
                f"{dotted(answer)}: {scalars[answer]!r} is not among {dotted(path)}; fix the example"
            )
    if answer is None:
        booleans = [
            p for p, v in scalars.items() if isinstance(v, bool) or str(v).casefold() in {"yes", "no"}
        ]
        answer = booleans[0] if len(booleans) == 1 else None
    if (
        answer is not None
        and answer not in told
        and len(scalars) == 1
        and isinstance(scalars.get(answer), str)
    ):
        answer = None  # a lone text is what is to be written, not an answer to anything
    texts.pop(answer or (), None)
    context = _named(texts, _CONTEXT)
    others = {path: v for path, v in texts.items() if path != context}
    question = _named(others, _QUESTION) or next(iter(others), None)
    if question is None:
        question, context = context, None
    return Roles(question, context, options, answer)


def _is_whole_answer(value: Json) -> bool:
    """Whether an answer spells an option out: 2 and "B" are places in the list of options."""
    return isinstance(value, str) and len(value) > 1 and not value.isdigit()


def _by_name(fields: Iterable[FieldPath], names: list[str]) -> list[FieldPath]:
    """The paths, those with a known name first and in the order of the names."""
    rank = {name: i for i, name in enumerate(names)}
    return sorted(fields, key=lambda path: rank.get(path[-1].casefold(), len(names)))


def _named(fields: Iterable[FieldPath], names: list[str]) -> FieldPath | None:
    paths = _by_name(fields, names)
    return paths[0] if paths and paths[0][-1].casefold() in names else None


def _is_span(values: Mapping[str, Json], roles: Roles) -> bool:
    answer, context = field_at(values, roles.answer or ()), field_at(values, roles.context or ())
    return isinstance(answer, str) and len(answer) < len(context) and answer in context


def _close(
    schema: dict[str, Json], roles: Roles, example: Example, told: Mapping[FieldPath, dict[str, Json]]
) -> None:
    """Fix what a yes/no answer, and options that are the label set, can be; in place."""
    assert roles.answer is not None  # the caller asked
    value = field_at(example.values, roles.answer)
    if roles.options:
        options = field_at(example.values, roles.options)
        spelled = {answer_text(option).casefold() for option in options}
        labels = fixed_labels(schema_at(schema, roles.answer)) or ()
        closed = spelled == {answer_text(label).casefold() for label in labels}
        if closed or spelled in _YES_NO or isinstance(value, bool):
            _replace(schema, roles.options, {"const": options})
            if roles.answer not in told and value in options:
                _replace(schema, roles.answer, {**schema_at(schema, roles.answer), "enum": list(options)})
    elif isinstance(value, str) and roles.answer not in told:
        for words in (("yes", "no"), ("true", "false")):
            for change in (str.lower, str.capitalize, str.upper):
                if value in map(change, words):
                    _replace(schema, roles.answer, {"type": "string", "enum": list(map(change, words))})
                    return


def _replace(schema: dict[str, Json], path: FieldPath, said: dict[str, Json]) -> None:
    dict.__setitem__(schema_at(schema, path[:-1])["properties"], path[-1], said)


def _summary(format: TaskFormat) -> str:
    parts = [f"{role} = {path}" for role, path in format.roles.named().items()]
    if format.labels:
        shown = ", ".join(one_line(answer_text(label)) for label in format.labels)
        parts.append(f"labels {shown}")
    elif format.options_vary and format.roles.options:
        parts.append(f"{schema_at(format.schema, format.roles.options).get('minItems')} options an example")
    if Rule.ANSWER_IN_CONTEXT in format.rules:
        parts.append("the answer is a span of the context")
    said = "; ".join(parts) or "no question or answer field found; every text is new in each example"
    return f"format {format.name}: {said}"
