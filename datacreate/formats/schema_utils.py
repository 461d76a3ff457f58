"""Functions on JSON Schemas: infer one from values, find and change fields, constants, labels, free texts, null.

Schemas have no `$ref` here, and are not booleans: `resolve_refs` of schema_keywords.py removes both.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from datacreate.formats.example import JSON_TYPES, FieldPath, Json, canonical_json, values_in

MAX_INTEGER_LABELS = 20  # an integer answer with more possible values is a number, not a label

_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")

Schema = Mapping[str, Json]

_SPACE = " \t\r\n"
_BLANK_LINES = re.compile(r"\A(?:[ \t]*[\r\n])+")


def schema_at(schema: Schema, path: FieldPath) -> Schema:
    """The schema of the field at `path`. Raises KeyError or TypeError if there is no such field."""
    for key in path:
        schema = schema["properties"][key]
    return schema


def leaf_schemas(schema: Schema, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Schema]]:
    """Every field with its path, in order. An object with `properties` is left out, its fields are not."""
    for name, part in schema["properties"].items():
        if part.get("properties"):
            yield from leaf_schemas(part, (*path, name))
        else:
            yield (*path, name), part


def with_field(schema: Schema, path: FieldPath, field_schema: Json | None) -> Schema:
    """The schema with `field_schema` as the schema of the field at `path`. None removes the field."""
    properties = dict(schema["properties"])
    if path[1:]:
        properties[path[0]] = with_field(properties[path[0]], path[1:], field_schema)
    elif field_schema is None:
        del properties[path[0]]
    else:
        properties[path[0]] = field_schema
    changed = {**schema, "properties": properties}
    if "required" in schema:
        changed["required"] = [name for name in schema["required"] if name in properties]
    return changed


def tuple_schema(parts: Sequence[Json]) -> dict[str, Json]:
    """The schema of an array with one item for each of the parts, in the notation that all engines enforce."""
    return {"type": "array", "prefixItems": list(parts), "minItems": len(parts), "maxItems": len(parts)}


def object_schema(properties: Mapping[str, Json]) -> dict[str, Json]:
    """The schema of an object with exactly these fields."""
    required = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def is_constant(schema: Schema) -> bool:
    """Whether only one value is valid: a `const`, null, one value in `enum`, or an object with only such fields."""
    if "const" in schema or schema.get("type") == "null" or len(schema.get("enum", ())) == 1:
        return True
    return bool(schema.get("properties")) and all(map(is_constant, schema["properties"].values()))


def constant_of(schema: Schema) -> Json:
    """The one valid value of a schema for which `is_constant` holds."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    return {name: constant_of(part) for name, part in schema["properties"].items()} if "properties" in schema else None


def infer_schema(values: Sequence[Json]) -> Schema:
    """The schema of a field from its values in several examples: their most frequent type, and null if one is null.

    `[{"text": "a"}, {"text": "b", "n": 1}]` gives an object with `text` (a string, required) and `n` (an integer).
    A list may be up to twice as long as the longest one, or 3 items. Null, "" and [] alone are constants.
    """
    types = Counter(JSON_TYPES[type(value)] for value in values if value is not None)
    if not types:
        return {"const": None}
    if "number" in types:
        types["number"] += types.pop("integer", 0)
    [(json_type, _)] = types.most_common(1)
    accepted = ("number", "integer") if json_type == "number" else (json_type,)
    schema = _schema_of_type(json_type, [value for value in values if JSON_TYPES[type(value)] in accepted])
    return nullable(schema) if None in values else schema


def _schema_of_type(json_type: str, values: Sequence[Json]) -> Schema:
    if json_type == "object":
        keys = dict.fromkeys(key for value in values for key in value)
        parts = {key: infer_schema([value[key] for value in values if key in value]) for key in keys}
        if not parts:
            return {"const": {}}
        return object_schema(parts) | {"required": [key for key in keys if all(key in value for value in values)]}
    if json_type == "array":
        branches: list[Schema] = []
        for item_schema in (infer_schema([item]) for value in values for item in value):
            if item_schema not in branches:
                branches.append(item_schema)
        if all(map(is_constant, branches)):  # empty items do not show a type
            distinct = list({canonical_json(value): value for value in values}.values())
            return {"enum": distinct} if distinct[1:] else {"const": distinct[0]}
        items = branches[0] if len(branches) == 1 else {"anyOf": branches}
        shortest, longest = min(map(len, values)), max(map(len, values))
        return {"type": json_type, "items": items, "minItems": min(1, shortest), "maxItems": max(3, 2 * longest)}
    if json_type == "string" and "" in values:
        return {"anyOf": [{"type": json_type}, {"const": ""}]} if any(values) else {"const": ""}
    return {"type": json_type}


def fixed_labels(schema: Schema) -> tuple[Json, ...] | None:
    """The values of an enumeration, a boolean or a short range of integers, in order; None if fewer than two."""
    labels: tuple[Json, ...] = ()
    if "enum" in schema:
        labels = tuple(schema["enum"])
    elif schema.get("type") == "boolean":
        labels = (True, False)
    elif schema.get("type") == "integer":
        low, high = integer_bounds(schema)
        if low is not None and high is not None and high - low < MAX_INTEGER_LABELS:
            labels = tuple(range(low, high + 1))
    return labels if len(labels) > 1 else None


def integer_bounds(schema: Schema) -> tuple[int | None, int | None]:
    """The smallest and the largest valid integer, each None if there is no bound."""
    bounds = {key: schema[key] for key in _BOUNDS if key in schema and math.isfinite(schema[key])}
    lows = [math.ceil(bounds["minimum"])] if "minimum" in bounds else []
    lows += [math.floor(bounds["exclusiveMinimum"]) + 1] if "exclusiveMinimum" in bounds else []
    highs = [math.floor(bounds["maximum"])] if "maximum" in bounds else []
    highs += [math.ceil(bounds["exclusiveMaximum"]) - 1] if "exclusiveMaximum" in bounds else []
    return max(lows, default=None), min(highs, default=None)


