"""Questions about a JSON Schema: is a field constant, does it have fixed labels, where is its free text.

Schemas have no `$ref` here: schema_keywords.py resolves them. `properties` lists all properties of an object.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from datacreate.formats.example import FieldPath, Json, strings_in

MAX_LABELS = 20
"""An integer answer with more possible values is a number, not a label."""

_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")

Schema = Mapping[str, Json]
TextReader = Callable[[Json], list[str]]


def schema_at(schema: Schema, path: FieldPath) -> Schema:
    """The schema of the field at `path`. Raises KeyError if there is none."""
    for key in path:
        schema = schema["properties"][key]
    return schema


def with_constant(schema: Json, path: FieldPath, value: Json) -> Json:
    """The schema with the field at `path` fixed to `value`."""
    if not path:
        return {"const": value}
    inner = with_constant(schema["properties"][path[0]], path[1:], value)
    return {**schema, "properties": {**schema["properties"], path[0]: inner}}


def is_constant(schema: Json) -> bool:
    """Whether exactly one value is valid."""
    if not isinstance(schema, Mapping):
        return False
    if "const" in schema or schema.get("type") == "null" or len(schema.get("enum", ())) == 1:
        return True
    return bool(schema.get("properties")) and all(map(is_constant, schema["properties"].values()))


def constant_of(schema: Schema) -> Json:
    """The only valid value of a constant schema."""
    if "properties" in schema and "const" not in schema and "enum" not in schema:
        return {name: constant_of(part) for name, part in schema["properties"].items()}
    return schema["const"] if "const" in schema else schema["enum"][0] if "enum" in schema else None


def fixed_labels(schema: Schema) -> tuple[Json, ...] | None:
    """The values of an enumeration, a boolean or a short integer range; None if fewer than two."""
    labels: tuple[Json, ...] = ()
    if "enum" in schema:
        labels = tuple(schema["enum"])
    elif schema.get("type") == "boolean":
        labels = (True, False)
    elif schema.get("type") == "integer":
        low, high = integer_bounds(schema)
        if low is not None and high is not None and high - low < MAX_LABELS:
            labels = tuple(range(low, high + 1))
    return labels if len(labels) > 1 else None


def integer_bounds(schema: Schema) -> tuple[int | None, int | None]:
    """The smallest and the largest valid integer; None if unbounded."""
    bounds = {key: schema[key] for key in _BOUNDS if key in schema and math.isfinite(schema[key])}
    lows = [math.ceil(bounds["minimum"])] if "minimum" in bounds else []
    lows += [math.floor(bounds["exclusiveMinimum"]) + 1] if "exclusiveMinimum" in bounds else []
    highs = [math.floor(bounds["maximum"])] if "maximum" in bounds else []
    highs += [math.ceil(bounds["exclusiveMaximum"]) - 1] if "exclusiveMaximum" in bounds else []
    return max(lows, default=None), min(highs, default=None)


def is_number(value: Json) -> bool:
    """Whether a JSON value is a number: True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number_enumerations(schema: Json, path: FieldPath = ()) -> dict[FieldPath, list[float]]:
    """The numbers of each field that is a constant or an enumeration."""
    if not isinstance(schema, Mapping):
        return {}
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if numbers := [value for value in allowed if is_number(value)]:
        return {path: numbers}
    parts = schema.get("properties", {}).items()
    return {k: v for name, part in parts for k, v in number_enumerations(part, (*path, name)).items()}


def may_contain_numbers(schema: Json) -> bool:
    """Whether a value can contain a number that is not from an enumeration."""
    if not isinstance(schema, Mapping) or not schema:
        return True
    if is_constant(schema) or "enum" in schema or schema.get("type") in ("string", "boolean"):
        return False
    if isinstance(schema.get("properties"), Mapping):
        return any(map(may_contain_numbers, schema["properties"].values()))
    if schema.get("type") == "array" and _has_item_schema(schema):
        return may_contain_numbers(schema["items"])
    return True


def _has_item_schema(schema: Schema) -> bool:
    """Whether `items` applies to every item: with `prefixItems` it only applies to the rest."""
    return isinstance(schema.get("items"), Mapping) and "prefixItems" not in schema


def text_reader(schema: Json) -> TextReader | None:
    """A function from a valid value to its free texts, in order; None if it has none.

    Constants and enumerations are not free text: the model does not choose their wording.
    """
    if not isinstance(schema, Mapping):
        return strings_in
    if is_constant(schema) or "enum" in schema or schema.get("type") in ("integer", "number", "boolean"):
        return None
    if schema.get("type") == "string":
        return lambda value: [value]
    if isinstance(schema.get("properties"), Mapping):
        found = {name: text_reader(part) for name, part in schema["properties"].items()}
        readers = [(name, reader) for name, reader in found.items() if reader]
        return lambda value: [t for name, reader in readers if name in value for t in reader(value[name])]
    if _has_item_schema(schema):
        item = text_reader(schema["items"])
        if item is None or schema["items"].get("type") == "string":
            return item and (lambda value: list(value))
        return lambda value: [text for part in value for text in item(part)]
    return strings_in


