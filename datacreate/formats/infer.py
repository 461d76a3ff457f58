"""Infers the task format from one example.

Types, nesting and list lengths come from the values. Roles come from field names and from relations between values:
an answer that is one of the options, or a span of the context. All other texts are inputs. A label is only inferred
from a top-level field with a usual name. Fixed labels and ranges cannot be seen in one example, except yes/no: the user
gives them with --labels and --range.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from datacreate.errors import ExampleError, UsageError
from datacreate.formats.answers import FIRST_CODES, codes, first_code
from datacreate.formats.example import (
    JSON_TYPES,
    Example,
    FieldPath,
    Json,
    canonical_json,
    dotted,
    field_at,
    find_unsupported_value,
    one_line,
    value_at,
    values_in,
)
from datacreate.formats.options import FormatOptions
from datacreate.formats.overrides import field_overrides, leaves_of, named_field
from datacreate.formats.roles import Roles
from datacreate.formats.rules import Rule, find_span
from datacreate.formats.schema_utils import (
    MAX_LABELS,
    Schema,
    fixed_labels,
    is_constant,
    is_number,
    leaves,
    schema_at,
    with_field,
)
from datacreate.formats.task_format import (
    TaskFormat,
    bind,
    default_inputs,
    find_first_code,
    load_format,
)
from datacreate.formats.yes_no import are_yes_no, yes_no_labels
from datacreate.paths import shipped

_ANSWER_NAMES = (
    "label labels answer answers output target class category sentiment emotion stance intent gold verdict correct "
    "stars rating score response completion summary translation answerkey answer_key "
    "答案 标签 回答 antwort respuesta etiqueta réponse étiquette resposta ответ метка"
).split()
_CONTEXT_NAMES = (
    "context passage premise document article paragraph story abstract background 上下文 文章 kontext contexto contexte"
).split()
_OPTIONS_NAMES = (
    "options choices candidates alternatives answers endings 选项 optionen opciones opções варианты"
).split()
_METADATA_NAMES = "id _id idx uid uuid guid qid url source meta metadata license split dataset".split()

_LONGEST_METADATA = 200
"""A longer text is content, whatever its name."""

_NLI = ("entailment", "neutral", "contradiction")

_PLACEHOLDERS = ("a", "b", "c")
"""Stand for labels that cannot be derived from the example."""


@dataclass(frozen=True)
class InferredFormat:
    """A bound format, and a line for the user about what was inferred and how to change it."""

    format: TaskFormat
    notes: tuple[str, ...]


def infer_format(
    example: Example, options: FormatOptions | None = None, rows: Sequence[Mapping[str, Json]] = ()
) -> InferredFormat:
    """The format of an example: the one named, or the first shipped one that fits, or an inferred one.

    `rows` of the same data show whether an answer that is a position counts from 0 or from 1.
    Raises ExampleError, FormatError or UsageError if the options, the format and the example contradict each other.
    """
    if message := find_unsupported_value(example.values):
        raise ExampleError(f"{message}; fix the example")
    options = options or FormatOptions()
    about_fields = {name for name in FormatOptions.model_fields if name != "format"}
    if options.format is not None:
        if flag := options.changed(about_fields - {"turns"}):
            raise UsageError(f"{flag} is for inferred formats; write it into the --format")
        format = bind(load_format(options.format), example, options.turns)
        return InferredFormat(format, (_summary(format),))
    for shipped_format in _shipped_formats():
        unknown = (name for name in example.values if name not in shipped_format.schema["properties"])
        metadata = tuple((name,) for name in unknown if _is_metadata(name, example.values))
        format = with_ignored(shipped_format, metadata)
        taken = (
            {"labels", "label", "ranges"} if format.roles.tags else {"turns"} if format.roles.turns else set()
        )
        if options.changed(about_fields - taken) or not _fits(format, example.values):
            continue
        # If the example breaks a rule, this is an error: another format would hide the mistake.
        format = bind(_with_tag_sets(format, example, options), example, options.turns)
        return InferredFormat(format, (_summary(format),))
    if options.turns:
        raise UsageError("--turns: the example is not a conversation of user and assistant; remove --turns")
    return _infer(example, options, rows)


def with_ignored(format: TaskFormat, paths: Iterable[FieldPath]) -> TaskFormat:
    """The format with more fields at the top level, of any type, that nothing uses."""
    for path in paths:
        roles = replace(format.roles, ignored=(*format.roles.ignored, path))
        format = replace(format, schema=with_field(format.schema, path, {}), roles=roles)
    return format


def _fits(format: TaskFormat, values: Mapping[str, Json]) -> bool:
    """Whether a shipped format is meant for the example."""
    if not format.validator.is_valid(values):
        return False
    if format.roles.tags:
        return any(value_at(values, path) for path in format.roles.tags)
    listed = format.roles.options if format.options_vary else None
    # Yes and no are labels, not options of one example.
    return not (listed and are_yes_no(field_at(values, listed)))


def _with_tag_sets(format: TaskFormat, example: Example, options: FormatOptions) -> TaskFormat:
    """The format with the tags that the user declares. Raises ExampleError for a field of tags without."""
    if not format.roles.tags:
        return format
    given = field_overrides(example, options)
    for path in format.roles.tags:
        if path in given:
            format = replace(format, schema=with_field(format.schema, path, given[path]))
        elif tags := value_at(example.values, path):
            name = dotted(path)
            wanted = f"--labels {name}=O,B-PER,..." if isinstance(tags[0], str) else f"--range {name}=0..N"
            raise ExampleError(f"{name}: one example does not show which tags there are; add {wanted}")
    return format


@cache
def _shipped_formats() -> tuple[TaskFormat, ...]:
    return tuple(load_format(path.stem) for path in sorted(shipped("schemas").glob("*.json")))


def _infer(example: Example, options: FormatOptions, rows: Sequence[Mapping[str, Json]]) -> InferredFormat:
    overrides = field_overrides(example, options)
    schema: Schema = _infer_schema(example.values)
    if is_constant(schema) or not example.values:
        raise ExampleError("the example has no field that can vary: all are null or empty; fill one in")
    for path, override in overrides.items():
        schema = with_field(schema, path, override)
    roles = _infer_roles(example, options, list(overrides))
    advice = ""
    if roles.answer and roles.options and not roles.keys and roles.answer not in overrides:
        schema, advice = _with_codes(schema, roles, example, rows)
    if roles.answer and roles.answer_start:
        listed = {"minItems": 1, "maxItems": 1}
        own = schema_at(schema, roles.answer)
        schema = with_field(schema, roles.answer, {**own, **listed} if "items" in own else own)
    roles = replace(roles, inputs=roles.inputs or default_inputs(schema, roles))
    if roles.answer in overrides and "items" in schema_at(schema, roles.answer):
        own = schema_at(schema, roles.answer)
        lengths = {"minItems": 1, "maxItems": len(own["items"].get("enum", own)), "uniqueItems": True}
        schema = with_field(schema, roles.answer, {**own, **lengths})  # each of several labels once
    if roles.answer:
        schema = _with_labels(schema, roles, example, overrides)
    format = TaskFormat("inferred", schema, roles, first_code=find_first_code(schema, roles))
    rules: set[Rule] = set()
    if roles.options and roles.answer:
        rules = {Rule.ANSWER_IN_OPTIONS, Rule.OPTIONS_DIFFER}
    elif roles.context and roles.answer and not format.labels:
        answer, context = value_at(example.values, roles.answer), value_at(example.values, roles.context)
        is_span = isinstance(answer, str) and find_span(answer, context) is not None
        if is_span or roles.answer_start:
            rules = {Rule.ANSWER_IN_CONTEXT}
    format = bind(replace(format, rules=frozenset(rules)), example)
    if not (advice or overrides or rules or format.head == "multiple_choice"):
        advice = _advice(format, example)
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


def _with_codes(
    schema: Schema, roles: Roles, example: Example, rows: Sequence[Mapping[str, Json]]
) -> tuple[Schema, str]:
    """The schema with the positions or letters that the answer can have, and a remark if one example leaves it open.

    An answer that is itself an option leaves the schema as it is.
    """
    answer, options = value_at(example.values, roles.answer), value_at(example.values, roles.options)
    number = len(options)
    if str(answer).casefold() in [str(option).casefold() for option in options]:
        return schema, ""
    fitting = [first for first in FIRST_CODES if _is_code(answer, first, number)]
    for row in rows:
        listed = value_at(row, roles.options)
        size = len(listed) if isinstance(listed, list) else number
        narrower = [first for first in fitting if _is_code(value_at(row, roles.answer), first, size)]
        fitting = narrower or fitting
    if not fitting:
        return schema, ""
    first, path = fitting[0], roles.answer or ()
    name, schema = dotted(path), with_field(schema, path, {"enum": codes(first, number)})
    if len(fitting) == 1:
        return schema, ""
    right, others = codes(first, number).index(answer), ",".join(map(str, codes(fitting[1], number)))
    return schema, (
        f"; {name} {answer} is taken for {one_line(str(options[right]))!r}, counted from 0; "
        f"if it counts from 1, add --labels {name}={others}"
    )


def _is_code(answer: Json, first: Json, number: int) -> bool:
    return type(answer) is type(first) and answer in codes(first, number)


def _advice(format: TaskFormat, example: Example) -> str:
    """How to change what was inferred about the label."""
    answer = format.roles.answer
    if answer is not None:
        value = field_at(example.values, answer)
        if format.labels:
            return "" if isinstance(value, bool) else f"; for other labels add {_option(answer, value)}"
        return f"; if {dotted(answer)} has a fixed set of values, add {_option(answer, value)}"
    scalars = {
        path: value for path, value in leaves_of(example.values) if isinstance(value, str | int | float)
    }
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
    return {"type": JSON_TYPES[type(value)]}


def _infer_roles(example: Example, options: FormatOptions, overridden: list[FieldPath]) -> Roles:
    """The roles but for the inputs that the user leaves open."""
    values = example.values
    inputs = tuple(named_field(example, name, "--inputs") for name in options.inputs)
    ignored = tuple(named_field(example, name, "--ignore") for name in options.ignore)
    named_answer = named_field(example, options.answer, "--answer") if options.answer else None
    named_options = named_field(example, options.options, "--options") if options.options else None
    fields = {path: v for path, v in leaves_of(values) if path not in (*inputs, *ignored)}
    scalars = {path: v for path, v in fields.items() if v not in (None, "") and not isinstance(v, list)}
    lists = {path: v for path, v in fields.items() if isinstance(v, list) and len(v) > 1}
    if named_options:
        lists = {path: v for path, v in lists.items() if path == named_options}

    answer: FieldPath | None
    if named_answer or overridden:
        answer = named_answer or _find_named(overridden, _ANSWER_NAMES) or overridden[0]
    else:
        # Inside an object a boolean or a yes/no text can mean anything: it would be assigned and verified as the label.
        candidates = [path for path, value in scalars.items() if len(path) == 1 or not _is_yes_no(value)]
        answer = _find_named(candidates, _ANSWER_NAMES)
    if answer is None and scalars:
        answer = _find_named((path for path, v in fields.items() if isinstance(v, list) and v), _ANSWER_NAMES)
    span = None if named_answer or overridden else _find_answer_start(fields)
    found: FieldPath | None = None
    keys: FieldPath | None = None
    if span:
        answer = span[0]
    else:
        found, keys, answer = _infer_options(lists, scalars, answer, named_options)
    only_text = len(scalars) == 1 and isinstance(scalars.get(answer or ()), str)
    if not (named_answer or answer in overridden or inputs) and only_text:
        answer = None  # a single text is what the model writes, not an answer to something
    texts = [path for path, v in scalars.items() if isinstance(v, str) and path != answer]
    others = [path for path in scalars if path != answer and not _is_metadata(path[0], values)]
    if not options.inputs and not options.ignore and others:
        roles = {path[0] for path in (answer, found, *overridden) if path}
        ignored = tuple((name,) for name in values if name not in roles and _is_metadata(name, values))
    candidates = list(inputs or (path for path in texts if path[:1] not in ignored))
    context = _find_named(candidates, _CONTEXT_NAMES) if len(candidates) > 1 else None
    start, context = (span[1], span[2]) if span else (None, context)
    return Roles(inputs, context, named_options or found, keys, answer, start, ignored=ignored)


def _find_answer_start(fields: Mapping[FieldPath, Json]) -> tuple[FieldPath, FieldPath, FieldPath] | None:
    """The fields of an extractive answer, of where it starts, and of its context, as in SQuAD."""
    for path, at in fields.items():
        starts = at if isinstance(at, list) else [at]
        if path[-1] != "answer_start" or not all(isinstance(start, int) for start in starts):
            continue
        for answer, value in fields.items():
            texts = value if isinstance(value, list) else [value]
            if answer == path or answer[:-1] != path[:-1] or len(texts) != len(starts) or not texts:
                continue
            for context, text in fields.items():
                pairs = zip(texts, starts, strict=True)
                if (
                    isinstance(text, str)
                    and context != answer
                    and all(
                        isinstance(part, str) and part and text[begin : begin + len(part)] == part
                        for part, begin in pairs
                    )
                ):
                    return answer, path, context
    return None


def _is_metadata(name: str, values: Mapping[str, Json]) -> bool:
    """Whether a field at the top level says where an example comes from, not what it is about."""
    if name == "source" and not values.keys().isdisjoint(("target", "summary", "translation")):
        return False
    named = name.casefold() in _METADATA_NAMES or name.casefold().endswith("_id")
    return named and len(canonical_json(values[name])) <= _LONGEST_METADATA


def _is_yes_no(value: Json) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and yes_no_labels(value, ()) is not None)


def _infer_options(
    lists: Mapping[FieldPath, list[Json]],
    scalars: Mapping[FieldPath, Json],
    answer: FieldPath | None,
    given: FieldPath | None,
) -> tuple[FieldPath | None, FieldPath | None, FieldPath | None]:
    """The fields of the options, of their keys and of the answer: a list that contains the answer, or a position.

    Raises ExampleError if a list is named like options but lacks the answer.
    """
    answers = [answer] if answer else list(scalars)
    ordered = _sort_by_name(lists, _OPTIONS_NAMES)
    for path in ordered:
        beside = [keys for keys in lists if _are_keys(lists, keys, path)]
        found = [(p, keys) for keys in beside for p in answers if scalars.get(p) in lists[keys]]
        if found and first_code(lists[path]) is None:
            return path, found[0][1], found[0][0]
    for path in ordered:
        values, named = lists[path], path == given or path[-1].casefold() in _OPTIONS_NAMES
        texts = [str(v).casefold() for v in values if not isinstance(v, dict | list)]
        by_value = next((p for p in answers if p in scalars and str(scalars[p]).casefold() in texts), None)
        if by_value and (
            named or (len(set(texts)) == len(values) and all(isinstance(v, str) for v in values))
        ):
            return path, None, by_value
        value = scalars.get(answer) if answer else None
        if named and any(_is_code(value, first, len(values)) for first in FIRST_CODES):
            return path, None, answer
        if named and not by_value and isinstance(value, str) and len(value) > 1 and not value.isdigit():
            raise ExampleError(
                f"{dotted(answer or ())}: {value!r} is not among {dotted(path)}; fix the example"
            )
    return None, None, answer


def _are_keys(lists: Mapping[FieldPath, list[Json]], keys: FieldPath, options: FieldPath) -> bool:
    """Whether a list holds letters or numbers of the options beside it."""
    same_place = keys != options and keys[:-1] == options[:-1] and len(lists[keys]) == len(lists[options])
    return same_place and first_code(lists[keys]) is not None


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
        known = yes_no_labels(value, values_in(example.values)) or _nli_labels(value, roles.inputs)
        if known:
            schema = with_field(schema, roles.answer, {**own, "enum": list(known)})
    return schema


def _nli_labels(value: str, inputs: Sequence[FieldPath]) -> tuple[str, ...] | None:
    """The labels of natural language inference in the case of `value`; None if it is something else."""
    if value.lower() == "neutral" and not any(path[-1] in ("premise", "hypothesis") for path in inputs):
        return None  # a sentiment, perhaps
    cases = (tuple(map(change, _NLI)) for change in (str.lower, str.capitalize, str.upper))
    return next((labels for labels in cases if value in labels), None)


def _summary(format: TaskFormat) -> str:
    """What was understood, in one line."""
    named = format.roles.named()
    unused = [named.pop("ignored")] if "ignored" in named else []
    if format.first_code is not None:
        how = "letter" if str(format.first_code).isalpha() else f"position from {format.first_code}"
        named["answer"] += f" ({how} of the right option)"
    parts = [f"{role.replace('_', ' ')}: {path}" for role, path in named.items()]
    if format.labels:
        parts.append(f"labels: {', '.join(one_line(str(label)) for label in format.labels)}")
    elif format.options_vary and format.roles.options:
        number = schema_at(format.schema, format.roles.options).get("minItems")
        parts.append(f"{number} options per example")
    if Rule.ANSWER_IN_CONTEXT in format.rules:
        parts.append("the answer is a span of the context")
    roles = {*format.roles.inputs, *format.roles.tags, *format.roles.single().values()}
    others = [
        dotted(path) for path, part in leaves(format.schema) if path not in roles and not is_constant(part)
    ]
    if others:
        parts.append(f"not used as inputs: {', '.join(others)}")
    if unused:
        parts.append(f"kept as they are: {unused[0]}")
    return f"format {format.name}: {'; '.join(parts)}"
