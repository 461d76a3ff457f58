"""Infers the task format from one example, or from several.

Types, nesting and list lengths come from the values. Roles come from field names and from relations between values:
an answer that is one of the options, or a span of the context. All other texts are inputs. docs/formats.md lists what
is inferred.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from datacreate.errors import ExampleError, UsageError
from datacreate.formats.example import (
    Example,
    FieldPath,
    Json,
    canonical_json,
    dotted,
    field_at,
    leaves_of,
    one_line,
    value_at,
    values_in,
)
from datacreate.formats.infer_answers import (
    MAX_FOUND_LABELS,
    are_yes_no,
    check_answer_values,
    check_layout,
    check_options,
    find_answer_start,
    find_named,
    find_options,
    label_set,
    rare_labels,
    with_codes,
    yes_no_labels,
)
from datacreate.formats.options import FormatOptions, field_overrides, named_field
from datacreate.formats.roles import Roles
from datacreate.formats.rules import Rule, find_span
from datacreate.formats.schema_utils import (
    Schema,
    allows_null,
    fixed_labels,
    infer_schema,
    is_constant,
    leaves,
    nullable,
    schema_at,
    with_field,
    without_null,
)
from datacreate.formats.task_format import TaskFormat, bind, default_inputs, find_first_code, load_format
from datacreate.paths import shipped

_ANSWER_NAMES = (
    "label labels answer answers output response completion target class category sentiment emotion stance intent gold "
    "verdict correct stars rating score summary translation answerkey answer_key "
    "答案 标签 回答 antwort respuesta etiqueta réponse étiquette resposta ответ метка"
).split()
_CONTEXT_NAMES = (
    "context passage premise document article paragraph story abstract background 上下文 文章 kontext contexto contexte"
).split()
_METADATA_NAMES = "id _id idx uid uuid guid qid url source meta metadata license split dataset".split()

_LONGEST_METADATA = 200
"""A longer text is content, whatever its name."""

_NLI = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class InferredFormat:
    """A bound format, and notes for the user, one line each: what was inferred and how to change it."""

    format: TaskFormat
    notes: tuple[str, ...]


def infer_format(
    example: Example,
    options: FormatOptions | None = None,
    rows: Sequence[Mapping[str, Json]] = (),
    others: Sequence[Example] = (),
) -> InferredFormat:
    """The format of an example: the one named, or the first shipped one that fits, or an inferred one.

    `rows` of the same data show whether a position counts from 0 or from 1. The format also fits the `others`: examples
    with the same fields. Raises ExampleError, FormatError or UsageError for what contradicts each other.
    """
    options = options or FormatOptions()
    about_fields = {name for name in FormatOptions.model_fields if name != "format"}
    if options.format is not None:
        options.check_format()
        format = bind(load_format(options.format), example, options.turns, others)
        return InferredFormat(format, (describe_format(format),))
    for shipped_format in _shipped_formats():
        unknown = (name for name in example.values if name not in shipped_format.schema["properties"])
        metadata = tuple((name,) for name in unknown if _is_metadata(name, example.values))
        format = with_ignored(shipped_format, metadata)
        taken = (
            {"labels", "label", "ranges"} if format.roles.tags else {"turns"} if format.roles.turns else set()
        )
        if options.first_changed_flag(about_fields - taken) or not _fits(format, example.values):
            continue
        if not all(format.validator.is_valid(each.values) for each in others):
            continue
        # If the example breaks a rule, this is an error: another format would hide the mistake.
        format = bind(_with_tag_sets(format, example, options), example, options.turns, others)
        return InferredFormat(format, (describe_format(format),))
    if options.turns:
        raise UsageError("--turns: the example is not a conversation of user and assistant; remove --turns")
    return _infer_new_format(example, options, rows, others)


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


def _infer_new_format(
    example: Example, options: FormatOptions, rows: Sequence[Mapping[str, Json]], others: Sequence[Example]
) -> InferredFormat:
    check_options(example, options)
    overrides = field_overrides(example, options)
    all_values = [each.values for each in (example, *others)]
    schema = _declared_schema(all_values, overrides)
    roles = _infer_roles(example, options, list(overrides))
    for needed in filter(None, (roles.answer, roles.options, roles.keys)):
        schema = with_field(schema, needed, without_null(schema_at(schema, needed)))
    advice = ""
    if roles.answer in overrides and roles.options:
        check_answer_values(roles, overrides[roles.answer], example)
    elif roles.answer and roles.options and not roles.keys:
        schema, advice = with_codes(schema, roles, example, rows or all_values)
    roles = replace(roles, inputs=roles.inputs or default_inputs(schema, roles))
    answers = [value_at(values, roles.answer) for values in all_values]
    contexts = [value_at(values, roles.context) for values in all_values]
    spans = [
        isinstance(answer, str) and isinstance(context, str) and find_span(answer, context) is not None
        for answer, context in zip(answers, contexts, strict=True)
    ]
    if roles.answer:
        schema = _with_answer(schema, roles, roles.answer, example, overrides, answers, are_spans=all(spans))
    format = TaskFormat("inferred", schema, roles, first_code=find_first_code(schema, roles))
    rules = frozenset[Rule]()
    if roles.answer and roles.options:
        rules = frozenset({Rule.ANSWER_IN_OPTIONS, Rule.OPTIONS_DIFFER})
    elif not format.labels and (roles.answer_start or (roles.answer and roles.context and all(spans))):
        rules = frozenset({Rule.ANSWER_IN_CONTEXT})
    if any(spans) and not (rules or format.labels):
        advice = f"; only {sum(spans)} of {len(spans)} answers are spans of the context, so that it is not required"
    format = bind(replace(format, rules=rules), example, others=others)
    if not (advice or overrides or rules or format.head == "multiple_choice"):
        advice = _advice(format, example, all_values)
    notes = []
    if roles.answer in overrides:
        if beside := [dotted(path) for path in overrides if path != roles.answer]:
            what = f"only the answer, {dotted(roles.answer)}, is balanced and verified"
            notes.append(f"{what}, not {', '.join(beside)}")
    elif roles.answer and format.labels:
        notes = rare_labels(roles.answer, [example, *others])
    return InferredFormat(format, (describe_format(format) + advice, *notes))


def _declared_schema(
    all_values: Sequence[Mapping[str, Json]], overrides: Mapping[FieldPath, dict[str, Json]]
) -> Schema:
    """The schema of the values, with what the user declared about fields."""
    schema = infer_schema(all_values)
    if is_constant(schema) or not all_values[0]:
        raise ExampleError("the example has no field that can vary: all are null or empty; fill one in")
    for path, override in overrides.items():
        own = schema_at(schema, path)
        if "items" in override:  # several labels, each once, or numbers
            labels = override["items"].get("enum")
            most = {"maxItems": len(labels), "uniqueItems": True} if labels else {}
            declared: Schema = {**own, "items": override["items"], **most}
        else:
            declared = nullable(override) if allows_null(own) else override
        schema = with_field(schema, path, declared)
    return schema


def _advice(format: TaskFormat, example: Example, all_values: Sequence[Mapping[str, Json]]) -> str:
    """How to change what was inferred about the label; `all_values`: of all examples."""
    answer = format.roles.answer
    if answer is not None:
        if isinstance(field_at(example.values, answer), bool | float):
            return ""
        option = _label_option(answer, [value_at(values, answer) for values in all_values])
        start = "for other labels" if format.labels else f"if {dotted(answer)} has a fixed set of values,"
        return f"; {start} add {option}"
    scalars = [path for path, value in leaves_of(example.values) if isinstance(value, str | int | float)]
    for path in scalars:
        found = [value_at(values, path) for values in all_values]
        if label_set(found):
            return f"; if {dotted(path)} is a label, add {_label_option(path, found)}"
    return "; for a field with fixed values add --labels FIELD=a,b,c" if len(scalars) > 1 else ""


def _label_option(path: FieldPath, found: Sequence[Json]) -> str:
    """The option that makes a field with these values a label, for a message."""
    labels = list(dict.fromkeys(map(str, found)))
    if all(isinstance(value, int) for value in found):
        return f"--range {dotted(path)}=LOW..HIGH"
    if len(labels) not in range(2, MAX_FOUND_LABELS) or {" ", ","} & {*"".join(labels)}:
        labels = ["a", "b", "c"]
    return f"--labels {dotted(path)}={','.join(labels)}"


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

    answer: FieldPath | None
    if named_answer or overridden:
        answer = named_answer or find_named(overridden, _ANSWER_NAMES) or overridden[0]
    else:
        # Inside an object a boolean or a yes/no text can mean anything: it would be assigned and verified as the label.
        candidates = [
            path
            for path, value in scalars.items()
            if len(path) == 1 or not (isinstance(value, bool) or yes_no_labels(str(value), ()))
        ]
        answer = find_named(candidates, _ANSWER_NAMES)
    if answer is None and scalars:
        answer = find_named((path for path, v in fields.items() if isinstance(v, list) and v), _ANSWER_NAMES)
    check_layout(
        example, options, answer, {path: scalars[path] for path in scalars if path not in overridden}
    )
    span = None if named_answer or overridden else find_answer_start(fields)
    found: FieldPath | None = None
    keys: FieldPath | None = None
    if span:
        answer = span[0]
    else:
        found, keys, answer = find_options(lists, scalars, answer, named_options)
    only_text = len(scalars) == 1 and isinstance(scalars.get(answer or ()), str)
    if not (named_answer or answer in overridden or inputs) and only_text:
        answer = None  # a single text is what the model writes, not an answer to something
    texts = [path for path, v in scalars.items() if isinstance(v, str) and path != answer]
    others = [path for path in scalars if path != answer and not _is_metadata(path[0], values)]
    if others or inputs:
        named = {path[0] for path in (answer, found, *overridden, *inputs, *ignored) if path}
        metadata = (name for name in values if name not in named and _is_metadata(name, values))
        ignored += tuple((name,) for name in metadata)
    candidates = list(inputs or (path for path in texts if path[:1] not in ignored))
    context = find_named(candidates, _CONTEXT_NAMES) if len(candidates) > 1 else None
    start, context = (span[1], span[2]) if span else (None, context)
    return Roles(inputs, context, found or named_options, keys, answer, start, ignored=ignored)


def _is_metadata(name: str, values: Mapping[str, Json]) -> bool:
    """Whether a field at the top level says where an example comes from, not what it is about."""
    if name == "source" and not values.keys().isdisjoint(("target", "summary", "translation")):
        return False
    named = name.casefold() in _METADATA_NAMES or name.casefold().endswith("_id")
    return named and len(canonical_json(values[name])) <= _LONGEST_METADATA


def _with_answer(
    schema: Schema,
    roles: Roles,
    answer: FieldPath,
    example: Example,
    overrides: Mapping[FieldPath, dict[str, Json]],
    answers: Sequence[Json],
    *,
    are_spans: bool,
) -> Schema:
    """The schema with the length of a list of answers, or with the labels: of a yes/no answer, of options, or of
    `answers` that are few and no spans.
    """
    value, own, given = field_at(example.values, answer), schema_at(schema, answer), answer in overrides
    labels: Sequence[Json] | None = None
    if "items" in own and roles.answer_start:
        own = {**own, "maxItems": max(len(each or ()) for each in answers)}
    if roles.options:
        options = field_at(example.values, roles.options)
        texts = {str(option).casefold() for option in options}
        are_labels = texts == {str(label).casefold() for label in fixed_labels(own) or ()}
        if are_labels or are_yes_no(texts) or isinstance(value, bool):
            schema = with_field(schema, roles.options, {"const": options})
            labels = options if not given and value in options else None
    elif not given and own.get("type") in ("string", "integer"):
        if isinstance(value, str) and len(answer) == 1:
            labels = yes_no_labels(value, values_in(example.values)) or _nli_labels(value, roles.inputs)
        if not labels or not all(each in labels for each in answers):
            labels = None if are_spans else label_set(answers)
    return with_field(schema, answer, {**own, "enum": list(labels)} if labels else own)


def _nli_labels(value: str, inputs: Sequence[FieldPath]) -> tuple[str, ...] | None:
    """The labels of natural language inference in the case of `value`; None if it is something else."""
    if value.lower() == "neutral" and not any(path[-1] in ("premise", "hypothesis") for path in inputs):
        return None  # a sentiment, perhaps
    cases = (tuple(map(change, _NLI)) for change in (str.lower, str.capitalize, str.upper))
    return next((labels for labels in cases if value in labels), None)


def describe_format(format: TaskFormat) -> str:
    """What was understood, in one line."""
    named = format.roles.named()
    ignored = named.pop("ignored", None)
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
    varying = [path for path, part in leaves(format.schema) if not is_constant(part)]
    if others := [dotted(path) for path in varying if path not in roles]:
        parts.append(f"not used as inputs: {', '.join(others)}")
    if may_be_null := [dotted(path) for path, part in leaves(format.schema) if allows_null(part)]:
        parts.append(f"may be null: {', '.join(may_be_null)}")
    if ignored:
        parts.append(f"kept as they are: {ignored}")
    return f"format {format.name}: {'; '.join(parts)}"
