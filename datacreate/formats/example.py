"""Defines `Example`, a JSON object with an id, and reads JSON objects from text."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

Json = Any  # JSON: null, a boolean, a number, a string, a list or a mapping of these
FieldPath = tuple[str, ...]  # the keys that lead to a field, outermost first; messages join them: `review.stars`

JSON_TYPES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    dict: "object",
    list: "array",
}
JSON_TYPES[type(None)] = "null"
"""The name in JSON Schema of each Python type that JSON values have."""

MAX_NESTING = 20  # the most lists and objects of an example that can be inside each other

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def canonical_json(value: Json) -> str:
    """A JSON value as text: sorted keys, no spaces, Unicode not escaped. Equal values give equal texts."""
    return _encode(value)


def one_line(text: str) -> str:
    """A text of the user for a message, with line breaks and control characters escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def dotted(path: FieldPath) -> str:
    """The path for messages: its keys joined by dots, in one line."""
    return one_line(".".join(path))


@dataclass(frozen=True)
class Example:
    """One example of the data set. Equal values have equal ids."""

    values: Mapping[str, Json]
    origin: str = field(default="", compare=False)  # file and line, for messages: `mine.csv: line 3`

    @property
    def where(self) -> str:
        """The start of a message about the example: its origin and a colon, or nothing."""
        return f"{self.origin}: " if self.origin else ""

    @cached_property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON."""
        text = canonical_json(self.values).encode("utf-8", "surrogatepass")
        return hashlib.sha256(text).hexdigest()[:16]


def field_at(values: Json, path: FieldPath) -> Json:
    """The value at `path`. Raises KeyError or TypeError if there is none."""
    for key in path:
        values = values[key]
    return values


def fields_of(values: Mapping[str, Json], path: FieldPath = ()) -> Iterator[tuple[FieldPath, Json]]:
    """Every field with its path, also those inside objects. An object comes before its own fields."""
    for key, value in values.items():
        yield (*path, key), value
        if isinstance(value, Mapping):
            yield from fields_of(value, (*path, key))


def leaf_values(values: Mapping[str, Json]) -> Iterator[tuple[FieldPath, Json]]:
    """Every field that is not an object, with its path."""
    return ((path, value) for path, value in fields_of(values) if not isinstance(value, Mapping))


def value_at(values: Json, path: FieldPath | None) -> Json:
    """The value at `path`; None if there is none."""
    try:
        return None if path is None else field_at(values, path)
    except (KeyError, TypeError):
        return None


def replace_field(values: Mapping[str, Json], path: FieldPath, value: Json) -> dict[str, Json]:
    """A copy of `values` with this value at `path`; missing objects on the way are added."""
    inner = value if len(path) == 1 else replace_field(values.get(path[0], {}), path[1:], value)
    return {**values, path[0]: inner}


def values_in(value: Json) -> list[str]:
    """All strings, numbers and booleans in a JSON value, as texts, in order: `["a", "3"]` of `["a", {"n": 3}]`."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [text for part in parts for text in values_in(part)]
    return [] if value is None else [str(value)]


def field_text(value: Json) -> str:
    """A field for people to read: a text, texts joined by dots, a line per turn of a conversation, others as JSON."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return " · ".join(value)
    if isinstance(value, list) and all(map(_is_turn, value)):
        return "\n".join(": ".join(turn.values()) for turn in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_turn(value: Json) -> bool:
    """Whether a value is a turn of a conversation that has only a role and a text."""
    is_turn = isinstance(value, dict) and list(value) in (["role", "content"], ["from", "value"])
    return is_turn and all(isinstance(part, str) for part in value.values())


def shorten(value: Json, longest: int = 400) -> str:
    """The value as a text, cut to `longest` characters and `…`. Strings stay as they are, other values become JSON."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        text = "(nested too deeply to show)"
    if len(text) > longest:
        text = text[:longest] + "…"
    return text.encode("utf-8", "replace").decode("utf-8")


def find_unsupported_value(value: Json, path: FieldPath = ()) -> str | None:
    """A message about the first value that train.jsonl or a table cannot hold, such as NaN; None without such a value.

    `path` is where the value is in the example; the message names the place: `review.score: JSON has no nan`.
    """
    if len(path) > MAX_NESTING:
        return f"{dotted(path)[:60]}: nested deeper than {MAX_NESTING} levels"
    if not isinstance(value, dict | list):
        problem = _problem_of_scalar(value)
        return f"{dotted(path) or 'the example'}: {problem}" if problem else None
    parts = value if isinstance(value, dict) else {str(i): part for i, part in enumerate(value)}
    for key in parts:
        if not isinstance(key, str) or _has_surrogate(key):
            return f"{dotted(path) or 'the example'}: the key {key!a} is not a valid string"
    messages = (find_unsupported_value(part, (*path, key)) for key, part in parts.items())
    return next(filter(None, messages), None)


def _problem_of_scalar(value: Json) -> str | None:
    match value:
        case str() if _has_surrogate(value):
            return f"invalid Unicode, a lone surrogate ({value[:20]!a})"
        case float() if not math.isfinite(value):
            return f"JSON has no {value}"
        case int() if not -(2**63) <= value < 2**63:
            return "an integer of more than 64 bits"
        case None | str() | float() | int():  # a boolean is an int
            return None
    return f"{type(value).__name__} is not a JSON type"


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)


def parse_object(content: bytes | str, *, is_example: bool = True) -> dict[str, Json]:
    """The JSON object in a text, or in bytes of UTF-8.

    Raises ValueError with a message of one line for anything else, and with `is_example` also for what
    `find_unsupported_value` reports. Without it the object may be deeper, as a schema is.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=unique_keys)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        where = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"not JSON at {where} ({error.msg})" if content.strip() else "empty") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_NESTING} levels") from None
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object: {canonical_json(value)[:60]}")
    if is_example and (message := find_unsupported_value(value)):
        raise ValueError(message)
    return value


def unique_keys(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """Make an object of its keys and values, for `json.loads(object_pairs_hook=...)`. ValueError for a repeated key."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {repeated!r} appears twice")
    return values
