"""Translates a JSON Schema `pattern` into a regular expression that all grammar converters read alike.

A `pattern` is a search with Python's `re`. The converters need it anchored, and differ otherwise: llama.cpp copies
character classes verbatim, has no `\\d`, and does not escape quotation marks in the JSON string. The translation only
has groups, classes of literal characters, `|`, and repeats of a class or a group. It never matches a character that
JSON must escape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

Ranges = list[tuple[int, int]]
"""Inclusive ranges of code points."""

_MAX_LENGTH = 40
"""Maximum length of a pattern with its repeats written out: xgrammar compiles long ones slowly."""

_LAST = 0x10FFFF
_JSON_ESCAPES: Ranges = [(0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F)]
_ANY_TEXT = r"[^\x00-\x1f\x22\x5c\x7f]*"
_ONE_CHARACTER = (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN)
_REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT)  # greedy and lazy repeats accept the same texts
_STARTS = (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING)
_ENDS = (sre.AT_END, sre.AT_END_STRING)


def _complement(ranges: Sequence[tuple[int, int]]) -> Ranges:
    """All other code points, as sorted ranges that do not touch."""
    gaps: Ranges = []
    start = 0
    for low, high in sorted(ranges):
        if start < low:
            gaps.append((start, low - 1))
        start = max(start, high + 1)
    return [*gaps, (start, _LAST)] if start <= _LAST else gaps


_CATEGORIES: dict[Any, Ranges] = {
    sre.CATEGORY_DIGIT: [(0x30, 0x39)],
    sre.CATEGORY_WORD: [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
    sre.CATEGORY_SPACE: [(0x09, 0x0D), (0x20, 0x20)],
}
_CATEGORIES |= {
    getattr(sre, f"CATEGORY_NOT_{name}"): _complement(_CATEGORIES[getattr(sre, f"CATEGORY_{name}")])
    for name in ("DIGIT", "WORD", "SPACE")
}


class _NotPortable(Exception):
    """The converters do not support this construct, or disagree on it."""


def portable_pattern(pattern: str) -> str | None:
    """The pattern for grammars, `^…$`; None if only validation can check it.

    The result matches a subset of the texts that the pattern accepts. Exception: `\\D`, `\\W` and `\\S` only exclude
    ASCII characters; validation checks the others.
    """
    try:
        parsed = _parser.parse(pattern)
        if parsed.state.flags != re.UNICODE.value or _expanded_length(parsed) > _MAX_LENGTH:
            return None
        return f"^{_whole(parsed)}$"
    except (_NotPortable, re.error, RecursionError, OverflowError):
        return None


def _expanded_length(items: Any) -> int:
    """The number of characters of a pattern with its repeats written out."""
    number = 0
    for op, argument in items:
        if op in _REPEATS:
            low, high, inner = argument
            number += (max(low, 1) if high is sre.MAXREPEAT else int(high)) * _expanded_length(inner)
        elif op is sre.SUBPATTERN:
            number += _expanded_length(argument[3])
        else:
            number += sum(map(_expanded_length, argument[1])) if op is sre.BRANCH else 1
    return number


def _whole(items: Iterable[Any], before: str = _ANY_TEXT) -> str:
    """A search as a match of the whole text: an end without an anchor gets `_ANY_TEXT`."""
    items, after = list(items), _ANY_TEXT
    if items and items[0][0] is sre.AT and items[0][1] in _STARTS:
        before, items = "", items[1:]
    if len(items) == 1 and items[0][0] is sre.BRANCH:
        return f"({'|'.join(_whole(branch, before) for branch in items[0][1][1])})"
    if items and items[-1][0] is sre.AT and items[-1][1] in _ENDS:
        after, items = "", items[:-1]
    return before + _sequence(items) + after


def _sequence(items: Iterable[Any]) -> str:
    text = "".join(_item(op, argument) for op, argument in items)
    if not text:
        raise _NotPortable
    return text


def _item(op: Any, argument: Any) -> str:
    if op is sre.LITERAL:
        if any(low <= argument <= high for low, high in _JSON_ESCAPES):
            raise _NotPortable
        return "\\" + chr(argument) if chr(argument) in "^$.[]()|{}*+?" else chr(argument)
    if op is sre.SUBPATTERN:
        _, added_flags, dropped_flags, inner = argument
        if added_flags or dropped_flags:
            raise _NotPortable
        return _group(inner)
    if op is sre.BRANCH:
        some = [_sequence(branch) for branch in argument[1] if len(branch)]
        return f"({'|'.join(some)})" + ("?" if len(some) < len(argument[1]) else "")
    return _repeat(*argument) if op in _REPEATS else _class(op, argument)


def _repeat(low: int, high: Any, inner: Any) -> str:
    unbounded = high is sre.MAXREPEAT
    if high == 0 or (unbounded and inner.getwidth()[0] == 0):
        raise _NotPortable
    # llama.cpp repeats a literal together with the letters before it, so it is written as a class.
    repeated = _class(*inner[0]) if len(inner) == 1 and inner[0][0] in _ONE_CHARACTER else _group(inner)
    if unbounded:
        return repeated + "+" if low == 1 else (repeated + f"{{{low}}}" if low else "") + repeated + "*"
    if (low, high) == (0, 1):
        return repeated + "?"
    return repeated + (f"{{{low}}}" if low == high else f"{{{low},{high}}}")


def _group(items: Any) -> str:
    text = _sequence(items)
    grouped = len(items) == 1 and items[0][0] in (sre.BRANCH, sre.SUBPATTERN) and text.endswith(")")
    return text if grouped else f"({text})"


def _class(op: Any, argument: Any) -> str:
    """A character class of the code points that a construct matches, without those that JSON escapes."""
    kept = _complement([*_complement(_members(op, argument)), *_JSON_ESCAPES])
    if not kept:
        raise _NotPortable
    negated = kept[-1][1] == _LAST
    ends = [
        (_class_character(low), _class_character(high))
        for low, high in (_complement(kept) if negated else kept)
    ]
    text = "".join(low if low == high else f"{low}-{high}" for low, high in ends)
    return f"[{'^' if negated else ''}{text}]"


def _members(op: Any, argument: Any) -> Ranges:
    """The code points that a one-character construct matches; `\\d`, `\\w` and `\\s` are ASCII."""
    if op is sre.ANY:
        return _complement([(ord("\n"), ord("\n"))])
    if op in (sre.LITERAL, sre.NOT_LITERAL):
        return [(argument, argument)] if op is sre.LITERAL else _complement([(argument, argument)])
    if op is not sre.IN:
        raise _NotPortable
    found: Ranges = []
    for kind, value in argument:
        if kind is sre.CATEGORY:
            found += _CATEGORIES[value]
        elif kind is not sre.NEGATE:
            found.append(value if kind is sre.RANGE else (value, value))
    return _complement(found) if argument[0][0] is sre.NEGATE else found


def _class_character(code: int) -> str:
    """A character in a class; in hexadecimal if it could have a special meaning."""
    plain = chr(code).isalnum() or code in (ord("_"), ord(" ")) or code > 0x7F
    return chr(code) if plain else f"\\x{code:02x}"
