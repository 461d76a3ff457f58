"""Lists the JSON Schema keywords that a task format may use, and who enforces them.

Validation (jsonschema) checks every keyword. The grammar enforces those that all engines support
(response_schema.py); for the others the model may write something that validation then rejects. Other keywords are
refused, and so are `format` values that validation cannot check.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import partial

from jsonschema import Draft202012Validator, FormatChecker

from datacreate.errors import FormatError
from datacreate.formats.example import Json


class EnforcedBy(Enum):
    """Who enforces a keyword."""

    GRAMMAR = "the grammar"
    PARTLY = "the grammar where it can, otherwise validation"
    VALIDATION = "validation"
    NOTHING = "nothing: it is an annotation"


KEYWORDS: Mapping[str, EnforcedBy] = {
    **dict.fromkeys(
        "type properties required additionalProperties items minItems maxItems enum const anyOf".split(),
        EnforcedBy.GRAMMAR,
    ),
    "prefixItems": EnforcedBy.PARTLY,  # as a tuple of one length
    "oneOf": EnforcedBy.PARTLY,  # as anyOf
    "pattern": EnforcedBy.PARTLY,  # what patterns.py can translate
    "format": EnforcedBy.PARTLY,  # GRAMMAR_FORMATS
    **dict.fromkeys(  # for integers
        "minimum maximum exclusiveMinimum exclusiveMaximum".split(), EnforcedBy.PARTLY
    ),
    **dict.fromkeys(
        "minLength maxLength multipleOf not if then else uniqueItems contains minContains maxContains "
        "patternProperties propertyNames minProperties maxProperties dependentRequired dependentSchemas "
        "unevaluatedItems unevaluatedProperties".split(),
        EnforcedBy.VALIDATION,
    ),
    **dict.fromkeys(
        "$schema $id $comment $defs $ref title description default examples deprecated readOnly writeOnly "
        "x-datacreate".split(),
        EnforcedBy.NOTHING,  # $ref and $defs are resolved when the format is read
    ),
}

_TOP_LEVEL = frozenset(
    {"type", "properties", "required", "additionalProperties"}
    | {keyword for keyword, enforced in KEYWORDS.items() if enforced is EnforcedBy.NOTHING}
) - {"$ref"}

_REPLACEMENTS = {
    "allOf": "write out the combined schema",
    "definitions": "use $defs",
    "dependencies": "use dependentRequired or dependentSchemas",
    "additionalItems": "use prefixItems and items",
}

# Keywords whose value contains schemas: an object of schemas, one schema, a list of schemas.
_SCHEMA_OBJECT = frozenset({"properties", "$defs", "patternProperties", "dependentSchemas"})
_SCHEMA = frozenset(
    "items additionalProperties not if then else contains propertyNames unevaluatedItems "
    "unevaluatedProperties".split()
)
_SCHEMA_LIST = frozenset({"anyOf", "oneOf", "prefixItems"})

GRAMMAR_FORMATS = frozenset({"date", "time", "date-time", "uuid"})
"""Values of `format` that llama.cpp's converter knows; it reads others as free text."""

FORMAT_CHECKER = FormatChecker(())
"""Checks `format`. It has the same formats on every machine: those of jsonschema depend on installed packages."""

_OF_JSONSCHEMA = ("date", "ipv4", "ipv6", "regex", "uuid")
FORMAT_CHECKER.checkers = {
    name: Draft202012Validator.FORMAT_CHECKER.checkers[name] for name in _OF_JSONSCHEMA
}

_TIME = r"\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})"
_DATE_TIME = re.compile(rf"\d{{4}}-\d{{2}}-\d{{2}}[Tt ]{_TIME}", re.ASCII)
_HOST = r"(?=.{1,253}\Z)(?!-)[A-Za-z0-9-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*"
_PATTERNS = {
    "duration": r"P(?:\d+W|(?=\d|T)(?:\d+Y)?(?:\d+M)?(?:\d+D)?(?:T(?=\d)(?:\d+H)?(?:\d+M)?(?:\d+(?:\.\d+)?S)?)?)",
    "email": rf"(?=.{{1,254}}\Z)[\w!#$%&'*+/=?^`{{|}}~-]+(?:\.[\w!#$%&'*+/=?^`{{|}}~-]+)*@{_HOST}",
    "hostname": _HOST,
    "uri": r"[A-Za-z][A-Za-z0-9+.-]*:(?:[\w.~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+",
}


