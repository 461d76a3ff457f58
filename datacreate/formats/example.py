"""One example: a JSON object with an identity."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from datacreate.errors import ExampleError

Json = Any
"""A JSON value: null, a boolean, a number, a string, a list or a mapping of these."""

FieldPath = tuple[str, ...]
"""Where a field is: the keys from the outside in. Written with dots: `review.stars`."""


MOST_NESTING = 20
"""Levels of lists and objects that an example may have: no grammar or table wants more."""

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def canonical_json(value: Json) -> str:
    """The one spelling of a JSON value: sorted keys, no spaces, Unicode as it is."""
    return _encode(value)


def one_line(text: str) -> str:
    """A text of the user's as a message can hold it: what would break the line is spelled out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def dotted(path: FieldPath) -> str:
    """A path as a person reads it, on one line."""
    return one_line(".".join(path))


@dataclass(frozen=True)
class Example:
    """One example of the data set; two with the same values have the same `id`."""

    values: Mapping[str, Json]

    @cached_property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON."""
        text = canonical_json(self.values).encode("utf-8", "surrogatepass")
        return hashlib.sha256(text).hexdigest()[:16]


def field_at(values: Json, path: FieldPath) -> Json:
    """The value at `path`; KeyError or TypeError where there is none."""
    for key in path:
        values = values[key]
    return values


def texts_in(value: Json) -> list[str]:
    """All strings inside a JSON value, in order."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [text for part in value for text in texts_in(part)]
    return []


def flaw_in(value: Json, path: FieldPath = ()) -> str | None:
    """What no line of train.jsonl can hold, in words and with its place; None if there is nothing.

    JSON has no NaN, UTF-8 no half characters, and tables no integers beyond 64 bits.
    """
    where = dotted(path) or "the example"
    if len(path) > MOST_NESTING:
        return f"{where[:60]}: nested deeper than {MOST_NESTING} levels"
    if isinstance(value, str):
        return f"{where}: half a character ({value[:20]!a})" if _halved(value) else None
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where}: {value} is no number in JSON"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return f"{where}: an integer of more than 64 bits"
    if isinstance(value, list):
        return next((flaw for i, part in enumerate(value) if (flaw := flaw_in(part, (*path, str(i))))), None)
    if isinstance(value, dict):
        if odd := [key for key in value if not isinstance(key, str) or _halved(key)]:
            return f"{where}: the key {odd[0]!a} is not a whole text"
        return next((flaw for key, part in value.items() if (flaw := flaw_in(part, (*path, key)))), None)
    if value is None or isinstance(value, int | float):
        return None
    return f"{where}: {type(value).__name__} is no JSON type"


def _halved(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which UTF-8 cannot spell."""
    return not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)


def load_example(path: Path) -> Example:
    """Read the formatting example from a JSON file.

    Raises ExampleError if the file is missing, empty, not JSON, or anything but one object.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ExampleError(f"{path}: no such file; --example takes a JSON file with one object") from None
    except UnicodeDecodeError as error:
        raise ExampleError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise ExampleError(
            f"{path}: cannot be read ({error.strerror}); --example takes a JSON file"
        ) from None
    if not text.strip():
        raise ExampleError(f"{path}: the file is empty; write one JSON object into it")
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ExampleError(f"{path}: not JSON at {where} ({error.msg}); --example takes one object") from None
    except RecursionError:
        raise ExampleError(f"{path}: nested too deeply; {MOST_NESTING} levels are the most") from None
    except ValueError as error:
        raise ExampleError(f"{path}: {error}; fix the example") from None
    if isinstance(value, list):
        raise ExampleError(f"{path}: holds a list of {len(value)}; keep one of its objects")
    if not isinstance(value, dict):
        raise ExampleError(f"{path}: holds {canonical_json(value)[:60]}, not a JSON object; write {{...}}")
    if not value:
        raise ExampleError(f"{path}: the object has no fields; fill in one example")
    if flaw := flaw_in(value):
        raise ExampleError(f"{path}: {flaw}; fix the example")
    return Example(value)


def _without_repeats(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {repeated!r} is there twice")
    return fields
