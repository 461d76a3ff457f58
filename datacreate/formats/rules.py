"""Defines `Rule`, a condition between the fields of one example, and what is special about some kinds of examples.

These kinds are spans, conversations, tags and function calls: their rules, their texts, and how the schema of a format
is narrowed to the formatting examples. All functions expect values that are valid under their schema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import chain, cycle, islice, repeat
from json import loads
from typing import Self

import jsonschema
from referencing import Registry
from referencing.exceptions import Unresolvable

from datacreate.errors import ExampleError, FormatError
from datacreate.formats.example import Example, FieldPath, Json, canonical_json, dotted, field_at, value_at
from datacreate.formats.reject import RejectReason
from datacreate.formats.roles import Answers, Roles
from datacreate.formats.schema_keywords import resolve_refs
from datacreate.formats.schema_utils import Schema, object_schema, schema_at, tuple_schema, with_field
from datacreate.formats.text_normalization import normalize_text


class Rule(StrEnum):
    """A condition on several fields of an example, which JSON Schema cannot express."""

    needed_roles: tuple[str, ...]  # each needs a field
    reject_reason: RejectReason  # of an example that does not satisfy the rule
    meaning: str  # what the rule asks for, for messages

    def __new__(cls, value: str, needed_roles: tuple[str, ...], reject_reason: RejectReason, meaning: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.needed_roles, member.reject_reason, member.meaning = needed_roles, reject_reason, meaning
        return member

    ANSWER_IN_OPTIONS = (
        "answer_in_options",
        ("answer", "options"),
        RejectReason.ANSWER_NOT_IN_OPTIONS,
        "the answer must be one of the options",
    )
    ANSWER_IN_CONTEXT = (
        "answer_in_context",
        ("answer", "context"),
        RejectReason.ANSWER_NOT_IN_CONTEXT,
        "the answer must be a part of the context",
    )
    OPTIONS_DIFFER = ("options_differ", ("options",), RejectReason.DUPLICATE_OPTIONS, "no two options may be the same")
    CHOSEN_DIFFERS = (
        "chosen_differs",
        ("answer", "rejected"),
        RejectReason.EQUAL_ANSWERS,
        "the better and the worse answer must differ",
    )
    TURNS_ALTERNATE = (
        "turns_alternate",
        ("turns",),
        RejectReason.WRONG_TURNS,
        "after a system message, if any, the user must begin, and the assistant answer each message",
    )
    ONE_TAG_PER_TOKEN = ("one_tag_per_token", ("inputs", "tags"), RejectReason.WRONG_TAGS, "each token must have a tag")
    CALL_FITS_TOOL = (
        "call_fits_tool",
        ("answer", "tools"),
        RejectReason.INVALID_CALL,
        "the call must name one of the tools, with arguments that it takes",
    )

    def holds(self, answers: Answers, values: Mapping[str, Json]) -> bool:
        """Whether an example satisfies the rule. Raises KeyError or TypeError if a field that it needs is missing."""
        roles = answers.roles
        match self:
            case Rule.ANSWER_IN_OPTIONS:
                return answers.right_index(values) is not None
            case Rule.ANSWER_IN_CONTEXT:
                answer, context = field_at(values, roles.answer or ()), value_at(values, roles.context)
                return isinstance(context, str) and is_extracted(answer, context, value_at(values, roles.answer_start))
            case Rule.OPTIONS_DIFFER:
                options = [normalize_text(str(option)) for option in field_at(values, roles.options or ())]
                return len(set(options)) == len(options)
            case Rule.CHOSEN_DIFFERS:
                chosen, rejected = (field_at(values, path or ()) for path in (roles.answer, roles.rejected))
                return normalize_text(str(chosen)) != normalize_text(str(rejected))
            case Rule.TURNS_ALTERNATE:
                speakers = [message["role"] for message in as_messages(field_at(values, roles.turns or ()))]
                speakers = speakers[speakers[:1] == ["system"] :]
                return bool(speakers) and speakers == ["user", "assistant"] * (len(speakers) // 2)
            case Rule.ONE_TAG_PER_TOKEN:
                lists = filter(None, (value_at(values, path) for path in (roles.inputs[0], *roles.tags)))
                return len(set(map(len, lists))) == 1
            case Rule.CALL_FITS_TOOL:
                return call_fits(field_at(values, roles.call or ()), field_at(values, roles.tools or ()))


Turns = Sequence[Mapping[str, Json]]
"""A conversation: objects with `role` and `content`, or with `from` and `value` (ShareGPT)."""

_OPENAI_ROLES = {"human": "user", "gpt": "assistant"}

_NO_ARGUMENTS: Schema = {"type": "object", "properties": {}, "additionalProperties": False}

_WORD_CHARACTER = r"[^\W_\u0530-\u1dff\u2c00-\U0010ffff]"
"""A digit, or a letter of an alphabet that puts spaces around every word: Latin, Greek, Cyrillic."""


def find_span(answer: str, context: str) -> int | None:
    """The index of the first character where the answer occurs in the context, as whole words.

    None if it does not occur, or if the context has no other letters or digits.
    """
    word_start = rf"(?<!{_WORD_CHARACTER})" if re.match(_WORD_CHARACTER, answer) else ""
    word_end = rf"(?!{_WORD_CHARACTER}|[\u0300-\u036f])" if re.search(rf"{_WORD_CHARACTER}$", answer) else ""
    for match in re.finditer(word_start + re.escape(answer) + word_end, context):
        if any(map(str.isalnum, context[: match.start()] + context[match.end() :])):
            return match.start()
    return None


def context_spelling(answer: str, context: str) -> str:
    """The answer as the context spells it, if only case, space or outer punctuation differ; else the answer unchanged.

    `"the elbe."` becomes `"The Elbe"` if the context has these words.
    """
    words = answer.strip(" \t\n.,:;!?\"'“”‘’").split()
    matches = re.finditer(r"\s+".join(map(re.escape, words)), context, re.IGNORECASE) if words else ()
    spans = (match[0] for match in matches)
    return next((span for span in spans if find_span(span, context) is not None), answer)


def is_extracted(answer: Json, context: str, start: Json = None) -> bool:
    """Whether the answer, or each of several, is a span of the context, at the index `start` unless it is None."""
    spans = [str(span) for span in (answer if isinstance(answer, list) else [answer])]
    if start is None:
        return all(find_span(span, context) is not None for span in spans)
    starts = start if isinstance(start, list) else [start]
    are_there = (
        isinstance(i, int) and context[i : i + len(span)] == span for span, i in zip(spans, starts, strict=False)
    )
    return len(spans) == len(starts) and all(are_there)


def turn_fields(turn: Container[str]) -> tuple[str, str]:
    """The fields of a turn with its speaker and its text: `role` and `content`, or those of ShareGPT."""
    pairs = (("role", "content"), ("from", "value"))
    return next((pair for pair in pairs if all(name in turn for name in pair)), pairs[0])


def speaker_field(value: Json) -> str | None:
    """The field of messages that says who speaks: `role`, or `from` of ShareGPT; None for any other value."""
    if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
        return None
    speaker, text = turn_fields(value[0])
    return speaker if {speaker, text} <= value[0].keys() else None


def as_messages(turns: Turns) -> list[dict[str, str]]:
    """The turns as messages with `role` (system, user or assistant) and `content`, also those of ShareGPT."""
    role, content = turn_fields(turns[0] if turns else ())
    return [{"role": _OPENAI_ROLES.get(turn[role]) or str(turn[role]), "content": str(turn[content])} for turn in turns]


def with_turns(turns: Turns, count: int) -> list[Mapping[str, Json]]:
    """The conversation cut or repeated, so that it has `count` turns of the user, each with its answer.

    A system message at its start stays.
    """
    first = int(any(message["role"] == "system" for message in as_messages(turns[:1])))
    return [*turns[:first], *islice(cycle(turns[first:]), 2 * count)]


def check_rules(name: str, rules: Collection[Rule], roles: Roles) -> None:
    """Raise FormatError, with the `name` of the format, if a rule needs a role that no field has."""
    for rule in sorted(rules):
        for role in rule.needed_roles:
            if not getattr(roles, role):
                raise FormatError(f"{name}: the rule {rule} needs the role {role}; give it to a required field")


def texts_of_kind(roles: Roles, path: FieldPath, value: Json) -> list[str] | None:
    """The texts of an input that is a conversation, or tokens with tags; None for another input."""
    if path == roles.turns:
        return [message["content"] for message in as_messages(value) if message["role"] != "assistant"]
    if roles.tags and path == roles.inputs[0]:
        return [" ".join(map(str, value))]
    return None


def specialize_kind(
    schema: Schema, roles: Roles, rows: Sequence[Mapping[str, Json]], num_turns: int | None = None
) -> Schema:
    """Narrow conversations to the speakers of the longest one, and to `num_turns`, and calls to the functions given."""
    conversations = [turns for row in rows if (turns := value_at(row, roles.turns))]  # the field may be optional
    if roles.turns and conversations:
        turns = max(conversations, key=len)
        turns = with_turns(turns, num_turns) if num_turns else turns
        schema = with_field(schema, roles.turns, turns_schema(schema_at(schema, roles.turns), turns))
    if roles.tools and roles.call and (tools := value_at(rows[0], roles.tools)):
        schema = with_field(schema, roles.tools, {"const": tools})
        schema = with_field(schema, roles.call, call_schema(tools))
    return schema


def check_alike(roles: Roles, example: Example, first: Example) -> None:
    """Raise ExampleError unless both examples have the same number of options, keys, tools and first role."""
    properties: dict[str, tuple[FieldPath | None, Callable[[Json], object]]] = {
        "number of options": (roles.options, len),
        "letters": (roles.keys, list),
        "tools": (roles.tools, list),
        "role of the first message": (roles.turns, lambda turns: as_messages(turns[:1])[0]["role"]),
    }
    for name, (path, property_of) in properties.items():
        value, first_value = value_at(example.values, path), value_at(first.values, path)
        if path and value and first_value and property_of(value) != property_of(first_value):
            raise ExampleError(f"{example.where}{dotted(path)}: all examples need the same {name}; make them alike")


def turn_schemas(schema: Schema) -> Sequence[Schema]:
    """The schemas of the turns of a conversation; the last one is also that of all turns after it. () if it is none."""
    parts = schema.get("prefixItems") or [schema.get("items") or {}]
    fields = [part.get("properties", {}) for part in parts]
    return parts if all(names.keys() >= {*turn_fields(names)} for names in fields) else ()


def turns_schema(schema: Schema, turns: Turns) -> Schema:
    """The schema of conversations that are as long as `turns`, and in which each turn has the same role as there."""
    parts = turn_schemas(schema)
    role, _ = turn_fields(parts[0]["properties"])
    items = [
        {**part, "properties": {**part["properties"], role: {"const": turn[role]}}}
        for turn, part in zip(turns, chain(parts, repeat(parts[-1])), strict=False)
    ]
    return tuple_schema(items)


def call_schema(tools: Sequence[Mapping[str, Json]]) -> Schema:
    """The schema of a call of one of the tools: `{"name": ..., "arguments": {...}}`, with a branch for each tool.

    Raises FormatError if the parameters of a tool are not a schema that can be used.
    """
    branches: list[Schema] = []
    for name, parameters in _parameters(tools).items():
        resolved = resolve_refs({"properties": {"arguments": parameters}}, f"the tool {name}")
        complete = resolved["properties"]["arguments"]
        properties = complete.get("properties", {})
        required = {key: part for key, part in properties.items() if key in complete.get("required", ())}
        # The response schema requires all properties: optional arguments need a second branch, without them.
        minimal = {**complete, "properties": required, "additionalProperties": False}
        branches += [
            {"properties": {"name": {"const": name}, "arguments": arguments}}
            for arguments in ([minimal, complete] if required != properties else [complete])
        ]
    call = {"name": {"enum": list(_parameters(tools))}, "arguments": {"type": "object"}}
    return {**object_schema(call), "anyOf": branches}


def call_fits(call: Mapping[str, Json], tools: Sequence[Mapping[str, Json]]) -> bool:
    """Whether the call names one of the tools, and its arguments are valid under the parameters of that tool."""
    parameters = _parameters(tools).get(call["name"])
    validator = _validator(canonical_json(parameters)) if parameters is not None else None
    try:
        return validator is not None and validator.is_valid(call["arguments"])
    except Unresolvable:
        return False


@lru_cache(maxsize=1024)
def _validator(parameters: str) -> jsonschema.Draft202012Validator | None:
    """The validator of arguments, from their schema as JSON; None if that is not a valid schema."""
    schema = loads(parameters)
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError:
        return None
    return jsonschema.Draft202012Validator(schema, registry=Registry())  # nothing is downloaded


def _parameters(tools: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """The schema of the arguments of each tool, by the name of the tool, which OpenAI's API wraps in `function`.

    Raises KeyError or TypeError if a tool has no name, or is not an object.
    """
    functions = [tool["function"] if "function" in tool else tool for tool in tools]  # noqa: SIM401 (texts have no `get`)
    return {function["name"]: function.get("parameters") or _NO_ARGUMENTS for function in functions}
