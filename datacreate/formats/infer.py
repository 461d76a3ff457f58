"""Infers the task format from one example, from several, or from the names of the fields.

Types, nesting and list lengths come from the values. Roles come from field names and from relations between values:
an answer that is one of the options, or a span of the context. All other texts are inputs. docs/formats.md lists what
is inferred.

Without an example, `declare_format` puts a stand-in in its place: an object in the shape that the examples will have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from itertools import cycle, islice

from datacreate.errors import ExampleError, FormatError, UsageError
from datacreate.files import shipped
from datacreate.formats import FormatOptions, declared_schemas
from datacreate.formats.example import (
    Example,
    FieldPath,
    Json,
    dotted,
    field_at,
    leaf_values,
    one_line,
    replace_field,
    value_at,
)
from datacreate.formats.infer_labels import (
    advice,
    are_yes_no,
    notes_about_labels,
    unknown_labels_warning,
    with_labels,
    with_option_keys,
)
from datacreate.formats.infer_roles import are_named_options, find_positions, infer_roles, is_metadata
from datacreate.formats.roles import Roles, default_inputs
from datacreate.formats.rules import Rule, is_extracted, speaker_field, turn_fields, turn_schemas, turns_schema
from datacreate.formats.schema_utils import (
    Schema,
    allows_null,
    constant_of,
    fixed_labels,
    infer_schema,
    is_constant,
    leaf_schemas,
    nullable,
    schema_at,
    with_field,
    without_null,
)
from datacreate.formats.task_format import TaskFormat, find_first_key, load_format, specialize, specialize_unchecked

_NUM_OPTIONS = 4  # the number of options if neither an example nor the schema says it
_MISSPELT = 0.8  # an answer that is so similar to a part of its context is misspelt, from 0 to 1
_SEARCHED_EXAMPLES = 20  # misspelt answers are searched for in this many examples
_SEARCHED_WORDS = 2000  # and in this many words of their context

_OPTIONS_OF_ROLE = {"tags": ("labels", "label", "range"), "turns": ("turns",)}
"""The options that change a shipped format in which a field has this role."""


@dataclass(frozen=True)
class InferredFormat:
    """A format that is specialized to its examples, and lines for the user: what was inferred and how to change it."""

    format: TaskFormat
    notes: tuple[str, ...]


def infer_format(
    examples: Sequence[Example], format_options: FormatOptions | None = None, rows: Sequence[Mapping[str, Json]] = ()
) -> InferredFormat:
    """Infer the format of examples with the same fields, and specialize it to them.

    It is the format of --format, the first shipped format that all examples fit, or a new one. In a new format the
    first example decides the roles; `rows` of the same data, or else the examples, show whether positions count from 0
    or 1. Raises ExampleError, FormatError or UsageError if an example is not valid in the format, or if it and the
    options contradict each other.
    """
    format_options = format_options or FormatOptions()
    if format_options.format is not None:
        format_options.check_format()
        task_format = load_format(format_options.format)
    elif shipped_format := _find_shipped_format(examples, format_options):
        task_format = shipped_format
    elif format_options.turns:
        raise UsageError("--turns: the example is not a conversation of user and assistant; remove --turns")
    else:
        return _infer_new_format(examples, format_options, rows)
    # If an example breaks a rule, this is an error: another format would hide the mistake.
    task_format = specialize(task_format, *examples, turns=format_options.turns)
    return InferredFormat(task_format, (_describe(task_format),))


def _find_shipped_format(examples: Sequence[Example], format_options: FormatOptions) -> TaskFormat | None:
    """The first shipped format, by name, that fits the examples, and that has a use for the options that are given."""
    values = examples[0].values
    for shipped_format in _shipped_formats():
        known = shipped_format.schema["properties"]
        metadata = [(name,) for name in values if name not in known and is_metadata(name, values)]
        task_format = with_ignored(shipped_format, metadata)
        useful = {option for role in task_format.roles.paths() for option in _OPTIONS_OF_ROLE.get(role, ())}
        if format_options.first_changed_flag(FormatOptions.model_fields.keys() - useful):
            continue
        are_valid = all(task_format.validator.is_valid(example.values) for example in examples)
        if are_valid and _is_meant_for(task_format, values):
            return _with_tag_sets(task_format, examples[0], format_options)
    return None


def with_ignored(task_format: TaskFormat, paths: Iterable[FieldPath]) -> TaskFormat:
    """The format with more ignored fields, at these paths and of any type."""
    for path in paths:
        roles = replace(task_format.roles, ignored=(*task_format.roles.ignored, path))
        task_format = replace(task_format, schema=with_field(task_format.schema, path, {}), roles=roles)
    return task_format


def _is_meant_for(task_format: TaskFormat, values: Mapping[str, Json]) -> bool:
    """Whether a shipped format suits an example that is valid in it: tags are given, options are not labels."""
    if task_format.roles.tags:
        return any(value_at(values, path) for path in task_format.roles.tags)
    if task_format.options_vary and task_format.roles.options:
        # Yes and no are labels, not options of one example.
        return not are_yes_no(field_at(values, task_format.roles.options))
    return True


def _with_tag_sets(task_format: TaskFormat, example: Example, format_options: FormatOptions) -> TaskFormat:
    """The format with the sets of tags of --labels and --range. Raises ExampleError if a field of tags has neither."""
    declared = declared_schemas(example, format_options)
    for path in task_format.roles.tags:
        if path in declared:
            task_format = replace(task_format, schema=with_field(task_format.schema, path, declared[path]))
        elif tags := value_at(example.values, path):
            name = dotted(path)
            option = f"--labels {name}=O,B-PER,..." if isinstance(tags[0], str) else f"--range {name}=0..N"
            raise ExampleError(f"{name}: one example does not show which tags there are; add {option}")
    return task_format


@cache
def _shipped_formats() -> tuple[TaskFormat, ...]:
    return tuple(load_format(path.stem) for path in sorted(shipped("schemas").glob("*.json")))


def _infer_new_format(
    examples: Sequence[Example], format_options: FormatOptions, rows: Sequence[Mapping[str, Json]]
) -> InferredFormat:
    """Infer a format for examples that no shipped format fits: schema, roles, possible answers, rules."""
    declared = declared_schemas(examples[0], format_options)
    all_values = [example.values for example in examples]
    schema = _with_speakers(_declared_schema(all_values, declared), all_values)
    roles = infer_roles(examples[0], format_options, declared, is_written=not rows)
    for path in filter(None, (roles.answer, roles.options, roles.keys)):
        schema = with_field(schema, path, without_null(schema_at(schema, path)))
    roles = replace(roles, inputs=roles.inputs or default_inputs(schema, roles))

    num_spans = sum(_answer_is_span(values, roles) is True for values in all_values)
    remark, rules = "", frozenset[Rule]()
    if roles.answer and roles.options:
        schema, remark = with_option_keys(schema, roles, roles.answer, all_values[0], rows or all_values, declared)
        rules = frozenset({Rule.ANSWER_IN_OPTIONS, Rule.OPTIONS_DIFFER})
    elif roles.answer and roles.answer not in declared:
        schema = with_labels(schema, roles, roles.answer, all_values, all_are_spans=num_spans == len(all_values))
    task_format = TaskFormat("inferred", schema, roles, rules, find_first_key(schema, roles))
    if not (rules or task_format.labels) and (roles.answer_start or num_spans == len(all_values)):
        task_format = replace(task_format, rules=frozenset({Rule.ANSWER_IN_CONTEXT}))
    task_format = specialize(task_format, *examples)

    warnings = [
        f"warning: --inputs {dotted(path)}: null or empty in each example, so it is not an input; fill it in"
        for path in roles.inputs
        if path not in task_format.roles.inputs and not rows  # with rows nobody reads the notes
    ]
    if not (rows or format_options.inputs) and (problem := find_positions(examples[0], roles)[0]):
        warnings.append(f"warning: {problem}")
    if not (task_format.rules or task_format.labels):  # the answer is free text, or there is none
        if num_spans:
            spans = f"{num_spans} of {len(all_values)} answers are spans of the context"
            remark = f"only {spans}, so that it is not required"
        if not rows and (warning := _misspelt_span(examples, roles) or _several_options(all_values[0], roles)):
            warnings.append(warning)
    if not (remark or declared or task_format.rules):
        if warning := unknown_labels_warning(task_format, all_values):
            warnings.append(warning)
        else:
            remark = advice(task_format, all_values)
    notes = notes_about_labels(task_format, declared, examples)
    return InferredFormat(task_format, (_describe(task_format, remark), *warnings, *notes))


def _declared_schema(all_values: Sequence[Mapping[str, Json]], declared: Mapping[FieldPath, Schema]) -> Schema:
    """The schema of all examples, in which the fields with --labels or --range have the declared values."""
    schema = infer_schema(all_values)
    if is_constant(schema) or not all_values[0]:
        raise ExampleError("the example has no field that can vary: all are null or empty; fill one in")
    for path, part in declared.items():
        inferred = schema_at(schema, path)
        if "items" in part:  # several labels, each once, or numbers
            labels = part["items"].get("enum")
            limits = {"maxItems": len(labels), "uniqueItems": True} if labels else {}
            part = {**inferred, "items": part["items"], **limits}
        elif allows_null(inferred):
            part = nullable(part)
        schema = with_field(schema, path, part)
    return schema


def _with_speakers(schema: Schema, all_values: Sequence[Mapping[str, Json]]) -> Schema:
    """The schema in which conversations have the speakers that they have in the examples, in the same order."""
    for path, field_schema in leaf_schemas(schema):
        speaker = speaker_field(value_at(all_values[0], path))
        if speaker is None or speaker not in field_schema.get("items", {}).get("properties", {}):
            continue
        conversations = [value_at(values, path) for values in all_values]
        by_speakers = {
            tuple(str(turn.get(speaker)) for turn in turns): turns for turns in conversations if speaker_field(turns)
        }
        branches = [turns_schema(field_schema, turns) for turns in by_speakers.values()]
        fixed: Schema = branches[0] if len(branches) == 1 else {"anyOf": branches}
        schema = with_field(schema, path, nullable(fixed) if allows_null(field_schema) else fixed)
    return schema


def _answer_is_span(values: Mapping[str, Json], roles: Roles) -> bool | None:
    """Whether the answer is a span of the context; None unless both are texts."""
    answer, context = value_at(values, roles.answer), value_at(values, roles.context)
    return is_extracted(answer, context) if isinstance(answer, str) and isinstance(context, str) else None


def _misspelt_span(examples: Sequence[Example], roles: Roles) -> str | None:
    """A note about the first answer that the context has in another spelling; None if there is none."""
    for example in examples[:_SEARCHED_EXAMPLES]:
        if _answer_is_span(example.values, roles) is not False:
            continue
        answer, context = value_at(example.values, roles.answer), value_at(example.values, roles.context)
        words, size = context.split()[:_SEARCHED_WORDS], len(answer.split())
        spans = {" ".join(words[start : start + size]) for start in range(len(words) - size + 1)}
        if similar := get_close_matches(answer, sorted(spans), 1, _MISSPELT):
            return (
                f"warning: {example.where}{dotted(roles.answer or ())}: {one_line(repr(answer))} does not occur in "
                f"{dotted(roles.context or ())}, but {one_line(repr(similar[0]))} does; copy it exactly if each answer "
                "should be a part of the text"
            )
    return None


def _several_options(values: Mapping[str, Json], roles: Roles) -> str | None:
    """A note about an answer that is a list of options of another field; None for other answers."""
    answer = value_at(values, roles.answer)
    if not isinstance(answer, list) or not answer:
        return None
    lists = {path: value for path, value in leaf_values(values) if isinstance(value, list) and len(value) > 1}
    for path, options in lists.items():
        if path != roles.answer and are_named_options(path, roles) and all(part in options for part in answer):
            return (
                f"warning: {dotted(roles.answer or ())}: each part is one of {dotted(path)}, but new answers are not "
                "checked for this; if one option is the answer, write it as a text, not as a list"
            )
    return None


def _describe(task_format: TaskFormat, remark: str = "") -> str:
    """The roles, labels and rules of a format in one line for the user, with the remark at its end."""
    roles = task_format.roles.named()
    ignored = roles.pop("ignored", None)
    if task_format.first_key is not None:
        form = "letter" if str(task_format.first_key).isalpha() else f"position from {task_format.first_key}"
        roles["answer"] += f" ({form} of the right option)"
    parts = [f"{role.replace('_', ' ')}: {path}" for role, path in roles.items()]
    if task_format.labels:
        parts.append(f"labels: {', '.join(one_line(str(label)) for label in task_format.labels)}")
    elif task_format.options_vary and task_format.roles.options:
        count = schema_at(task_format.schema, task_format.roles.options).get("minItems")
        parts.append(f"{count} options per example")
    if Rule.ANSWER_IN_CONTEXT in task_format.rules:
        parts.append("the answer is a span of the context")
    with_role = {path for paths in task_format.roles.paths().values() for path in paths}
    varying = [path for path, part in leaf_schemas(task_format.schema) if not is_constant(part)]
    if unused := [dotted(path) for path in varying if path not in with_role]:
        parts.append(f"not used as inputs: {', '.join(unused)}")
    if may_be_null := [dotted(path) for path, part in leaf_schemas(task_format.schema) if allows_null(part)]:
        parts.append(f"may be null: {', '.join(may_be_null)}")
    if ignored:
        parts.append(f"same in all rows: {ignored}")
    return f"format {task_format.name}: {'; '.join(filter(None, [*parts, remark]))}"


def declare_format(format_options: FormatOptions) -> InferredFormat:
    """The format that the options declare without an example: that of --format, or one with the fields of --inputs.

    Raises FormatError or UsageError if they are not enough.
    """
    if format_options.format is None:
        return _from_names(format_options)
    format_options.check_format()
    return _from_schema(load_format(format_options.format), format_options.turns)


def _from_names(format_options: FormatOptions) -> InferredFormat:
    """A format with the fields that the options name. They hold texts, except those with --labels or --range."""
    if flag := format_options.first_changed_flag(("ignore", "options", "turns")):
        raise UsageError(f"{flag}: without an example it needs a --format, such as chat or multiple_choice")
    if not format_options.inputs:
        raise UsageError("without an example, --inputs must name the fields that the model writes; add it")
    declared = {**format_options.label_sets, **format_options.range}
    labels = (name for name in declared if name != format_options.answer)
    names = [*format_options.inputs, *labels, format_options.answer]
    paths = {name: tuple(name.split(".")) for name in names if name}
    for path in paths.values():
        if not all(path) or any(path[:end] in paths.values() for end in range(1, len(path))):
            raise UsageError(f"{dotted(path)!r}: a field needs a name, and cannot be a part of another one; change it")
    values: dict[str, Json] = {}
    for index, (name, path) in enumerate(paths.items()):
        value = _first_value(declared[name]) if name in declared else f"text {index}"
        values = replace_field(values, path, value)
    return infer_format([Example(values)], format_options)


def _first_value(declared: Sequence[str] | str) -> Json:
    """The first label, or the start of a range, as a boolean or number if all values are such; else as a text."""
    texts = declared.split("..") if isinstance(declared, str) else declared
    if {text.casefold() for text in texts} == {"true", "false"}:
        return True
    for number in (int, float):
        with suppress(ValueError, IndexError):
            values = [number(text) for text in texts]
            return values[0]
    return texts[0] if texts else ""


def _from_schema(task_format: TaskFormat, turns: int | None) -> InferredFormat:
    """The format of a file, specialized to the shape of a stand-in for an example. `turns` as in `specialize`.

    Raises FormatError if the format needs values of an example: functions, keys of options, tags without an `enum`.
    """
    roles = task_format.roles
    tags = [schema_at(task_format.schema, path).get("items", {}) for path in roles.tags]
    if roles.tools or roles.keys or not all(map(fixed_labels, tags)):
        raise FormatError(
            f"format {task_format.name}: functions, letters of options, and tags without an `enum` come from an "
            "example; give --example FILE"
        )
    specialized = specialize_unchecked(task_format, [_stand_in(task_format, task_format.schema, ())], turns)
    fields = {*dict(leaf_schemas(specialized.schema)), *task_format.roles.ignored}
    varying = [path for path, part in leaf_schemas(task_format.schema) if not is_constant(part)]
    remark = ""
    if left_out := [dotted(path) for path in varying if path not in fields]:
        remark = f"left out, since not required: {', '.join(left_out)}"
    return InferredFormat(specialized, (_describe(specialized, remark),))


def _stand_in(task_format: TaskFormat, schema: Schema, path: FieldPath) -> Json:
    """A value in the shape that the field at `path`, with this schema, will have. Its texts are empty.

    Fields that are not required are left out, and what may be null is not null.
    """
    roles = task_format.roles
    if is_constant(schema):
        return constant_of(schema)
    if path == roles.options:
        return [""] * _option_count(task_format, schema)
    if path == roles.turns:
        turns = [part["properties"] for part in turn_schemas(schema)]
        role, text = turn_fields(turns[0])
        if turns[1:] and all(is_constant(turn[role]) for turn in turns):  # those of a specialized format
            return [{role: constant_of(turn[role]), text: ""} for turn in turns]
        speakers = ("human", "gpt") if "human" in turns[0][role].get("enum", ()) else ("user", "assistant")
        return [{role: speaker, text: ""} for speaker in islice(cycle(speakers), max(2, len(turns)))]
    parts = schema.get("properties")
    if parts is None:
        return ""
    required = {*schema.get("required", ())} or {*parts}
    if roles.answer and roles.answer[:-1] == path:
        required.add(roles.answer[-1])
    return {
        name: _stand_in(task_format, part, (*path, name))
        for name, part in parts.items()
        if name in required and (*path, name) not in roles.ignored
    }


def _option_count(task_format: TaskFormat, schema: Schema) -> int:
    """How many options each example has: as many as there are keys, else _NUM_OPTIONS if the schema allows that."""
    if task_format.first_key is not None and (answer := task_format.roles.answer):
        return len(fixed_labels(schema_at(task_format.schema, answer)) or ())
    minimum, maximum = schema.get("minItems", 2), schema.get("maxItems", _NUM_OPTIONS)
    return int(max(minimum, min(_NUM_OPTIONS, maximum)))
