"""Which JSON Schema keywords a task format may use, and what holds each: the grammar or validation.

Validation (jsonschema) checks every keyword. The grammar holds what the converters of all engines hold
(grammar.py); where that is less, the model may write what validation then rejects. Refused is only what
validation does not check either, and what hides the fields from the layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from datacreate.errors import FormatError
from datacreate.formats.example import Json
from datacreate.formats.string_formats import FORMAT_CHECKER


class Held(Enum):
    """What holds a model to a keyword."""

    GRAMMAR = "the grammar"
    PARTLY = "the grammar where it can, else validation"
    VALIDATION = "validation"
    NOTHING = "nothing: it is a note"


KEYWORDS: Mapping[str, Held] = {
    **dict.fromkeys(
        "type properties required additionalProperties items minItems maxItems enum const anyOf".split(),
        Held.GRAMMAR,
    ),
    "prefixItems": Held.PARTLY,  # as a tuple of one length
    "oneOf": Held.PARTLY,  # as anyOf
    "pattern": Held.PARTLY,  # where patterns.py can write it
    "format": Held.PARTLY,  # date, time, date-time, uuid
    **dict.fromkeys("minimum maximum exclusiveMinimum exclusiveMaximum".split(), Held.PARTLY),  # of integers
    **dict.fromkeys(
        "minLength maxLength multipleOf not if then else uniqueItems contains minContains maxContains "
        "patternProperties propertyNames minProperties maxProperties dependentRequired dependentSchemas "
        "unevaluatedItems unevaluatedProperties".split(),
        Held.VALIDATION,
    ),
    **dict.fromkeys(
        "$schema $id $comment $defs $ref title description default examples deprecated readOnly writeOnly "
        "x-datacreate".split(),
        Held.NOTHING,  # $ref and $defs are written out before anything is read
    ),
}

AT_THE_TOP = frozenset(
    {"type", "properties", "required", "additionalProperties"}
    | {keyword for keyword, held in KEYWORDS.items() if held is Held.NOTHING}
) - {"$ref"}
"""What may stand beside `properties` of the whole example: it is written field by field."""

_INSTEAD = {
    "allOf": "write the combined schema out",
    "definitions": "use $defs",
    "dependencies": "use dependentRequired or dependentSchemas",
    "additionalItems": "use prefixItems and items",
}

_SCHEMA_BY_NAME = frozenset({"properties", "$defs", "patternProperties", "dependentSchemas"})
_SCHEMA = frozenset(
    "items additionalProperties not if then else contains propertyNames unevaluatedItems "
    "unevaluatedProperties".split()
)
_SCHEMAS = frozenset({"anyOf", "oneOf", "prefixItems"})


def check_keywords(schema: Json, name: str, where: str = "") -> None:
    """Raise FormatError for the first keyword that a task format must not use, with its place."""
    if not isinstance(schema, Mapping):
        return
    place = where or "/"
    for keyword, value in schema.items():
        if keyword not in KEYWORDS:
            instead = _INSTEAD.get(keyword, "it is not a keyword of JSON Schema 2020-12 that is known here")
            raise FormatError(f"{name}: cannot use {keyword!r} at {place}; {instead}")
        if not where and keyword not in AT_THE_TOP:
            raise FormatError(f"{name}: {keyword!r} at / binds all fields at once; say it field by field")
        for at, part in _parts(keyword, value):
            check_keywords(part, name, f"{where}/{at}")
    if (format := schema.get("format")) is not None and format not in FORMAT_CHECKER.checkers:
        raise FormatError(
            f"{name}: the format {format!r} at {place} cannot be checked here; use a pattern, one of "
            f"{', '.join(sorted(FORMAT_CHECKER.checkers))}, or install jsonschema[format-nongpl]"
        )


def _parts(keyword: str, value: Json) -> list[tuple[str, Json]]:
    """The schemas inside a keyword's value, each with its place."""
    if keyword in _SCHEMA_BY_NAME:
        return [(f"{keyword}/{key}", part) for key, part in value.items()]
    if keyword in _SCHEMA:
        return [(keyword, value)]
    if keyword in _SCHEMAS:
        return [(f"{keyword}/{i}", part) for i, part in enumerate(value)]
    return []


def with_parts(schema: Mapping[str, Json], change: Mapping[str, Json]) -> dict[str, Json]:
    """The schema with the schemas inside it replaced: `change` is keyed as `_parts` names them."""
    changed = dict(schema)
    for keyword, value in schema.items():
        parts = [change[at] for at, _ in _parts(keyword, value)]
        if keyword in _SCHEMA_BY_NAME:
            changed[keyword] = dict(zip(value, parts, strict=True))
        elif keyword in _SCHEMA:
            changed[keyword] = parts[0]
        elif keyword in _SCHEMAS:
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
