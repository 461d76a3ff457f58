"""Which JSON Schema keywords a grammar can hold, and which it must not be asked to.

xgrammar enforces the keywords of `HELD` (found by trying, xgrammar 0.2.8); string lengths
compile slowly and slow every mask, so they are left to validation. Any other keyword would
be ignored in silence or refused by the engine, so it is refused here, with what to write instead.
"""

from __future__ import annotations

from collections.abc import Mapping

from datacreate.errors import FormatError
from datacreate.tasks.example import Json

HELD = frozenset(
    "type properties required additionalProperties items prefixItems minItems maxItems enum const anyOf $ref "
    "$defs minimum maximum exclusiveMinimum exclusiveMaximum pattern format".split()
)
LEFT_TO_VALIDATION = frozenset({"minLength", "maxLength"})
SAYS_NOTHING = frozenset("$schema $id $comment title description default examples x-datacreate".split())

_INSTEAD = {
    "uniqueItems": "use the rule options_differ",
    "oneOf": "use anyOf",
    "allOf": "write the combined schema out",
    "multipleOf": "use enum",
}


def refuse_unholdable(schema: Json, name: str, where: str = "") -> None:
    """Raise FormatError for the first keyword that the grammar cannot hold."""
    if not isinstance(schema, Mapping):
        return
    for keyword, value in schema.items():
        if keyword not in HELD | LEFT_TO_VALIDATION | SAYS_NOTHING:
            instead = _INSTEAD.get(keyword, "leave it out and check it afterwards")
            raise FormatError(f"{name}: the grammar cannot hold {keyword!r} at {where or '/'}; {instead}")
        for at, part in _parts(keyword, value):
            refuse_unholdable(part, name, f"{where}/{at}")
    if ("pattern" in schema or "format" in schema) and LEFT_TO_VALIDATION & schema.keys():
        raise FormatError(f"{name}: pattern or format together with a length at {where or '/'}; keep one of them")


def _parts(keyword: str, value: Json) -> list[tuple[str, Json]]:
    if keyword in ("properties", "$defs"):
        return [(f"{keyword}/{key}", part) for key, part in value.items()]
    if keyword in ("items", "additionalProperties"):
        return [(keyword, value)]
    if keyword in ("anyOf", "prefixItems"):
        return [(f"{keyword}/{i}", part) for i, part in enumerate(value)]
    return []


def for_grammar(schema: Json) -> Json:
    """The schema with only what the grammar holds; properties closed and all required."""
    if not isinstance(schema, Mapping):
        return schema
    kept = {k: v for k, v in schema.items() if k in HELD}
    for key in ("items", "additionalProperties"):
        if key in kept:
            kept[key] = for_grammar(kept[key])
    for key in ("properties", "$defs"):
        if key in kept:
            kept[key] = {name: for_grammar(part) for name, part in kept[key].items()}
    for key in ("anyOf", "prefixItems"):
        if key in kept:
            kept[key] = [for_grammar(part) for part in kept[key]]
    if "properties" in kept:
        kept |= {"required": list(kept["properties"]), "additionalProperties": False}
    return kept
