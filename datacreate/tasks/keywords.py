"""Which JSON Schema keywords a grammar can hold, and which it must not be asked to.

xgrammar enforces the keywords of `HELD` (found by trying, xgrammar 0.2.8); string lengths
compile slowly and slow every mask, so they are left to validation. Any other keyword would
be ignored in silence or refused by the engine, so it is refused here, with what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from datacreate.errors import FormatError
from datacreate.tasks.example import Json

HELD = frozenset(
    "type properties required additionalProperties items prefixItems minItems maxItems enum const anyOf $ref "
    "$defs minimum maximum exclusiveMinimum exclusiveMaximum pattern format".split()
)
LEFT_TO_VALIDATION = frozenset({"minLength", "maxLength"})
SAYS_NOTHING = frozenset("$schema $id $comment title description default examples x-datacreate".split())
AT_THE_TOP = SAYS_NOTHING | {"type", "properties", "required", "additionalProperties", "$defs"}

FORMATS = frozenset(
    "email date time date-time duration ipv4 ipv6 hostname uuid uri uri-reference uri-template json-pointer "
    "relative-json-pointer".split()
)
"""Values of `format` that the engine takes."""

_INSTEAD = {
    "uniqueItems": "use the rule options_differ",
    "oneOf": "use anyOf",
    "allOf": "write the combined schema out",
    "multipleOf": "use enum",
    "definitions": "use $defs",
    "not": "say what is allowed, with enum or anyOf",
    "if": "use anyOf",
    "patternProperties": "name the fields under properties",
    "propertyNames": "name the fields under properties",
}

_BEYOND_PATTERNS = re.compile(r"\(\?[=!<P]|\(\?[a-zA-Z-]+[:)]|(?<!\\)(?:\\\\)*\\[bBpPAZ1-9]")
"""Lookaround, named and flagged groups, word boundaries, Unicode classes, backreferences."""


def refuse_unholdable(schema: Json, name: str, where: str = "") -> None:
    """Raise FormatError for the first thing that the grammar cannot hold, with its place."""
    if not isinstance(schema, Mapping):
        return
    place = where or "/"
    for keyword, value in schema.items():
        if keyword not in HELD | LEFT_TO_VALIDATION | SAYS_NOTHING:
            instead = _INSTEAD.get(keyword, "leave it out and check it afterwards")
            raise FormatError(f"{name}: the grammar cannot hold {keyword!r} at {place}; {instead}")
        if not where and keyword not in AT_THE_TOP:
            raise FormatError(f"{name}: {keyword!r} at / binds all fields at once; say it field by field")
        for at, part in _parts(keyword, value):
            refuse_unholdable(part, name, f"{where}/{at}")
    if ("pattern" in schema or "format" in schema) and LEFT_TO_VALIDATION & schema.keys():
        raise FormatError(f"{name}: pattern or format together with a length at {place}; keep one of them")
    if schema.get("format", "email") not in FORMATS:
        raise FormatError(
            f"{name}: the grammar does not know the format {schema['format']!r} at {place}; "
            f"it knows {', '.join(sorted(FORMATS))}"
        )
    if "pattern" in schema:
        _refuse_pattern(schema["pattern"], name, place)


def _refuse_pattern(pattern: str, name: str, place: str) -> None:
    if beyond := _BEYOND_PATTERNS.search(pattern):
        raise FormatError(
            f"{name}: the grammar cannot hold {beyond.group()!r} in the pattern at {place}; "
            "use classes, groups, | and repeats alone"
        )


def _parts(keyword: str, value: Json) -> list[tuple[str, Json]]:
    if keyword in ("properties", "$defs"):
        return [(f"{keyword}/{key}", part) for key, part in value.items()]
    if keyword in ("items", "additionalProperties"):
        return [(keyword, value)]
    if keyword in ("anyOf", "prefixItems"):
        return [(f"{keyword}/{i}", part) for i, part in enumerate(value)]
    return []


def with_parts(schema: Mapping[str, Json], change: Mapping[str, Json]) -> dict[str, Json]:
    """The schema with the schemas inside it replaced: `change` is keyed as `_parts` names them."""
    changed = dict(schema)
    for keyword, value in schema.items():
        parts = [change[at] for at, _ in _parts(keyword, value)]
        if keyword in ("properties", "$defs"):
            changed[keyword] = dict(zip(value, parts, strict=True))
        elif keyword in ("items", "additionalProperties"):
            changed[keyword] = parts[0]
        elif keyword in ("anyOf", "prefixItems"):
            changed[keyword] = parts
    return changed


def write_out_refs(document: Mapping[str, Json], name: str) -> dict[str, Json]:
    """The schema with each `$ref` replaced by the definition that it names, and without `$defs`.

    So roles, labels and constants are found wherever they are defined. Raises FormatError for a
    reference that is not to `#/$defs`, or that leads back to itself; nothing is ever fetched.
    """
    defs = document.get("$defs", {})

    def written_out(schema: Json, where: str, inside: tuple[str, ...]) -> Json:
        if not isinstance(schema, Mapping):
            return schema
        if "$ref" in schema:
            key = str(schema["$ref"]).removeprefix("#/$defs/")
            if key == schema["$ref"] or key not in defs:
                raise FormatError(
                    f"{name}: {where} refers to {schema['$ref']!r}; name something under #/$defs"
                )
            if key in inside:
                raise FormatError(
                    f"{name}: {where} leads back to itself; write the nesting out as deep as needed"
                )
            beside = {k: v for k, v in schema.items() if k != "$ref"}
            if not isinstance(defs[key], Mapping):
                return written_out(beside, where, inside)
            return written_out({**defs[key], **beside}, where, (*inside, key))
        parts = [part for keyword, value in schema.items() for part in _parts(keyword, value)]
        return with_parts(schema, {at: written_out(part, f"{where}/{at}", inside) for at, part in parts})

    whole: dict[str, Json] = written_out({k: v for k, v in document.items() if k != "$defs"}, "", ())
    return whole


def for_grammar(schema: Json) -> Json:
    """The schema with only what the grammar holds; properties closed and all required."""
    if not isinstance(schema, Mapping):
        return schema
    kept = {k: v for k, v in schema.items() if k in HELD}
    parts = [part for keyword, value in kept.items() for part in _parts(keyword, value)]
    kept = with_parts(kept, {at: for_grammar(part) for at, part in parts})
    if "properties" in kept:
        kept |= {"type": "object", "required": list(kept["properties"]), "additionalProperties": False}
    return kept
