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
from datacreate.files import shipped
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
    find_answer,
    find_answer_start,
    find_named,
    find_options,
    label_set,
    nli_labels,
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

_CONTEXT_NAMES = (
    "context passage premise document article paragraph story abstract background 上下文 文章 kontext contexto contexte"
).split()
_METADATA_NAMES = "id _id idx uid uuid guid qid url source meta metadata license split dataset".split()

_LONGEST_METADATA = 200
"""A longer text is content, whatever its name."""


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
    with the same fields. Raises ExampleError, FormatError or UsageError if example and options contradict each other.
    """
    options = options or FormatOptions()
    if options.format is not None:
        options.check_format()
        format = load_format(options.format)
    elif shipped_format := _find_shipped_format(example, options, others):
        format = shipped_format
    elif options.turns:
        raise UsageError("--turns: the example is not a conversation of user and assistant; remove --turns")
    else:
        return _infer_new_format(example, options, rows, others)
    # If the example breaks a rule, this is an error: another format would hide the mistake.
    format = bind(format, example, options.turns, others)
    return InferredFormat(format, (describe_format(format),))


def _find_shipped_format(example: Example, options: FormatOptions, others: Sequence[Example]) -> TaskFormat | None:
    """The first shipped format that is meant for all examples and takes the options about fields that are set."""
    for shipped_format in _shipped_formats():
        unknown = (name for name in example.values if name not in shipped_format.schema["properties"])
        metadata = tuple((name,) for name in unknown if _is_metadata(name, example.values))
        format = with_ignored(shipped_format, metadata)
        accepted_options = {"format"}
        if format.roles.tags:
            accepted_options |= {"labels", "label", "ranges"}
        elif format.roles.turns:
            accepted_options.add("turns")
        if options.first_changed_flag(FormatOptions.model_fields.keys() - accepted_options):
            continue
        if _fits(format, example.values) and all(format.validator.is_valid(other.values) for other in others):
            return _with_tag_sets(format, example, options)
    return None


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
    if format.options_vary and format.roles.options:
        # Yes and no are labels, not options of one example.
        return not are_yes_no(field_at(values, format.roles.options))
    return True


def _with_tag_sets(format: TaskFormat, example: Example, options: FormatOptions) -> TaskFormat:
    """The format with the tags that the user declares. Raises ExampleError for a field of tags without."""
    if not format.roles.tags:
        return format
    overrides = field_overrides(example, options)
    for path in format.roles.tags:
        if path in overrides:
            format = replace(format, schema=with_field(format.schema, path, overrides[path]))
        elif tags := value_at(example.values, path):
            name = dotted(path)
            option = f"--labels {name}=O,B-PER,..." if isinstance(tags[0], str) else f"--range {name}=0..N"
            raise ExampleError(f"{name}: one example does not show which tags there are; add {option}")
    return format


@cache
def _shipped_formats() -> tuple[TaskFormat, ...]:
    return tuple(load_format(path.stem) for path in sorted(shipped("schemas").glob("*.json")))


def _infer_new_format(
    example: Example, options: FormatOptions, rows: Sequence[Mapping[str, Json]], others: Sequence[Example]
) -> InferredFormat:
    check_options(example, options)
    overrides = field_overrides(example, options)
    all_values = [example.values, *(other.values for other in others)]
    schema = _declared_schema(all_values, overrides)
    roles = _infer_roles(example, options, list(overrides))
    for path in filter(None, (roles.answer, roles.options, roles.keys)):
        schema = with_field(schema, path, without_null(schema_at(schema, path)))
    remark = ""
    if roles.answer in overrides and roles.options:
        check_answer_values(roles, overrides[roles.answer], example)
    elif roles.answer and roles.options and not roles.keys:
        schema, remark = with_codes(schema, roles, example, rows or all_values)
    roles = replace(roles, inputs=roles.inputs or default_inputs(schema, roles))

    spans = sum(_answer_is_span(values, roles) for values in all_values)
    all_are_spans = spans == len(all_values)
    if roles.answer:
        is_declared = roles.answer in overrides
        schema = _with_answer_limits(
            schema, roles, roles.answer, all_values, is_declared=is_declared, all_are_spans=all_are_spans
        )
    format = TaskFormat("inferred", schema, roles, first_code=find_first_code(schema, roles))
    rules = frozenset[Rule]()
    if roles.answer and roles.options:
        rules = frozenset({Rule.ANSWER_IN_OPTIONS, Rule.OPTIONS_DIFFER})
    elif not format.labels and (roles.answer_start or all_are_spans):
        rules = frozenset({Rule.ANSWER_IN_CONTEXT})
    if spans and not (rules or format.labels):
        remark = f"; only {spans} of {len(all_values)} answers are spans of the context, so that it is not required"
    format = bind(replace(format, rules=rules), example, others=others)

    if not (remark or overrides or rules or format.head == "multiple_choice"):
        remark = _advice(format, all_values)
    notes = _notes_about_labels(format, list(overrides), [example, *others])
    return InferredFormat(format, (describe_format(format) + remark, *notes))


def _declared_schema(
    all_values: Sequence[Mapping[str, Json]], overrides: Mapping[FieldPath, dict[str, Json]]
) -> Schema:
    """The schema of the values, with the values of fields that the user declared."""
    schema = infer_schema(all_values)
    if is_constant(schema) or not all_values[0]:
        raise ExampleError("the example has no field that can vary: all are null or empty; fill one in")
    for path, override in overrides.items():
        inferred = schema_at(schema, path)
        if "items" in override:  # several labels, each once, or numbers
            labels = override["items"].get("enum")
            limits = {"maxItems": len(labels), "uniqueItems": True} if labels else {}
            declared: Schema = {**inferred, "items": override["items"], **limits}
        else:
            declared = nullable(override) if allows_null(inferred) else override
        schema = with_field(schema, path, declared)
    return schema


def _answer_is_span(values: Mapping[str, Json], roles: Roles) -> bool:
    """Whether the answer is a text that occurs in the context."""
    answer, context = value_at(values, roles.answer), value_at(values, roles.context)
    return isinstance(answer, str) and isinstance(context, str) and find_span(answer, context) is not None


def _notes_about_labels(format: TaskFormat, overridden: list[FieldPath], examples: Sequence[Example]) -> list[str]:
    """Notes about declared labels beside the answer, or about an inferred label that is rare."""
    answer = format.roles.answer
    if answer in overridden:
        if beside := [dotted(path) for path in overridden if path != answer]:
            return [f"only the answer, {dotted(answer)}, is balanced and verified, not {', '.join(beside)}"]
    elif answer and format.labels:
        return rare_labels(answer, examples)
    return []


def _advice(format: TaskFormat, all_values: Sequence[Mapping[str, Json]]) -> str:
    """How to change which labels were inferred from the values of all examples."""
    answer = format.roles.answer
    if answer is not None:
        if isinstance(field_at(all_values[0], answer), bool | float):
            return ""
        option = _label_option(answer, [value_at(values, answer) for values in all_values])
        start = "for other labels" if format.labels else f"if {dotted(answer)} has a fixed set of values,"
        return f"; {start} add {option}"
    scalars = [path for path, value in leaves_of(all_values[0]) if isinstance(value, str | int | float)]
    for path in scalars:
        field_values = [value_at(values, path) for values in all_values]
        if label_set(field_values):
            return f"; if {dotted(path)} is a label, add {_label_option(path, field_values)}"
    return "; for a field with fixed values add --labels FIELD=a,b,c" if len(scalars) > 1 else ""


def _label_option(path: FieldPath, field_values: Sequence[Json]) -> str:
    """The option that makes a field with these values a label, for a message."""
    labels = list(dict.fromkeys(map(str, field_values)))
    if all(isinstance(value, int) for value in field_values):
        return f"--range {dotted(path)}=LOW..HIGH"
    if len(labels) not in range(2, MAX_FOUND_LABELS + 1) or {" ", ","} & {*"".join(labels)}:
        labels = ["a", "b", "c"]
    return f"--labels {dotted(path)}={','.join(labels)}"


def _infer_roles(example: Example, options: FormatOptions, overridden: list[FieldPath]) -> Roles:
    """The roles of the fields; `inputs` are only those that the user names, `overridden` has declared values."""
    values = example.values
    inputs = tuple(named_field(example, name, "--inputs") for name in options.inputs)
    ignored = tuple(named_field(example, name, "--ignore") for name in options.ignore)
    named_answer = named_field(example, options.answer, "--answer") if options.answer else None
    named_options = named_field(example, options.options, "--options") if options.options else None
    fields = {path: v for path, v in leaves_of(values) if path not in (*inputs, *ignored)}
    scalars = {path: v for path, v in fields.items() if v not in (None, "") and not isinstance(v, list)}

    answer = named_answer or find_answer(fields, scalars, overridden)
    check_layout(example, options, answer, {path: scalars[path] for path in scalars if path not in overridden})
    extractive = None if named_answer or overridden else find_answer_start(fields)
    roles = extractive or find_options(fields, scalars, answer, named_options)
    answer = roles.answer
    is_only_text = len(scalars) == 1 and isinstance(scalars.get(answer or ()), str)
    if is_only_text and not (named_answer or answer in overridden or inputs):
        answer = None  # a single text is what the model writes, not an answer to something
    if inputs or any(path != answer and not _is_metadata(path[0], values) for path in scalars):
        used = {path[0] for path in (answer, roles.options, *overridden, *inputs, *ignored) if path}
        ignored += tuple((name,) for name in values if name not in used and _is_metadata(name, values))
    texts = [path for path, value in scalars.items() if isinstance(value, str) and path != answer]
    possible_inputs = list(inputs or (path for path in texts if path[:1] not in ignored))
    context = roles.context
    if context is None and len(possible_inputs) > 1:
        context = find_named(possible_inputs, _CONTEXT_NAMES)
    return replace(
        roles, inputs=inputs, context=context, options=roles.options or named_options, answer=answer, ignored=ignored
    )


def _is_metadata(name: str, values: Mapping[str, Json]) -> bool:
    """Whether a field at the top level says where an example comes from, not what it is about."""
    if name == "source" and not values.keys().isdisjoint(("target", "summary", "translation")):
        return False
    has_usual_name = name.casefold() in _METADATA_NAMES or name.casefold().endswith("_id")
    return has_usual_name and len(canonical_json(values[name])) <= _LONGEST_METADATA


def _with_answer_limits(
    schema: Schema,
    roles: Roles,
    answer: FieldPath,
    all_values: Sequence[Mapping[str, Json]],
    *,
    is_declared: bool,
    all_are_spans: bool,
) -> Schema:
    """The schema with the labels of the answer, if it has any, and the length of a list of extractive answers.

    Labels are: options that are labels, yes and no, those of natural language inference, or few answers that are no
    spans. Declared labels are already in the schema.
    """
    values, answer_schema = all_values[0], schema_at(schema, answer)
    answers = [value_at(row, answer) for row in all_values]
    if roles.answer_start and "items" in answer_schema:
        longest = max(len(value or ()) for value in answers)
        answer_schema = {**answer_schema, "maxItems": longest}
    labels: Sequence[Json] | None = None
    if roles.options:
        options = field_at(values, roles.options)
        texts = {str(option).casefold() for option in options}
        are_declared = texts == {str(label).casefold() for label in fixed_labels(answer_schema) or ()}
        if are_declared or are_yes_no(texts) or isinstance(answers[0], bool):
            schema = with_field(schema, roles.options, {"const": options})
            labels = options if not is_declared and answers[0] in options else None
    elif not is_declared and answer_schema.get("type") in ("string", "integer"):
        if isinstance(answers[0], str) and len(answer) == 1:
            labels = yes_no_labels(answers[0], values_in(values)) or nli_labels(answers[0], roles.inputs)
        if not labels or not all(value in labels for value in answers):
            labels = None if all_are_spans else label_set(answers)
    if labels:
        answer_schema = {**answer_schema, "enum": list(labels)}
    return with_field(schema, answer, answer_schema)


def describe_format(format: TaskFormat) -> str:
    """The roles, labels and rules of a format in one line."""
    roles = format.roles.named()
    ignored = roles.pop("ignored", None)
    if format.first_code is not None:
        kind = "letter" if str(format.first_code).isalpha() else f"position from {format.first_code}"
        roles["answer"] += f" ({kind} of the right option)"
    parts = [f"{role.replace('_', ' ')}: {path}" for role, path in roles.items()]
    if format.labels:
        parts.append(f"labels: {', '.join(one_line(str(label)) for label in format.labels)}")
    elif format.options_vary and format.roles.options:
        number = schema_at(format.schema, format.roles.options).get("minItems")
        parts.append(f"{number} options per example")
    if Rule.ANSWER_IN_CONTEXT in format.rules:
        parts.append("the answer is a span of the context")
    with_role = {*format.roles.inputs, *format.roles.tags, *format.roles.single().values()}
    varying = [path for path, part in leaves(format.schema) if not is_constant(part)]
    if unused := [dotted(path) for path in varying if path not in with_role]:
        parts.append(f"not used as inputs: {', '.join(unused)}")
    if may_be_null := [dotted(path) for path, part in leaves(format.schema) if allows_null(part)]:
        parts.append(f"may be null: {', '.join(may_be_null)}")
    if ignored:
        parts.append(f"kept as they are: {ignored}")
    return f"format {format.name}: {'; '.join(parts)}"
