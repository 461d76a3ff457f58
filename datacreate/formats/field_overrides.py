"""What the user tells about fields: `--labels FIELD=a,b,c` and `--range FIELD=low..high`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from datacreate.errors import ExampleError, UsageError
from datacreate.formats.example import Example, FieldPath, Json, dotted, field_at

_SCALARS = {str: "string", bool: "boolean", int: "integer", float: "number"}


def schemas_told(
    example: Example, labels: Mapping[str, str], ranges: Mapping[str, str]
) -> dict[FieldPath, dict[str, Json]]:
    """The schema of each field that the user spoke of.

    Raises UsageError if what was said makes no sense, ExampleError if the example contradicts it.
    """
    told: dict[FieldPath, dict[str, Json]] = {}
    for flag, given in (("--labels", labels), ("--range", ranges)):
        for name, said in given.items():
            path, value = _field(example, name, flag)
            if path in told:
                raise UsageError(f"{name} has both --labels and --range; say one of them")
            told[path] = _labels(said, value, name) if flag == "--labels" else _range(said, value, name)
    return told


def leaves(value: Json, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Json]]:
    """Every field that is not an object, with its path."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from leaves(part, (*path, key))
    else:
        yield path, value


def _field(example: Example, name: str, flag: str) -> tuple[FieldPath, Json]:
    """The field of a dotted name. Keys may have dots themselves, so names are compared, not split."""
    paths = [path for path, _ in leaves(example.values)]
    path = next((path for path in paths if ".".join(path) == name), None)
    if path is None:
        known = ", ".join(map(dotted, paths))
        raise UsageError(f"{flag} {name}: the example has no such field; it has {known}")
    value = field_at(example.values, path)
    if type(value) not in _SCALARS:
        held = "null" if value is None else "a list"
        raise UsageError(
            f"{flag} {name}: the example has {held} there, not one value; put one of the values there"
        )
    return path, value


def _labels(said: str, value: Json, name: str) -> dict[str, Json]:
    """An enumeration of comma-separated values, in the type that the example's field has."""
    parts = [part.strip() for part in said.split(",") if part.strip()]
    kind = type(value)
    try:
        labels = [_as(part, kind) for part in parts]
    except ValueError:
        raise UsageError(
            f"--labels {name}={said}: the example's {name} is of type {_SCALARS[kind]}"
        ) from None
    if len(set(labels)) < 2 or len(set(labels)) != len(labels):
        raise UsageError(f"--labels {name}={said}: give two or more different values, separated by commas")
    if value not in labels:
        raise ExampleError(f"{name}: the example has {value!r}, which is not among the values given, {said}")
    return {"type": _SCALARS[kind], "enum": labels}


def _as(text: str, kind: type) -> Json:
    """A value as typed on the command line; ValueError if it is not of this kind."""
    if kind is bool:
        return ("false", "true").index(text.casefold()) == 1
    number = kind(text)
    if kind is float and not math.isfinite(number):
        raise ValueError(text)
    return number


def _range(said: str, value: Json, name: str) -> dict[str, Json]:
    low, _, high = said.partition("..")
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UsageError(f"--range {name}={said}: the example's {name} is not a number")
    try:
        bounds = _as(low, type(value)), _as(high, type(value))
    except ValueError:
        raise UsageError(f"--range {name}={said}: write it as LOW..HIGH, e.g. --range {name}=1..5") from None
    if bounds[0] >= bounds[1]:
        raise UsageError(f"--range {name}={said}: the lower end must be below the upper one")
    if not bounds[0] <= value <= bounds[1]:
        raise ExampleError(f"{name}: the example has {value!r}, which is not in the range given, {said}")
    return {"type": _SCALARS[type(value)], "minimum": bounds[0], "maximum": bounds[1]}
