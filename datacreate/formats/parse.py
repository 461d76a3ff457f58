"""Parses a completion: extracts the JSON array, reads its items, and validates each of them.

A truncated array still yields its complete items.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

from datacreate.formats.example import Json
from datacreate.formats.serialization import MalformedItem, PromptEncoding
from datacreate.formats.validate import Candidate, Reason, Reject, shorten, validate_example

_DECODER = json.JSONDecoder()
_BEFORE_ITEM = re.compile(r"[ \t\r\n,]*")
_AFTER_ITEM = re.compile(r"[ \t\r\n]*[,\]]")


def parse_completion(
    text: str, encoding: PromptEncoding, count: int, *, truncated: bool, keep_complete_items: bool = True
) -> list[Candidate | Reject]:
    """The items of a completion in order, each a valid candidate or a reject.

    `count`: number of examples requested. `truncated`: generation stopped at max_tokens. `keep_complete_items`:
    of an incomplete array.
    """
    if not text.strip():
        return [Reject(Reason.NO_RESPONSE, "")]
    body = extract_json(text)
    incomplete = Reject(Reason.TRUNCATED if truncated else Reason.INVALID_JSON, shorten(text))
    if not body.startswith("["):
        return [incomplete]
    items, complete = _parse_array(body)
    results: list[Candidate | Reject] = []
    if complete or keep_complete_items:
        results += [parse_item(item, encoding) for item in items[:count]]
        results += [Reject(Reason.NOT_NEEDED, shorten(item)) for item in items[count:]]
    if not complete:
        results.append(incomplete)
    return results or [Reject(Reason.NO_RESPONSE, shorten(text))]


def parse_item(item: Json, encoding: PromptEncoding) -> Candidate | Reject:
    """Parse and validate one item of the array."""
    try:
        values = encoding.read(item)
        if encoding.has_placeholder(values):
            return Reject(Reason.PLACEHOLDER, shorten(item))
        result = validate_example(values, encoding.format)
    except (MalformedItem, RecursionError):
        return Reject(Reason.SCHEMA_VIOLATION, shorten(item))
    return result if isinstance(result, Candidate) else replace(result, text=shorten(item))


def _parse_array(body: str) -> tuple[list[Json], bool]:
    """The items of a JSON array, and whether the array is complete."""
    try:
        value, _ = _DECODER.raw_decode(body)
        return value, True
    except (ValueError, RecursionError):
        return list(_complete_items(body)), False


def _complete_items(body: str) -> Iterator[Json]:
    position = 1
    while start := _BEFORE_ITEM.match(body, position):
        try:
            item, position = _DECODER.raw_decode(body, start.end())
        except (ValueError, RecursionError):
            return
        closed = position == len(body) and isinstance(item, list | dict | str)
        if not closed and not _AFTER_ITEM.match(body, position):
            return  # a number at the end may be cut: 12 of 123
        yield item


def extract_json(text: str) -> str:
    """The JSON value in a completion, without a thinking block and text before it; "" if there is none.

    The grammar lets a model write nothing else, but some servers apply it only after the model's thoughts.
    """
    if not text.lstrip().startswith(("[", "{")):
        if "<think>" in text and "</think>" not in text:
            return ""
        text = text.rpartition("</think>")[2]
    start = re.search(r"[\[{]", text)
    return text[start.start() :] if start else ""