def is_number(value: Json) -> bool:
    """Whether a JSON value is a number; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _has_no_text(schema: Schema) -> bool:
    """Whether the values are enumerated, or are numbers, booleans or null."""
    types = schema.get("type", ())
    types = {types} if isinstance(types, str) else set(types)
    is_scalar = bool(types) and types <= {"integer", "number", "boolean", "null"}
    return is_scalar or "enum" in schema or is_constant(schema)


def free_texts(value: Json, schema: Schema) -> list[str]:
    """The texts in a value that the model words itself, in order: none from constants, enumerations and numbers."""
    parts = schema.get("properties")
    if isinstance(parts, dict) and isinstance(value, dict) and not {"enum", "const"} & schema.keys():
        return [text for name in parts if name in value for text in free_texts(value[name], parts[name])]
    if _has_no_text(schema) or (value == "" and {"const": ""} in schema.get("anyOf", ())):
        return []
    if isinstance(value, list):
        items = zip(value, _item_schemas(schema, len(value)), strict=True)
        return [text for item, part in items for text in free_texts(item, part)]
    return values_in(value)


def _item_schemas(schema: Schema, length: int) -> list[Schema]:
    """The schema of each item of an array of this length."""
    prefix = schema.get("prefixItems", ())[:length]
    return [*prefix, *[schema.get("items") or {}] * (length - len(prefix))]


def may_have_text(schema: Schema) -> bool:
    """Whether a field can hold free text. A string with a `pattern` or `format`, such as a date, does not count."""
    if _has_no_text(schema) or {"pattern", "format"} & schema.keys():
        return False
    parts, items = schema.get("properties"), schema.get("items")
    if isinstance(parts, dict):
        return any(map(may_have_text, parts.values()))
    return may_have_text(items) if items else True


def _variants(schema: Schema) -> list[Schema]:
    return [*schema.get("anyOf", ()), *schema.get("oneOf", ())]


def normalize_values(value: Json, schema: Schema) -> Json:
    """The value with its texts stripped, and with numbers as the enumeration or constant in the schema writes them.

    So 4 becomes 4.0 for `{"enum": [4.0, 5.0]}`. The first of several lines of a text keeps its indentation.
    """
    if isinstance(value, (dict, list)):
        json_type = "object" if isinstance(value, dict) else "array"
        schema = next((variant for variant in _variants(schema) if variant.get("type") == json_type), schema)
    if isinstance(value, dict):
        parts = schema.get("properties", {})
        return {name: normalize_values(part, parts.get(name, {})) for name, part in value.items()}
    if isinstance(value, list):
        return [
            normalize_values(item, part) for item, part in zip(value, _item_schemas(schema, len(value)), strict=True)
        ]
    if is_number(value):
        allowed = fixed_labels(schema) or (schema.get("const"),)
        return next((number for number in allowed if is_number(number) and number == value), value)
    if isinstance(value, str) and _takes_any_text(schema):
        text = _BLANK_LINES.sub("", value).rstrip(_SPACE)
        return text if "\n" in text else text.lstrip(_SPACE)
    return value


def _takes_any_text(schema: Schema) -> bool:
    """Whether a schema, or a branch of its `anyOf` or `oneOf`, allows strings that it does not enumerate."""
    if variants := _variants(schema):
        return any(map(_takes_any_text, variants))
    return "string" in schema.get("type", "string") and not {"enum", "const"} & schema.keys()


def specialize_schema(schema: Schema, values: Sequence[Json], path: FieldPath, options: FieldPath | None) -> Schema:
    """Narrow the schema of the field at `path` to what its `values` in the formatting examples have in common.

    It is null if all of them are, and not null if none is. An object gets only the fields that occur, all required. The
    field `options` gets the number of options of the first example. Other schemas stay the same.
    """
    if all(value is None for value in values):
        return {"type": "null"} if allows_null(schema) else schema
    if None not in values:
        schema = without_null(schema)
    if is_constant(schema):
        return schema
    if path == options and isinstance(values[0], list):
        return {**schema, "minItems": len(values[0]), "maxItems": len(values[0])}
    objects = [value for value in values if isinstance(value, Mapping)]
    if "properties" in schema and objects:
        parts = {
            key: specialize_schema(part, part_values, (*path, key), options)
            for key, part in schema["properties"].items()
            if (part_values := [value[key] for value in objects if key in value])
        }
        return {**schema, "properties": parts, "required": list(parts), "additionalProperties": False}
    return schema


def allows_null(schema: Schema) -> bool:
    """Whether the schema allows null beside other values, by `anyOf`, `oneOf` or a list of types."""
    return without_null(schema) is not schema


def without_null(schema: Schema) -> Schema:
    """The schema without null. A schema for which `allows_null` is false stays the same object."""
    null = {"type": "null"}
    for keyword in ("anyOf", "oneOf"):
        if null in schema.get(keyword, ()):
            return {**schema, keyword: [branch for branch in schema[keyword] if branch != null]}
    types = schema.get("type")
    if not isinstance(types, list) or "null" not in types:
        return schema
    others = [name for name in types if name != "null"]
    return {**schema, "type": others[0] if len(others) == 1 else others}


def nullable(schema: Schema) -> Schema:
    """The schema with null as another valid value."""
    if "const" in schema:
        return {"enum": [schema["const"], None]}
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    labels = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, **labels, **({"type": [schema["type"], "null"]} if "type" in schema else {})}
