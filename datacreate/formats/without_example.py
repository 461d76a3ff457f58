"""A format without a formatting example: declared by a schema (`--format`), or by the names of its fields.

A stand-in takes the place of the example: an object in the shape that the examples will have. It decides what an
example would decide: a field that the schema does not require is left out, one that may be null is not null, and there
are NUM_OPTIONS options where the schema leaves their number open.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from datacreate.errors import FormatError, UsageError
from datacreate.formats.example import Example, FieldPath, Json, dotted, replace_field
from datacreate.formats.infer import InferredFormat, describe_format, infer_format
from datacreate.formats.options import FormatOptions
from datacreate.formats.prompt_encoding import PromptEncoding
from datacreate.formats.schema_utils import Schema, constant_of, fixed_labels, is_constant, leaves, schema_at
from datacreate.formats.task_format import TaskFormat, load_format, specialize

NUM_OPTIONS = 4

_TEXT_TOKENS, _PASSAGE_TOKENS, _VALUE_TOKENS = 128, 256, 12
"""Most tokens of a text, of a passage, and of a number, a label or the punctuation of a field."""

_CHARS_PER_TOKEN = 3
_MAX_TEXT_TOKENS = 512
"""Most tokens of a text with a `maxLength`, which may be far more than is meant."""

_MAX_ITEMS = 6
"""Items of a list without a small `maxItems`."""


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
    valued = {**options.label_sets, **options.ranges}
    others = (name for name in valued if name != options.answer)
    names = [*options.inputs, *others, options.answer]
    paths = {name: tuple(name.split(".")) for name in names if name}
    for path in paths.values():
        if not all(path) or any(path[:end] in paths.values() for end in range(1, len(path))):
            raise UsageError(
                f"{dotted(path)!r}: a field needs a name, and cannot be a part of another one; change it"
            )
    values: dict[str, Json] = {}
    for index, (name, path) in enumerate(paths.items()):
        value = _first_value(valued[name]) if name in valued else f"text {index}"
        values = replace_field(values, path, value)
    return infer_format(Example(values), options)


def _first_value(given: Sequence[str] | str) -> Json:
    """The first label, or the start of a range, in the type that all values have: boolean, number or text."""
    texts = given.split("..") if isinstance(given, str) else list(given)
    if {text.casefold() for text in texts} == {"true", "false"}:
        return True
    for kind in (int, float):
        with suppress(ValueError, IndexError):
            values = list(map(kind, texts))
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
    values = _stand_in(format)
    bound = specialize(format, values, turns)
    kept = {*dict(leaves(bound.schema)), *format.roles.ignored}
    out = [path for path, part in leaves(format.schema) if path not in kept and not is_constant(part)]
    left_out = f"; left out, since not required: {', '.join(map(dotted, out))}" if out else ""
    return InferredFormat(bound, (describe_format(bound) + left_out,))


def _stand_in(format: TaskFormat) -> dict[str, Json]:
    """An object in the shape that examples of the format will have. Its texts are empty."""
    roles = format.roles

    def value_of(schema: Schema, path: FieldPath) -> Json:
        if is_constant(schema):
            return constant_of(schema)
        if path == roles.options:
            codes = (
                fixed_labels(schema_at(format.schema, roles.answer or ()))
                if format.answers.are_coded
                else None
            )
            least, most = schema.get("minItems", 2), schema.get("maxItems", NUM_OPTIONS)
            return [""] * (len(codes) if codes else max(least, min(NUM_OPTIONS, most)))
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
            name: value_of(part, (*path, name))
            for name, part in parts.items()
            if name in required and (*path, name) not in roles.ignored
        }

    values: dict[str, Json] = value_of(format.schema, ())
    return values


def most_tokens(encoding: PromptEncoding) -> int:
    """How many tokens a written example may take, from the schema alone."""
    written = leaves({"properties": encoding.field_schemas})
    return sum(_tokens(part, path == encoding.format.roles.context) for path, part in written)


def _tokens(schema: Schema, is_passage: bool) -> int:
    if is_constant(schema):
        return 0
    if fixed_labels(schema) or schema.get("type") in ("integer", "number", "boolean"):
        return _VALUE_TOKENS
    if parts := schema.get("properties"):
        return sum(_VALUE_TOKENS + _tokens(part, is_passage) for part in parts.values())
    if prefix := schema.get("prefixItems"):
        return sum(_tokens(part, is_passage) for part in prefix)
    if "items" in schema:
        number = max(schema.get("minItems", 0), min(_MAX_ITEMS, schema.get("maxItems", _MAX_ITEMS)))
        return int(number) * (_tokens(schema["items"], is_passage) // 2)
    if branches := schema.get("anyOf") or schema.get("oneOf"):
        return max(_tokens(branch, is_passage) for branch in branches)
    default = _PASSAGE_TOKENS if is_passage else _TEXT_TOKENS
    shortest = int(schema.get("minLength", 0)) // _CHARS_PER_TOKEN
    longest = int(schema["maxLength"]) // _CHARS_PER_TOKEN + 1 if "maxLength" in schema else default
    return _VALUE_TOKENS + max(min(longest, _MAX_TEXT_TOKENS), 2 * shortest)
