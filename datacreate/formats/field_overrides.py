"""Parses what the user says about fields: `--labels FIELD=a,b,c` and `--range FIELD=low..high`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from datacreate.errors import ExampleError, UsageError
from datacreate.formats.example import Example, FieldPath, Json, dotted, field_at

_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number"}


def field_overrides(
    example: Example, labels: Mapping[str, str], ranges: Mapping[str, str]
) -> dict[FieldPath, dict[str, Json]]:
    """The schema of each field with --labels or --range.

    Raises UsageError for an invalid value, ExampleError if the example contradicts it.
    """
    schemas: dict[FieldPath, dict[str, Json]] = {}
    for option, given in (("--labels", labels), ("--range", ranges)):
        for name, text in given.items():
            path, value = _find_field(example, name, option)
            if path in schemas:
                raise UsageError(f"{name} has both --labels and --range; give one of them")
            parse = _parse_labels if option == "--labels" else _parse_range
            schemas[path] = parse(text, value, name)
    return schemas


def leaves(value: Json, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Json]]:
    """Every field that is not an object, with its path."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from leaves(part, (*path, key))
    else:
        yield path, value


def _find_field(example: Example, name: str, option: str) -> tuple[FieldPath, Json]:
    # A key can contain dots, so names are compared as a whole.
    paths = [path for path, _ in leaves(example.values)]
    path = next((path for path in paths if ".".join(path) == name), None)
    if path is None:
        known = ", ".join(map(dotted, paths))
        raise UsageError(f"{option} {name}: the example has no such field; it has {known}")
    value = field_at(example.values, path)
    if type(value) not in _TYPES:
        kind = "null" if value is None else "a list"
        raise UsageError(f"{option} {name}: the example has {kind} there; put one of the values there")
    return path, value


def _parse_labels(text: str, value: Json, name: str) -> dict[str, Json]:
    """An enumeration of comma-separated values, in the type of the example's value."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    kind = type(value)
    try:
        labels = [_convert(part, kind) for part in parts]
    except ValueError:
        raise UsageError(f"--labels {name}={text}: the example's {name} is of type {_TYPES[kind]}") from None
    if len(set(labels)) < 2 or len(set(labels)) != len(labels):
        raise UsageError(f"--labels {name}={text}: give two or more different values, separated by commas")
    if value not in labels:
        raise ExampleError(f"{name}: the example has {value!r}, which is not one of {text}; fix one of them")
    return {"type": _TYPES[kind], "enum": labels}


def _convert(text: str, kind: type) -> Json:
    """A value from the command line. Raises ValueError if it is not of this type."""
    if kind is bool:
        return ("false", "true").index(text.casefold()) == 1
    number = kind(text)
    if kind is float and not math.isfinite(number):
        raise ValueError(text)
    return number


def _parse_range(text: str, value: Json, name: str) -> dict[str, Json]:
    low, _, high = text.partition("..")
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UsageError(f"--range {name}={text}: the example's {name} is not a number")
    try:
        bounds = _convert(low, type(value)), _convert(high, type(value))
    except ValueError:
        raise UsageError(f"--range {name}={text}: write LOW..HIGH, e.g. --range {name}=1..5") from None
    if bounds[0] >= bounds[1]:
        raise UsageError(f"--range {name}={text}: LOW must be less than HIGH")
    if not bounds[0] <= value <= bounds[1]:
        raise ExampleError(f"{name}: the example has {value!r}, which is outside {text}; fix one of them")
    return {"type": _TYPES[type(value)], "minimum": bounds[0], "maximum": bounds[1]}
