"""What a JSON Schema cannot say about conversations, function calls and tags.

The formats are in schemas/. Values have passed their schema before a function of this module gets them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import cycle, islice
from json import loads

import jsonschema
from referencing import Registry
from referencing.exceptions import Unresolvable

from datacreate.formats.example import Json, canonical_json
from datacreate.formats.schema_keywords import resolve
from datacreate.formats.schema_utils import Schema

Turns = Sequence[Mapping[str, Json]]
"""A conversation: objects with `role` and `content`, or with `from` and `value` (ShareGPT)."""

_ROLES = {"human": "user", "gpt": "assistant"}

_NO_ARGUMENTS: Schema = {"type": "object", "properties": {}, "additionalProperties": False}


def as_messages(turns: Turns) -> list[dict[str, str]]:
    """The turns as messages with `role` (system, user or assistant) and `content`."""
    role, content = ("from", "value") if "from" in turns[0] else ("role", "content")
    return [
        {"role": _ROLES.get(turn[role]) or str(turn[role]), "content": str(turn[content])} for turn in turns
    ]


def prompt_texts(turns: Turns) -> list[str]:
    """What the assistant answers to: the texts of the system and of the user."""
    return [message["content"] for message in as_messages(turns) if message["role"] != "assistant"]


def turns_alternate(turns: Turns) -> bool:
    """Whether user and assistant take turns, from the user to the assistant, after at most one system message."""
    roles = [message["role"] for message in as_messages(turns)]
    roles = roles[roles[0] == "system" :]
    return bool(roles) and roles == ["user", "assistant"] * (len(roles) // 2)


def with_turns(turns: Turns, number: int) -> list[Mapping[str, Json]]:
    """As many pairs of a user's and an assistant's turn; the last ones are left out, or all are repeated."""
    start = as_messages(turns)[0]["role"] == "system"
    return [*turns[:start], *islice(cycle(turns[start:]), 2 * number)]


def turns_schema(schema: Schema, turns: Turns) -> Schema:
    """The schema of a conversation with the roles of `turns`, which are constants."""
    item = schema["items"]
    role = "from" if "from" in item["properties"] else "role"
    items = [{**item, "properties": {**item["properties"], role: {"const": turn[role]}}} for turn in turns]
    return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


def call_schema(tools: Sequence[Mapping[str, Json]]) -> Schema:
    """The schema of a call of one of the tools, one branch for each. Raises FormatError for unusable parameters.

    A grammar requires all properties, so that a function with optional arguments has a second variant without them.
    """
    variants = []
    for name, parameters in _parameters(tools).items():
        exact = resolve({"properties": {"arguments": parameters}}, f"the tool {name}")["properties"][
            "arguments"
        ]
        required = {
            key: part for key, part in exact.get("properties", {}).items() if key in exact.get("required", ())
        }
        least = {**exact, "properties": required, "additionalProperties": False}
        for arguments in [least, exact] if required != exact.get("properties", {}) else [exact]:
            parts: dict[str, Json] = {"name": {"const": name}, "arguments": arguments}
            variants.append({"properties": parts})
    parts = {"name": {"enum": list(_parameters(tools))}, "arguments": {"type": "object"}}
    closed = {"required": list(parts), "additionalProperties": False}
    return {"type": "object", "properties": parts, **closed, "anyOf": variants}


def call_fits(call: Mapping[str, Json], tools: Sequence[Mapping[str, Json]]) -> bool:
    """Whether a call names one of the tools, and its arguments are valid under the tool's parameters."""
    parameters = _parameters(tools).get(call["name"])
    return parameters is not None and _arguments_are_valid(canonical_json(parameters), call["arguments"])


def _arguments_are_valid(parameters: str, arguments: Json) -> bool:
    validator = _validator(parameters)
    try:
        return validator is not None and validator.is_valid(arguments)
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
