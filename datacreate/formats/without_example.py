"""A format without a formatting example: declared by a schema (`--format`), or by the names of its fields.

A stand-in takes the place of the example: an object in the shape that the examples will have. A field that the schema
does not require is left out, one that may be null is not null, and there are _NUM_OPTIONS options if the schema leaves
their number open.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from datacreate.errors import FormatError, UsageError
from datacreate.formats.example import Example, FieldPath, Json, dotted, replace_field
from datacreate.formats.infer import InferredFormat, describe_format, infer_format
from datacreate.formats.options import FormatOptions
from datacreate.formats.schema_utils import Schema, constant_of, fixed_labels, is_constant, leaves, schema_at
from datacreate.formats.task_format import TaskFormat, load_format, specialize

_NUM_OPTIONS = 4


def declare_format(options: FormatOptions) -> InferredFormat:
    """The bound format that the options declare. Raises FormatError or UsageError if they do not suffice."""
    if options.format is None:
        return _from_names(options)
    options.check_format()
    return _from_schema(load_format(options.format), options.turns)


def _from_names(options: FormatOptions) -> InferredFormat:
    """A format with the named fields: texts, but for those with --labels or --range."""
    if flag := options.first_changed_flag(("ignore", "options", "turns")):
        raise UsageError(f"{flag}: without an example it needs a --format, such as chat or multiple_choice")
    if not options.inputs:
        raise UsageError("without an example, --inputs must name the fields that the model writes; add it")
    declared = {**options.label_sets, **options.ranges}
    labels = (name for name in declared if name != options.answer)
    names = [*options.inputs, *labels, options.answer]
    paths = {name: tuple(name.split(".")) for name in names if name}
    for path in paths.values():
        if not all(path) or any(path[:end] in paths.values() for end in range(1, len(path))):
            raise UsageError(f"{dotted(path)!r}: a field needs a name, and cannot be a part of another one; change it")
    values: dict[str, Json] = {}
    for index, (name, path) in enumerate(paths.items()):
        value = _first_value(declared[name]) if name in declared else f"text {index}"
        values = replace_field(values, path, value)
    return infer_format(Example(values), options)


def _first_value(declared: Sequence[str] | str) -> Json:
    """The first label, or the start of a range, in the type that all values have: boolean, number or text."""
    texts = declared.split("..") if isinstance(declared, str) else declared
    if {text.casefold() for text in texts} == {"true", "false"}:
        return True
    for kind in (int, float):
        with suppress(ValueError, IndexError):
            values = [kind(text) for text in texts]
            return values[0]
    return texts[0] if texts else ""


def _from_schema(format: TaskFormat, turns: int | None) -> InferredFormat:
    """The format of a file, specialized to the shape of its stand-in."""
    roles = format.roles
    tags = [schema_at(format.schema, path).get("items", {}) for path in roles.tags]
    if roles.tools or roles.keys or not all(map(fixed_labels, tags)):
        raise FormatError(
            f"format {format.name}: functions, letters of options, and tags without an `enum` come from an example; "
            "give --example FILE"
        )
    bound = specialize(format, _stand_in(format, format.schema, ()), turns)
    bound_fields = {*dict(leaves(bound.schema)), *format.roles.ignored}
    varying = [path for path, part in leaves(format.schema) if not is_constant(part)]
    remark = ""
    if left_out := [dotted(path) for path in varying if path not in bound_fields]:
        remark = f"; left out, since not required: {', '.join(left_out)}"
    return InferredFormat(bound, (describe_format(bound) + remark,))


def _stand_in(format: TaskFormat, schema: Schema, path: FieldPath) -> Json:
    """A value in the shape that the field at `path`, with this schema, will have. Its texts are empty."""
    roles = format.roles
    if is_constant(schema):
        return constant_of(schema)
    if path == roles.options:
        return [""] * _number_of_options(format, schema)
    if path == roles.turns:
        message = schema["items"]["properties"]
        role, text = ("from", "value") if "from" in message else ("role", "content")
        speakers = ("human", "gpt") if "human" in message[role].get("enum", ()) else ("user", "assistant")
        return [{role: speaker, text: ""} for speaker in speakers]
    parts = schema.get("properties")
    if parts is None:
        return ""
    required = {*schema.get("required", ())} or {*parts}
    if roles.answer and roles.answer[:-1] == path:
        required.add(roles.answer[-1])
    return {
        name: _stand_in(format, part, (*path, name))
        for name, part in parts.items()
        if name in required and (*path, name) not in roles.ignored
    }


def _number_of_options(format: TaskFormat, schema: Schema) -> int:
    """The number of letters or positions, if the answer is one of these; else what the schema of the options allows."""
    if format.answers.are_coded and (codes := fixed_labels(schema_at(format.schema, format.roles.answer or ()))):
        return len(codes)
    least, most = schema.get("minItems", 2), schema.get("maxItems", _NUM_OPTIONS)
    return int(max(least, min(_NUM_OPTIONS, most)))
