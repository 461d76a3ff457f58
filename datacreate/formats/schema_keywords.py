"""Defines which JSON Schema keywords, and which values of `format`, a task format may use, and resolves `$ref`.

Validation (jsonschema) checks every keyword. Engines enforce, while the model writes, those that all of them support
(response.py). Where only validation checks a keyword, the model may write a value that is then rejected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, time
from functools import partial
from itertools import product
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, ValidationError

from datacreate.errors import FormatError
from datacreate.formats.example import JSON_TYPES, Json, canonical_json

ENFORCED_KEYWORDS = frozenset(
    "type properties required additionalProperties items minItems maxItems enum const anyOf".split()
)
"""Keywords that all engines enforce."""

VALIDATION_KEYWORDS = frozenset(
    "minLength maxLength multipleOf not if then else uniqueItems contains minContains maxContains "
    "patternProperties propertyNames minProperties maxProperties dependentRequired dependentSchemas "
    "unevaluatedItems unevaluatedProperties".split()
)
"""Keywords that only validation checks."""

_ANNOTATIONS = frozenset(
    "$schema $id $comment title description default examples deprecated readOnly writeOnly x-datacreate $defs".split()
)
_OTHERS = "$ref prefixItems oneOf pattern format minimum maximum exclusiveMinimum exclusiveMaximum".split()

KEYWORDS = ENFORCED_KEYWORDS | VALIDATION_KEYWORDS | _ANNOTATIONS | frozenset(_OTHERS)
"""All supported keywords. Engines enforce some values of those in `_OTHERS`; see docs/formats.md."""

_TOP_LEVEL = _ANNOTATIONS | {"type", "properties", "required", "additionalProperties"}

_WITH_SCHEMA_OBJECT = frozenset({"properties", "patternProperties", "dependentSchemas"})  # an object of schemas
_WITH_SCHEMA_LIST = frozenset({"anyOf", "oneOf", "prefixItems"})
_WITH_SCHEMA = frozenset(
    "items additionalProperties not if then else contains propertyNames unevaluatedItems unevaluatedProperties".split()
)
"""Keywords whose value is a schema, or false."""

ENFORCED_FORMATS = frozenset({"date", "time", "date-time", "uuid"})
"""Values of `format` that llama.cpp's converter knows; it reads others as free text."""

FORMAT_CHECKER = FormatChecker(())
"""Checks `format`. It has the same formats on every machine: those of jsonschema depend on installed packages."""

_OF_JSONSCHEMA = ("date", "ipv4", "ipv6", "regex", "uuid")
FORMAT_CHECKER.checkers = {name: Draft202012Validator.FORMAT_CHECKER.checkers[name] for name in _OF_JSONSCHEMA}

_HOST = r"(?=.{1,253}\Z)(?!-)[A-Za-z0-9-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*"
_PATTERNS = {
    "duration": r"P(?:\d+W|(?=\d|T)(?:\d+Y)?(?:\d+M)?(?:\d+D)?(?:T(?=\d)(?:\d+H)?(?:\d+M)?(?:\d+(?:\.\d+)?S)?)?)",
    "email": rf"(?=.{{1,254}}\Z)[\w!#$%&'*+/=?^`{{|}}~-]+(?:\.[\w!#$%&'*+/=?^`{{|}}~-]+)*@{_HOST}",
    "hostname": _HOST,
    "uri": r"[A-Za-z][A-Za-z0-9+.-]*:(?:[\w.~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+",
}

for _name, _pattern in _PATTERNS.items():
    FORMAT_CHECKER.checks(_name)(
        lambda value, pattern=re.compile(_pattern, re.ASCII): not isinstance(value, str) or pattern.fullmatch(value)
    )
for _name, _parser in (("date-time", datetime), ("time", time)):
    FORMAT_CHECKER.checks(_name, ValueError)(
        lambda value, parser=_parser: not isinstance(value, str) or parser.fromisoformat(value.upper()).tzinfo
    )


def resolve_refs(document: Mapping[str, Json], name: str) -> dict[str, Json]:
    """The schema with each `$ref` replaced by its definition, without `$defs`, and with `true` as {}.

    `{"properties": {"x": {"$ref": "#/$defs/mood"}}, "$defs": {"mood": {"enum": ["good", "bad"]}}}` becomes
    `{"properties": {"x": {"enum": ["good", "bad"]}}}`. Raises FormatError, with the `name` of the format and the place,
    for a keyword or value that is not supported and for a recursive definition. Nothing is downloaded.
    """
    try:
        schema: dict[str, Json] = _resolved(document, "", document.get("$defs", {}), ())
    except ValueError as error:
        raise FormatError(f"{name}: {error}; docs/formats.md lists what can be used") from None
    return schema


