"""A JSON Schema as the grammars of all engines hold it: the response schema is written in this dialect.

vLLM and SGLang compile schemas with xgrammar or llguidance, llama.cpp, Ollama and LM Studio with llama.cpp's
own converter to GBNF, a llama.cpp built for it with llguidance. Each ignores, refuses or mistakes something
that the others hold. Out of here come only `const`, `enum`, `anyOf` and schemas of one `type`: strings with
an anchored `pattern` or one of four formats, integers with inclusive bounds, tuples as `prefixItems` (never
`items: false`, which llama.cpp refuses), arrays of one kind of item, closed objects. The result may be
narrower than the schema (all properties are written, a tuple has one length) and it may be weaker:
validation checks every example against the schema itself. keywords.py says which keyword is held where.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from datacreate.formats.example import Json, canonical_json
from datacreate.formats.patterns import portable_pattern
from datacreate.formats.schema_utils import Schema, integer_bounds
from datacreate.formats.string_formats import IN_GRAMMAR

_ANYTHING: dict[str, Json] = {"type": ["string", "number", "boolean", "null", "array", "object"]}
"""Any value. Not {}: for llama.cpp that is an object."""


def grammar_schema(schema: Json) -> dict[str, Json]:
    """The schema in the common dialect; it must have no `$ref`."""
    if not isinstance(schema, Mapping):
        return _ANYTHING
    for keyword in ("const", "enum"):
        if keyword in schema:
            return {keyword: schema[keyword]}
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            outside = {key: value for key, value in schema.items() if key != keyword}
            return _any_of(_both(outside, branch) for branch in schema[keyword] if branch is not False)
    kind = schema.get("type") or _implied_type(schema)
    if isinstance(kind, list):
        return _any_of({**schema, "type": one} for one in kind)
    if kind == "string":
        return _string(schema)
    if kind == "integer":
        bounds = zip(("minimum", "maximum"), integer_bounds(schema), strict=True)
        return {"type": kind} | {key: bound for key, bound in bounds if _is_int64(bound)}
    if kind == "array":
        return _array(schema)
    if kind == "object":
        return _object(schema)
    return {"type": kind} if kind else _ANYTHING


def tuple_of(parts: Sequence[Json]) -> dict[str, Json]:
    """An array of exactly these parts, each already in the common dialect."""
    return {"type": "array", "prefixItems": list(parts), "minItems": len(parts), "maxItems": len(parts)}


def closed_object(properties: Mapping[str, Json]) -> dict[str, Json]:
    """An object of exactly these properties, each already in the common dialect."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _implied_type(schema: Schema) -> str | None:
    """The type that a schema without `type` is meant for."""
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else None


def _any_of(schemas: Iterable[Json]) -> dict[str, Json]:
    distinct = {canonical_json(found): found for found in map(grammar_schema, schemas)}
    found = list(distinct.values())
    return {"anyOf": found} if len(found) > 1 else found[0] if found else _ANYTHING


def _both(outside: Schema, branch: Json) -> Json:
    """A branch of anyOf together with what stands beside it; where both say something, the branch does."""
    if not isinstance(branch, Mapping):
        return outside
    both = {**outside, **branch}
    if "properties" in outside and "properties" in branch:
        both["properties"] = {**outside["properties"], **branch["properties"]}
    return both


def _string(schema: Schema) -> dict[str, Json]:
    if "pattern" in schema and (pattern := portable_pattern(schema["pattern"])):
        return {"type": "string", "pattern": pattern}
    if schema.get("format") in IN_GRAMMAR:
        return {"type": "string", "format": schema["format"]}
    return {"type": "string"}


def _is_int64(bound: int | None) -> bool:
    return bound is not None and -(2**63) < bound < 2**63


def _array(schema: Schema) -> dict[str, Json]:
    low, high, rest = schema.get("minItems", 0), schema.get("maxItems"), schema.get("items", True)
    if prefix := schema.get("prefixItems"):
        # No converter but xgrammar holds a tuple with more items behind it: it is as short as it may be.
        length = max(len(prefix), int(low))
        parts = [*prefix, *[rest] * (length - len(prefix))][: None if high is None else int(high)]
        return tuple_of(list(map(grammar_schema, parts)))
    if rest is False or high == 0:
        return {"const": []}
    lengths = {"minItems": low or None, "maxItems": high}
    found = {key: int(length) for key, length in lengths.items() if length is not None}
    return {"type": "array", "items": grammar_schema(rest), **found}


def _object(schema: Schema) -> dict[str, Json]:
    others = schema.get("additionalProperties", True)
    named = {**schema.get("properties", {})}
    named |= {name: others for name in schema.get("required", ()) if name not in named}
    if named or "properties" in schema or others is False:
        return closed_object({name: grammar_schema(part) for name, part in named.items()})
    if isinstance(others, Mapping) and others:
        return {"type": "object", "additionalProperties": grammar_schema(others)}
    return {"type": "object"}
