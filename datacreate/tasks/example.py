"""One example: a JSON object with an identity."""

from __future__ import annotations

import hashlib
import json
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


def canonical_json(value: Json) -> str:
    """The one spelling of a JSON value: sorted keys, no spaces, Unicode as it is."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


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


def load_example(path: Path) -> Example:
    """Read the formatting example from a JSON file.

    Raises ExampleError if the file is missing, empty, not JSON, or anything but one object.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ExampleError(f"{path}: no such file; --example takes a JSON file with one object") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ExampleError(f"{path}: cannot be read ({error}); --example takes a JSON file") from None
    if not text.strip():
        raise ExampleError(f"{path}: the file is empty; write one JSON object into it")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ExampleError(f"{path}: not JSON at {where} ({error.msg}); --example takes one object") from None
    if isinstance(value, list):
        raise ExampleError(f"{path}: holds a list of {len(value)}; keep one of its objects")
    if not isinstance(value, dict):
        raise ExampleError(f"{path}: holds {type(value).__name__}, not a JSON object; write {{...}}")
    if not value:
        raise ExampleError(f"{path}: the object has no fields; fill in one example")
    return Example(value)
