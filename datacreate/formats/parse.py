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

_OPEN, _CLOSE = "<think>", "</think>"
_SPACE = re.compile(r"\s*+")
_LEADING = re.compile(r"\s*+(?:```\w*+\s*+)?+(?=[\[{])")
_START = re.compile(r"\[\s*+(?:[\[{\]\"\-\d]|true|false|null|\Z)|\{\s*+(?:[\"}]|\Z)")
"""A bracket that starts a JSON array or object, unlike the one in "[see below]"."""
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


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
    start = body.find("[")
    incomplete = Reject(Reason.TRUNCATED if truncated else Reason.INVALID_JSON, shorten(text))
    if start < 0:
        return [incomplete]
    items, complete = _parse_array(body[start:])
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
    """The JSON array or object in a completion, without thinking, code fences and prose; "" if there is none.

    A truncated value extends to the end of the text. Of several values, the longest valid one is returned. Runs in
    linear time.
    """
    start = _end_of_thinking(text)
    if start is None:
        return ""
    spans = sorted(_json_spans(text, start), key=lambda span: span[0] - span[1])
    for begin, end, closed in spans:
        if len(spans) == 1 or not closed or _is_json(text[begin:end]):
            return text[begin:end]
    return text[spans[0][0] : spans[0][1]] if spans else ""


def _end_of_thinking(text: str) -> int | None:
    """The offset where the answer starts; None if the thinking block is not closed.

    Some chat templates put the opening tag into the prompt, so a closing tag may stand alone.
    """
    position = 0
    tag = text.find(_CLOSE)
    if tag >= 0 and not text.startswith(_OPEN, _skip_space(text, 0)):
        if _is_inside_answer(text, tag):
            return 0
        position = tag + len(_CLOSE)
    while text.startswith(_OPEN, position := _skip_space(text, position)):
        tag = text.find(_CLOSE, position)
        if tag < 0:
            return None
        position = tag + len(_CLOSE)
    begin = _START.search(text, position)
    unclosed = text.find(_OPEN, position, begin.start() if begin else len(text))
    return position if unclosed < 0 else None


def _is_inside_answer(text: str, tag: int) -> bool:
    """Whether the closing tag at `tag` is inside valid JSON, or inside JSON that starts the text."""
    for begin, end, closed in _json_spans(text, 0):
        if end > tag:
            leading = _LEADING.match(text)
            starts_text = leading is not None and leading.end() == begin
            return begin < tag and (starts_text or (closed and _is_json(text[begin:end])))
    return False


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _json_spans(text: str, position: int) -> Iterator[tuple[int, int, bool]]:
    """The outermost arrays and objects from `position` on: begin, end, and whether each is closed."""
    while begin := _START.search(text, position):
        position, closed = _find_end(text, begin.start())
        yield begin.start(), position, closed


def _find_end(text: str, begin: int) -> tuple[int, bool]:
    """The end of the array or object at `begin`, and whether a bracket closes it."""
    depth = 0
    for token in _TOKEN.finditer(text, begin):
        if token.group() in ("[", "{"):
            depth += 1
        elif token.group() in ("]", "}"):
            depth -= 1
            if not depth:
                return token.end(), True
    return len(text), False


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