@FORMAT_CHECKER.checks("date-time", ValueError)
def _is_date_time(value: object) -> bool:
    """RFC 3339 with an offset, without leap seconds."""
    if not isinstance(value, str):
        return True
    return _DATE_TIME.fullmatch(value) is not None and bool(datetime.fromisoformat(value.upper()))


@FORMAT_CHECKER.checks("time", ValueError)
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or _is_date_time(f"2000-01-01T{value}")


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return not isinstance(value, str) or pattern.fullmatch(value) is not None


for _name, _pattern in _PATTERNS.items():
    FORMAT_CHECKER.checks(_name)(partial(_matches, re.compile(_pattern, re.ASCII)))


def check_keywords(schema: Json, name: str, where: str = "") -> None:
    """Raise FormatError with the location of the first unsupported keyword."""
    if not isinstance(schema, Mapping):
        return
    location = where or "/"
    for keyword, value in schema.items():
        if keyword not in KEYWORDS:
            hint = _REPLACEMENTS.get(keyword, "it is not a supported keyword of JSON Schema 2020-12")
            raise FormatError(f"{name}: cannot use {keyword!r} at {location}; {hint}")
        if not where and keyword not in _TOP_LEVEL:
            raise FormatError(f"{name}: {keyword!r} at / applies to all fields; write it in each field")
        for key, part in _subschemas(keyword, value):
            check_keywords(part, name, f"{where}/{key}")
    if (format := schema.get("format")) is not None and format not in FORMAT_CHECKER.checkers:
        raise FormatError(
            f"{name}: no checker for the format {format!r} at {location}; use a pattern, or one of "
            f"{', '.join(sorted(FORMAT_CHECKER.checkers))}"
        )


def _subschemas(keyword: str, value: Json) -> list[tuple[str, Json]]:
    """The schemas in a keyword's value, each with its location."""
    if keyword in _SCHEMA_OBJECT:
        return [(f"{keyword}/{key}", part) for key, part in value.items()]
    if keyword in _SCHEMA:
        return [(keyword, value)]
    if keyword in _SCHEMA_LIST:
        return [(f"{keyword}/{i}", part) for i, part in enumerate(value)]
    return []


def resolve_refs(document: Mapping[str, Json], name: str) -> dict[str, Json]:
    """The schema with each `$ref` replaced by its definition, without `$defs`.

    Raises FormatError for a recursive reference and for one that is not to `#/$defs`. Nothing is downloaded.
    """
    definitions = document.get("$defs", {})

    def resolve(schema: Json, where: str, inside: tuple[str, ...]) -> Json:
        if not isinstance(schema, Mapping):
            return schema
        if "$ref" in schema:
            key = str(schema["$ref"]).removeprefix("#/$defs/")
            if key == schema["$ref"] or key not in definitions:
                raise FormatError(f"{name}: unknown $ref {schema['$ref']!r} at {where}; use #/$defs/NAME")
            if key in inside:
                raise FormatError(f"{name}: recursive $ref at {where}; write out as many levels as needed")
            siblings = {k: v for k, v in schema.items() if k != "$ref"}
            if not isinstance(definitions[key], Mapping):
                return resolve(siblings, where, inside)
            return resolve({**definitions[key], **siblings}, where, (*inside, key))
        resolved = dict(schema)
        for keyword, value in schema.items():
            parts = [resolve(part, f"{where}/{at}", inside) for at, part in _subschemas(keyword, value)]
            if keyword in _SCHEMA_OBJECT:
                resolved[keyword] = dict(zip(value, parts, strict=True))
            elif keyword in _SCHEMA:
                resolved[keyword] = parts[0]
            elif keyword in _SCHEMA_LIST:
                resolved[keyword] = parts
        return resolved

    result: dict[str, Json] = resolve({k: v for k, v in document.items() if k != "$defs"}, "", ())
    return result
