"""Builds the response schema, which a request sends and the engine enforces, and parses the response.

An engine compiles the schema to a grammar: vLLM with xgrammar or llguidance, llama.cpp with its own converter to GBNF
or with llguidance. Each ignores, rejects or misreads some keywords. `portable_schema` therefore rewrites a schema in a
dialect that all of them enforce: `const`, `enum`, `anyOf`, strings with an anchored `pattern` or one of four formats,
integers with inclusive bounds, tuples as `prefixItems` (without `items: false`, which llama.cpp rejects), arrays of
one item schema, closed objects. The result can be narrower than the original (all properties are required, a tuple has
one length) or weaker; validation checks every example against the original.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from datacreate.formats.candidate import Candidate, validate_example
from datacreate.formats.example import Json, canonical_json, shorten, values_in
from datacreate.formats.prompt_encoding import MalformedItem, PromptEncoding
from datacreate.formats.reject import Reject, RejectReason
from datacreate.formats.roles import Roles
from datacreate.formats.schema_keywords import ENFORCED_FORMATS
from datacreate.formats.schema_utils import Schema, integer_bounds, object_schema, schema_at, tuple_schema, with_field

_MAX_REPEATS = 40
"""The greatest sum of the repeats in a pattern: xgrammar writes them out and compiles long patterns slowly."""

_NO_ESCAPES = r"\x00-\x1f\x22\x5c\x7f"
"""Characters that JSON must escape. Engines treat them differently in patterns, so portable patterns exclude them."""

_ABBREVIATIONS = {r"\d": "[0-9]", r"\w": "[0-9A-Za-z_]", "(?:": "("}
_CLASS = r"\[\^?(?:[0-9]-[0-9]|[A-Z]-[A-Z]|[a-z]-[a-z]|[\w ])+-?\](?:[*+?]|\{\d+(?:,\d+)?\})?"
_PART = rf"(?:{_CLASS}|[\w ,:;/#@%-]|\\[-.+*?()/])"
_PORTABLE = re.compile(rf"\^(?:{_PART}|\({_PART}+(?:\|{_PART}+)*\)[*+?]?)+\$", re.ASCII)
"""Matches the patterns that all engines read alike. Only classes and groups are repeated: llama.cpp repeats a literal
together with the letters before it. xgrammar 0.2 beside torch refuses letters that are not ASCII."""

_DECODER = json.JSONDecoder()
_BEFORE_ITEM = re.compile(r"[ \t\r\n,]*")
_AFTER_ITEM = re.compile(r"[ \t\r\n]*[,\]]")

_ANY: dict[str, Json] = {"type": ["string", "number", "boolean", "null", "array", "object"]}
"""Any value. llama.cpp reads {} as an object."""


def build_response_schema(encoding: PromptEncoding, num_examples: int, labels: Sequence[Json] | None) -> str:
    """The schema of a response as compact JSON: an array of `num_examples` examples in the given encoding.

    `labels` has the label of each example, which the schema fixes; None if the model chooses them.
    """
    fields: Schema = {"properties": encoding.field_schemas}
    if labels is None:
        length = {"minItems": num_examples, "maxItems": num_examples}
        response = {"type": "array", "items": _example_schema(encoding, fields), **length}
    else:
        roles = encoding.format.roles
        response = tuple_schema([_example_schema(encoding, _with_label(fields, roles, label)) for label in labels])
    # Keys are not sorted: models write properties in this order. Equal schemas give equal texts, to be compiled once.
    return json.dumps(response, separators=(",", ":"), ensure_ascii=False)


def _with_label(fields: Schema, roles: Roles, label: Json) -> Schema:
    """The written fields with the label as the constant answer; a function call can only be one of that function."""
    if not roles.answer:
        return fields
    fields = with_field(fields, roles.answer, {"const": label})
    if not roles.call:
        return fields
    call, name = schema_at(fields, roles.call), roles.answer[-1]
    branches = [branch for branch in call["anyOf"] if branch["properties"][name]["const"] == label]
    return with_field(fields, roles.call, {**call, "anyOf": branches})


def _example_schema(encoding: PromptEncoding, fields: Schema) -> dict[str, Json]:
    """The portable schema of one written example that has these fields."""
    parts = {name: portable_schema(part) for name, part in fields["properties"].items()}
    if encoding.is_bare:
        return next(iter(parts.values()))
    return object_schema(parts) if encoding.style == "keyed" else tuple_schema(list(parts.values()))


def portable_schema(schema: Schema) -> dict[str, Json]:
    """The schema, which has no `$ref`, rewritten in the dialect that all engines enforce (see above).

    `{"type": ["integer", "null"], "exclusiveMinimum": 0}` becomes
    `{"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}`.
    """
    for keyword in ("const", "enum"):
        if keyword in schema:
            return {keyword: schema[keyword]}
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            siblings = {key: value for key, value in schema.items() if key != keyword}
            return _any_of(_merge(siblings, branch) for branch in schema[keyword])
    json_type = schema.get("type")
    if not json_type and "properties" in schema:
        json_type = "object"
    elif not json_type and {"items", "prefixItems"} & schema.keys():
        json_type = "array"
    if isinstance(json_type, list):
        return _any_of({**schema, "type": name} for name in json_type)
    rewriters = {"string": _string, "integer": _integer, "array": _array, "object": _object}
    if json_type in rewriters:
        return rewriters[json_type](schema)
    return {"type": json_type} if json_type else _ANY


def _any_of(schemas: Iterable[Schema]) -> dict[str, Json]:
    distinct = {canonical_json(branch): branch for branch in map(portable_schema, schemas)}
    branches = list(distinct.values())
    if len(branches) > 1:
        return {"anyOf": branches}
    return branches[0] if branches else _ANY


def _merge(siblings: Schema, branch: Schema) -> Schema:
    """A branch of `anyOf` with the keywords beside `anyOf`, which the branch can override."""
    merged = {**siblings, **branch}
    if "properties" in siblings and "properties" in branch:
        merged["properties"] = {**siblings["properties"], **branch["properties"]}
    return merged


def _integer(schema: Schema) -> dict[str, Json]:
    bounds = zip(("minimum", "maximum"), integer_bounds(schema), strict=True)
    return {"type": "integer"} | {key: value for key, value in bounds if value is not None and abs(value) < 2**63}


def _string(schema: Schema) -> dict[str, Json]:
    if "pattern" in schema and (pattern := portable_pattern(schema["pattern"])):
        return {"type": "string", "pattern": pattern}
    if schema.get("format") in ENFORCED_FORMATS:
        return {"type": "string", "format": schema["format"]}
    return {"type": "string"}


def portable_pattern(pattern: str) -> str | None:
    """The pattern in a notation that all engines read alike: `^[0-9]{3}$` for `^\\d{3}$`.

    None if there is none, as for lookaheads; then only validation checks the pattern.
    """
    for abbreviation, expanded in _ABBREVIATIONS.items():
        pattern = pattern.replace(abbreviation, expanded)
    repeats = sum(map(int, re.findall(r"(\d+)\}", pattern)))
    if not _PORTABLE.fullmatch(pattern) or repeats > _MAX_REPEATS:
        return None
    return pattern.replace("[^", f"[^{_NO_ESCAPES}")


def _array(schema: Schema) -> dict[str, Json]:
    minimum, maximum, item_schema = schema.get("minItems", 0), schema.get("maxItems"), schema.get("items", {})
    if prefix := schema.get("prefixItems"):
        # Only xgrammar enforces a tuple followed by more items, so the tuple is as short as allowed.
        length = max(len(prefix), int(minimum))
        parts = [*prefix, *[item_schema or {}] * (length - len(prefix))]
        return tuple_schema([portable_schema(part) for part in parts[: None if maximum is None else int(maximum)]])
    if item_schema is False or maximum == 0:
        return {"const": []}
    array: dict[str, Json] = {"type": "array", "items": portable_schema(item_schema)}
    if minimum:
        array["minItems"] = int(minimum)
    if maximum is not None:
        array["maxItems"] = int(maximum)
    return array


def _object(schema: Schema) -> dict[str, Json]:
    additional = schema.get("additionalProperties", {})
    properties = {**schema.get("properties", {})}
    properties |= {name: additional or {} for name in schema.get("required", ()) if name not in properties}
    if properties or "properties" in schema or additional is False:
        return object_schema({name: portable_schema(part) for name, part in properties.items()})
    if additional:
        return {"type": "object", "additionalProperties": portable_schema(additional)}
    return {"type": "object"}


def parse_completion(
    text: str,
    encoding: PromptEncoding,
    num_examples: int,
    *,
    truncated: bool,
    keep_complete_items: bool = True,
    longest_text: int | None = None,
) -> list[Candidate | Reject]:
    """Parse and validate a completion: a result for each item of its array, in order, and a reject for an invalid end.

    `truncated` says that generation stopped at max_tokens, `keep_complete_items` that the complete items of an
    incomplete array count. Items after `num_examples` are rejected as not needed, and items with a text of more than
    `longest_text` characters as truncated, since the server ended it.
    """
    if not text.strip():
        return [Reject(RejectReason.NO_RESPONSE, "")]
    array = extract_json(text)
    incomplete = Reject(RejectReason.TRUNCATED if truncated else RejectReason.INVALID_JSON, shorten(text))
    if not array.startswith("["):
        return [incomplete]
    try:
        items, is_complete = _DECODER.raw_decode(array)[0], True
    except (ValueError, RecursionError):
        items, is_complete = list(_complete_items(array)), False
    results: list[Candidate | Reject] = []
    if is_complete or keep_complete_items:
        results += [parse_item(item, encoding, longest_text) for item in items[:num_examples]]
        results += [Reject(RejectReason.NOT_NEEDED, shorten(item)) for item in items[num_examples:]]
    if not is_complete:
        results.append(incomplete)
    return results or [Reject(RejectReason.NO_RESPONSE, shorten(text))]


def parse_item(item: Json, encoding: PromptEncoding, longest_text: int | None = None) -> Candidate | Reject:
    """Parse and validate one item of the array: a candidate, or a reject that shows the item. Raises nothing."""
    try:
        if longest_text is not None and any(len(text) > longest_text for text in values_in(item)):
            detail = f"a text of more than {longest_text} characters"
            return Reject(RejectReason.TRUNCATED, shorten(item), detail)
        values = encoding.read(item)
        if encoding.has_placeholder(values):
            return Reject(RejectReason.PLACEHOLDER, shorten(item))
        result = validate_example(values, encoding.format)
    except (MalformedItem, RecursionError):
        return Reject(RejectReason.SCHEMA_VIOLATION, shorten(item))
    return result if isinstance(result, Candidate) else replace(result, text=shorten(item))


def _complete_items(array: str) -> Iterator[Json]:
    """The complete items at the start of an array that is cut or not valid JSON."""
    position = 1
    while start := _BEFORE_ITEM.match(array, position):
        try:
            item, position = _DECODER.raw_decode(array, start.end())
        except (ValueError, RecursionError):
            return
        is_closed = position == len(array) and isinstance(item, list | dict | str)
        if not is_closed and not _AFTER_ITEM.match(array, position):
            return  # a number at the end may be cut: 12 of 123
        yield item


def extract_json(text: str) -> str:
    """The completion from its first bracket on, without what a model wrote before; "" if it has no bracket."""
    start = re.search(r"[\[{]", text)
    return text[start.start() :] if start else ""