def _resolved(schema: Json, place: str, definitions: Mapping[str, Json], open_refs: tuple[str, ...]) -> Json:
    """The part of a schema at this place, resolved; `open_refs` are the definitions that it is inside of.

    Raises ValueError, with the place, for what is not supported.
    """
    where = f"at {place or '/'}"
    if schema is True:
        return {}
    if not isinstance(schema, Mapping):
        raise ValueError(f"cannot use the schema {canonical_json(schema)[:40]} {where}")
    if "$ref" in schema:
        name = _definition_name(schema["$ref"], where, definitions, open_refs)
        definition = definitions[name] if isinstance(definitions[name], Mapping) else {}
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        return _resolved({**definition, **siblings}, place, definitions, (*open_refs, name))
    resolve = partial(_resolved, definitions=definitions, open_refs=open_refs)
    resolved: dict[str, Json] = {}
    for keyword, value in schema.items():
        if keyword not in KEYWORDS or not (place or keyword in _TOP_LEVEL):
            raise ValueError(f"cannot use {keyword!r} {where}")
        if keyword == "format" and value not in FORMAT_CHECKER.checkers:
            raise ValueError(f"cannot check the format {value!r} {where}")
        inside = f"{place}/{keyword}"
        if keyword in _WITH_SCHEMA_OBJECT:
            value = {key: resolve(part, f"{inside}/{key}") for key, part in value.items()}
        elif keyword in _WITH_SCHEMA_LIST:
            value = [resolve(part, f"{inside}/{i}") for i, part in enumerate(value)]
        elif keyword in _WITH_SCHEMA and value:  # false, or null: tables fill in keywords that only other rows have
            value = resolve(value, inside)
        if keyword != "$defs":
            resolved[keyword] = value
    return resolved


def _definition_name(ref: Json, where: str, definitions: Mapping[str, Json], open_refs: tuple[str, ...]) -> str:
    """The name in `$defs` of the definition that a `$ref` points to. Raises ValueError if there is none."""
    name = str(ref).removeprefix("#/$defs/")
    if name == ref or name not in definitions:
        raise ValueError(f"unknown $ref {ref!r} {where}")
    if name in open_refs:
        raise ValueError(f"recursive $ref {where}")
    return name


_LIMITS = [(f"min{size}", f"max{size}") for size in ("Length", "Items", "Contains", "Properties")]
_LIMITS += product(("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))


def find_contradiction(schema: Mapping[str, Json], place: str = "") -> str | None:
    """What no value can satisfy, with its place; None if nothing is found. jsonschema accepts such schemas.

    It is a minimum above its maximum, or a required field that is not in `properties`.
    """
    where = f"at {place or '/'}"
    for low, high in (limits for limits in _LIMITS if schema.keys() >= {*limits}):
        is_exclusive = low == "exclusiveMinimum" or high == "exclusiveMaximum"
        if schema[low] > schema[high] or (is_exclusive and schema[low] == schema[high]):
            return f"{low} {schema[low]} and {high} {schema[high]} leave no value {where}"
    parts: Mapping[str, Json] = schema.get("properties", {})
    is_closed = "properties" in schema and "patternProperties" not in schema
    if missing := [name for name in schema.get("required", ()) if is_closed and name not in parts]:
        return f"{missing[0]!r} is required, but not one of the properties {where}"
    inner = {f"{place}/properties/{name}": part for name, part in parts.items()}
    inner |= {f"{place}/prefixItems/{i}": part for i, part in enumerate(schema.get("prefixItems", ()))}
    inner |= {f"{place}/items": schema["items"]} if schema.get("items") else {}
    for key in ("anyOf", "oneOf") if not parts else ():  # a branch beside `properties` can be about these
        branches = [find_contradiction(part, f"{place}/{key}/{i}") for i, part in enumerate(schema.get(key, ()))]
        if branches and all(branches):
            return branches[0]
    return next(filter(None, (find_contradiction(part, inside) for inside, part in inner.items())), None)


def describe_error(error: ValidationError) -> str:
    """What is wrong, with JSON types: `false (boolean), expected "True", "False" (text)`."""
    expected: Any = error.validator_value
    schema: Any = error.schema
    if error.validator == "const" or "enum" in schema:
        allowed = [expected] if error.validator == "const" else schema["enum"]
        return f"{_with_types([error.instance])}, expected {_with_types(allowed)}"
    if error.validator == "type":
        types = expected if isinstance(expected, list) else [expected]
        return f"{_with_types([error.instance])}, expected {_type_names(types)}"
    return " ".join(error.message.split())


def _with_types(values: Sequence[Json]) -> str:
    """Values with their types in parentheses; null stands alone."""
    texts = ", ".join(canonical_json(value)[:60] for value in values)
    return texts if values == [None] else f"{texts} ({_type_names(JSON_TYPES[type(value)] for value in values)})"


def _type_names(types: Iterable[str]) -> str:
    names = dict.fromkeys({"string": "text", "array": "list"}.get(name, name) for name in types)
    return " or ".join(names)
