"""Defines `Rule`: conditions between the fields of one example, which a JSON Schema cannot express.

Also what else a schema cannot express about conversations and function calls, whose formats are in schemas/. Values
have passed their schema before a function of this module gets them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import cycle, islice
from json import loads

import jsonschema
from referencing import Registry
from referencing.exceptions import Unresolvable

from datacreate.errors import ExampleError, FormatError
from datacreate.formats.example import Example, FieldPath, Json, canonical_json, dotted, field_at, value_at
from datacreate.formats.roles import Answers, Roles
from datacreate.formats.schema_keywords import resolve_refs
from datacreate.formats.schema_utils import Schema
from datacreate.formats.text_normalization import normalize_text


class Rule(StrEnum):
    ANSWER_IN_OPTIONS = "answer_in_options"
    ANSWER_IN_CONTEXT = "answer_in_context"
    OPTIONS_DIFFER = "options_differ"
    CHOSEN_DIFFERS = "chosen_differs"
    TURNS_ALTERNATE = "turns_alternate"
    ONE_TAG_PER_TOKEN = "one_tag_per_token"
    CALL_FITS_TOOL = "call_fits_tool"


_ROLES_OF_RULE: Mapping[Rule, tuple[str, ...]] = {
    Rule.ANSWER_IN_OPTIONS: ("answer", "options"),
    Rule.ANSWER_IN_CONTEXT: ("answer", "context"),
    Rule.OPTIONS_DIFFER: ("options",),
    Rule.CHOSEN_DIFFERS: ("answer", "rejected"),
    Rule.TURNS_ALTERNATE: ("turns",),
    Rule.ONE_TAG_PER_TOKEN: ("inputs", "tags"),
    Rule.CALL_FITS_TOOL: ("answer", "tools"),
}

Turns = Sequence[Mapping[str, Json]]
"""A conversation: objects with `role` and `content`, or with `from` and `value` (ShareGPT)."""

_ROLES = {"human": "user", "gpt": "assistant"}

_NO_ARGUMENTS: Schema = {"type": "object", "properties": {}, "additionalProperties": False}

_LETTER = r"[^\W_\u0530-\u1dff\u2c00-\U0010ffff]"
"""A digit, or a letter of an alphabet that puts spaces around every word: Latin, Greek, Cyrillic."""


def find_span(answer: str, context: str) -> int | None:
    """Where the answer is in the context: it begins and ends where words do, and is not all of it; else None."""
    before = rf"(?<!{_LETTER})" if re.match(_LETTER, answer) else ""
    after = rf"(?!{_LETTER}|[\u0300-\u036f])" if re.search(rf"{_LETTER}$", answer) else ""
    for found in re.finditer(before + re.escape(answer) + after, context):
        if any(map(str.isalnum, context[: found.start()] + context[found.end() :])):
            return found.start()
    return None


def as_written(answer: str, context: str) -> str:
    """The answer as the context has it, if only case, space or punctuation around it differ; else unchanged."""
    words = answer.strip(" \t\n.,:;!?\"'“”‘’").split()
    found = re.finditer(r"\s+".join(map(re.escape, words)), context, re.IGNORECASE) if words else ()
    spans = (match[0] for match in found)
    return next((span for span in spans if find_span(span, context) is not None), answer)


def rule_holds(rule: Rule, answers: Answers, values: Mapping[str, Json]) -> bool:
    """Whether an example satisfies `rule`. The fields of the rule must exist."""
    roles = answers.roles
    if rule is Rule.OPTIONS_DIFFER:
        options = [normalize_text(str(option)) for option in field_at(values, roles.options or ())]
        return len(set(options)) == len(options)
    if rule is Rule.ANSWER_IN_OPTIONS:
        return answers.chosen(values) is not None
    if rule is Rule.TURNS_ALTERNATE:
        speakers = [message["role"] for message in as_messages(field_at(values, roles.turns or ()))]
        speakers = speakers[speakers[:1] == ["system"] :]
        return bool(speakers) and speakers == ["user", "assistant"] * (len(speakers) // 2)
    if rule is Rule.ONE_TAG_PER_TOKEN:
        lists = filter(None, (value_at(values, path) for path in (roles.inputs[0], *roles.tags)))
        return len(set(map(len, lists))) == 1
    if rule is Rule.CALL_FITS_TOOL:
        return call_fits(field_at(values, roles.call or ()), field_at(values, roles.tools or ()))
    answer = field_at(values, roles.answer or ())
    if rule is Rule.CHOSEN_DIFFERS:
        return normalize_text(str(answer)) != normalize_text(str(field_at(values, roles.rejected or ())))
    context, starts = value_at(values, roles.context), value_at(values, roles.answer_start)
    return isinstance(context, str) and _is_extracted(answer, context, starts)


def _is_extracted(answer: Json, context: str, start: Json) -> bool:
    """Whether the answer, or each of several, is a span of the context; it is at `start`, if that is known."""
    texts = [str(each) for each in (answer if isinstance(answer, list) else [answer])]
    if start is None:
        return all(find_span(text, context) is not None for text in texts)
    starts = start if isinstance(start, list) else [start]
    same = (context[at : at + len(text)] == text for text, at in zip(texts, starts, strict=False))
    return len(texts) == len(starts) and all(same)


def as_messages(turns: Turns) -> list[dict[str, str]]:
    """The turns as messages with `role` (system, user or assistant) and `content`."""
    role, content = ("from", "value") if turns and "from" in turns[0] else ("role", "content")
    return [
        {"role": _ROLES.get(turn[role]) or str(turn[role]), "content": str(turn[content])} for turn in turns
    ]


def with_turns(turns: Turns, number: int) -> list[Mapping[str, Json]]:
    """As many pairs of a user's and an assistant's turn; the last ones are left out, or all are repeated."""
    start = any(message["role"] == "system" for message in as_messages(turns[:1]))
    return [*turns[:start], *islice(cycle(turns[start:]), 2 * number)]


def check_rules(name: str, rules: Collection[Rule], roles: Roles) -> None:
    """Raise FormatError, with the name of the format, if a rule needs a role that no field has."""
    for rule in sorted(rules):
        for role in _ROLES_OF_RULE[rule]:
            if not getattr(roles, role):
                raise FormatError(
                    f"{name}: the rule {rule} needs the role {role}; give it to a required field"
                )


def check_alike(roles: Roles, example: Example, first: Example) -> None:
    """Raise ExampleError for another number of options, other keys, tools, or another start of a conversation."""
    forms: dict[str, tuple[FieldPath | None, Callable[[Json], object]]] = {
        "number of options": (roles.options, len),
        "letters": (roles.keys, list),
        "tools": (roles.tools, list),
        "role of the first message": (roles.turns, lambda turns: as_messages(turns[:1])[0]["role"]),
    }
    for what, (path, form) in forms.items():
        values = [value_at(each.values, path) for each in (example, first)]
        if path and all(values) and form(values[0]) != form(values[1]):
            raise ExampleError(
                f"{example.where}{dotted(path)}: all examples need the same {what}; make them alike"
            )


def turns_schema(schema: Schema, turns: Turns) -> Schema:
    """The schema of a conversation with the roles of `turns`, which are constants."""
    item = schema["items"]
    role = "from" if "from" in item["properties"] else "role"
    items = [{**item, "properties": {**item["properties"], role: {"const": turn[role]}}} for turn in turns]
    return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


def call_schema(tools: Sequence[Mapping[str, Json]]) -> Schema:
    """The schema of a call of one of the tools, one branch for each. Raises FormatError for unusable parameters."""
    variants = []
    for name, parameters in _parameters(tools).items():
        resolved = resolve_refs({"properties": {"arguments": parameters}}, f"the tool {name}")
        exact = resolved["properties"]["arguments"]
        every = exact.get("properties", {})
        required = {key: part for key, part in every.items() if key in exact.get("required", ())}
        # A grammar requires all properties: optional arguments need a second variant, without them.
        least = {**exact, "properties": required, "additionalProperties": False}
        for arguments in [least, exact] if required != every else [exact]:
            parts: dict[str, Json] = {"name": {"const": name}, "arguments": arguments}
            variants.append({"properties": parts})
    parts = {"name": {"enum": list(_parameters(tools))}, "arguments": {"type": "object"}}
    closed = {"required": list(parts), "additionalProperties": False}
    return {"type": "object", "properties": parts, **closed, "anyOf": variants}


def call_fits(call: Mapping[str, Json], tools: Sequence[Mapping[str, Json]]) -> bool:
    """Whether a call names one of the tools, and its arguments are valid under the tool's parameters."""
    parameters = _parameters(tools).get(call["name"])
    validator = _validator(canonical_json(parameters)) if parameters is not None else None
    try:
        return validator is not None and validator.is_valid(call["arguments"])
    except Unresolvable:
        return False


@lru_cache(maxsize=1024)
def _validator(parameters: str) -> jsonschema.Draft202012Validator | None:
    schema = loads(parameters)
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError:
        return None
    return jsonschema.Draft202012Validator(schema, registry=Registry())  # nothing is downloaded


def _parameters(tools: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """Name of each tool -> the schema of its arguments. OpenAI's API wraps a tool in `function`."""
    functions = [tool.get("function", tool) for tool in tools]
    return {function["name"]: function.get("parameters") or _NO_ARGUMENTS for function in functions}