def input_schema(schema: Schema, roles: Mapping[str, FieldPath]) -> Schema:
    """The schema without the answer and the options; the question comes first, the context last."""
    for role in ("answer", "options"):
        if role in roles:
            schema = _without_field(schema, roles[role])
    properties = dict(schema["properties"])
    for role, first in (("context", False), ("question", True)):
        if role in roles and (name := roles[role][0]) in properties:
            part = {name: properties.pop(name)}
            properties = {**part, **properties} if first else {**properties, **part}
    return {**schema, "properties": properties}


def _without_field(schema: Schema, path: FieldPath) -> Schema:
    properties = dict(schema["properties"])
    if path[1:]:
        properties[path[0]] = _without_field(properties[path[0]], path[1:])
    else:
        del properties[path[0]]
    return {**schema, "properties": properties}


def without_constants(schema: Json) -> Json:
    """The schema of what the model writes: constant properties are removed at every depth."""
    if not isinstance(schema, Mapping) or is_constant(schema):
        return schema
    if isinstance(schema.get("properties"), Mapping):
        parts = {k: without_constants(p) for k, p in schema["properties"].items() if not is_constant(p)}
        return {**schema, "properties": parts, "required": list(parts)}
    if _has_item_schema(schema):
        return {**schema, "items": without_constants(schema["items"])}
    return schema


def drop_constants(value: Json, schema: Json) -> Json:
    """A valid value as it is written under `without_constants(schema)`."""
    if not isinstance(schema, Mapping) or is_constant(schema):
        return value
    parts = schema.get("properties")
    if isinstance(parts, Mapping) and isinstance(value, Mapping):
        written = {k: part for k, part in parts.items() if k in value and not is_constant(part)}
        return {k: drop_constants(value[k], part) for k, part in written.items()}
    if isinstance(value, list) and _has_item_schema(schema):
        return [drop_constants(part, schema["items"]) for part in value]
    return value


def restore_constants(value: Json, schema: Json) -> Json:
    """The inverse of `drop_constants`. Values of another shape stay as they are; validation rejects them."""
    if not isinstance(schema, Mapping) or is_constant(schema):
        return value
    parts = schema.get("properties")
    if isinstance(parts, Mapping) and isinstance(value, Mapping):
        whole = {}
        for key, part in parts.items():
            if key in value:
                whole[key] = restore_constants(value[key], part)
            elif is_constant(part):
                whole[key] = constant_of(part)
        return whole | {key: extra for key, extra in value.items() if key not in whole}
    if isinstance(value, list) and _has_item_schema(schema):
        return [restore_constants(part, schema["items"]) for part in value]
    return value


def narrow(schema: Schema, value: Json, path: FieldPath, options: FieldPath | None) -> Schema:
    """The schema of a field, specialized to the formatting example.

    It decides whether the field is null, removes fields that the example lacks, and fixes the number of options.
    """
    schema = _decide_null(schema, value)
    if is_constant(schema):
        return schema
    if path == options and isinstance(value, list):
        return {**schema, "minItems": len(value), "maxItems": len(value)}
    if isinstance(schema.get("properties"), Mapping) and isinstance(value, Mapping):
        parts = {
            key: narrow(part, value[key], (*path, key), options) if isinstance(part, Mapping) else part
            for key, part in schema["properties"].items()
            if key in value
        }
        return {**schema, "properties": parts, "required": list(parts), "additionalProperties": False}
    return schema


def _decide_null(schema: Schema, value: Json) -> Schema:
    """The schema with null as the only value or without null, whichever the value is."""
    kinds = schema.get("type")
    if isinstance(kinds, list) and "null" in kinds:
        if value is None:
            return {"type": "null"}
        rest = [kind for kind in kinds if kind != "null"]
        return {**schema, "type": rest[0] if len(rest) == 1 else rest}
    for keyword in ("anyOf", "oneOf"):
        if {"type": "null"} not in schema.get(keyword, ()):
            continue
        if value is None:
            return {"type": "null"}
        branches = [part for part in schema[keyword] if part != {"type": "null"}]
        siblings = {key: part for key, part in schema.items() if key != keyword}
        mergeable = (
            len(branches) == 1 and isinstance(branches[0], Mapping) and not siblings.keys() & branches[0]
        )
        return {**siblings, **branches[0]} if mergeable else {**schema, keyword: branches}
    return schema
