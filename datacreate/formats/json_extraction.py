"""The JSON in what a model wrote: without its thinking, code fences and the prose around it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_OPEN, _CLOSE = "<think>", "</think>"
_SPACE = re.compile(r"\s*+")
_LEADING = re.compile(r"\s*+(?:```\w*+\s*+)?+(?=[\[{])")
_START = re.compile(r"\[\s*+(?:[\[{\]\"\-\d]|true|false|null|\Z)|\{\s*+(?:[\"}]|\Z)")
"""A bracket that begins a JSON array or object, and not an aside such as "[see below]"."""
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def json_part(text: str) -> str:
    """The JSON array or object in a model's text, cut out of what stands around it; empty if there is none.

    One that is cut off goes to the end of the text, so that its complete items can be read. Of several,
    the longest that can be read is taken. Takes time linear in the text.
    """
    start = _after_thinking(text)
    if start is None:
        return ""
    parts = sorted(_parts(text, start), key=lambda part: part[0] - part[1])
    for begin, end, whole in parts:
        if len(parts) == 1 or not whole or _is_json(text[begin:end]):
            return text[begin:end]
    return text[parts[0][0] : parts[0][1]] if parts else ""


def _after_thinking(text: str) -> int | None:
    """Where the answer begins; None if the thinking never ends. Its opening tag may be in the prompt."""
    at = 0
    tag = text.find(_CLOSE)
    if tag >= 0 and not text.startswith(_OPEN, _skip_space(text, 0)):
        if _stands_in_answer(text, tag):
            return 0
        at = tag + len(_CLOSE)
    while text.startswith(_OPEN, at := _skip_space(text, at)):
        tag = text.find(_CLOSE, at)
        if tag < 0:
            return None
        at = tag + len(_CLOSE)
    begin = _START.search(text, at)
    unclosed = text.find(_OPEN, at, begin.start() if begin else len(text))
    return at if unclosed < 0 else None


def _stands_in_answer(text: str, tag: int) -> bool:
    """Whether a closing tag is part of the answer: of one that can be read, or that begins the text."""
    for begin, end, closed in _parts(text, 0):
        if end > tag:
            leading = _LEADING.match(text)
            begins = leading is not None and leading.end() == begin
            return begin < tag and (begins or (closed and _is_json(text[begin:end])))
    return False


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _parts(text: str, at: int) -> Iterator[tuple[int, int, bool]]:
    """Each outermost array or object from `at` on: its two ends, and whether it is closed."""
    while begin := _START.search(text, at):
        at, closed = _end_of(text, begin.start())
        yield begin.start(), at, closed


def _end_of(text: str, begin: int) -> tuple[int, bool]:
    """Where the array or object at `begin` ends, and whether a bracket ends it."""
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
