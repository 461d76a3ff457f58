"""Translates a JSON Schema `pattern` into a regular expression that all grammar converters read alike.

A `pattern` is a search with Python's `re`. The converters need it anchored, and differ otherwise: llama.cpp
copies character classes verbatim, has no `\\d`, and does not escape quotation marks in the JSON string. The
translation only has groups, classes of literal characters, `|`, and repeats of a class or a group. It never
matches a character that JSON must escape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

Ranges = list[tuple[int, int]]
"""Sorted, disjoint, inclusive ranges of code points."""

_MAX_LENGTH = 40
"""Maximum length of a pattern with its repeats written out: xgrammar compiles long ones slowly."""

_LAST = 0x10FFFF
_JSON_ESCAPES: Ranges = [(0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F)]
_CATEGORIES: dict[Any, Ranges] = {
    sre.CATEGORY_DIGIT: [(0x30, 0x39)],
    sre.CATEGORY_WORD: [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
    sre.CATEGORY_SPACE: [(0x09, 0x0D), (0x20, 0x20)],
}
_OPPOSITES: dict[Any, Any] = {
    sre.CATEGORY_NOT_DIGIT: sre.CATEGORY_DIGIT,
    sre.CATEGORY_NOT_WORD: sre.CATEGORY_WORD,
    sre.CATEGORY_NOT_SPACE: sre.CATEGORY_SPACE,
}
_ANY_TEXT = r"[^\x00-\x1f\x22\x5c\x7f]*"
_STARTS = (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING)
_ENDS = (sre.AT_END, sre.AT_END_STRING)


class _NotPortable(Exception):
    """The converters do not support this construct, or disagree on it."""


def portable_pattern(pattern: str) -> str | None:
    """The pattern for grammars, `^…$`; None if only validation can check it.

    The result matches a subset of the texts that the pattern accepts. Exception: `\\D`, `\\W` and `\\S` only
    exclude ASCII characters; validation checks the others.
    """
    try:
        parsed = _parser.parse(pattern)
        if parsed.state.flags != re.UNICODE.value or _expanded_length(parsed) > _MAX_LENGTH:
            return None
        return f"^{_whole(parsed)}$"
    except (_NotPortable, re.error, RecursionError, OverflowError):
        return None


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
        raise _NotPortable("an empty alternative")
    return text


def _item(op: Any, argument: Any) -> str:
    if op is sre.LITERAL:
        if _contains(_JSON_ESCAPES, argument):
            raise _NotPortable("a character that JSON escapes")
        return "\\" + chr(argument) if chr(argument) in "^$.[]()|{}*+?" else chr(argument)
    if op is sre.SUBPATTERN:
        _, added_flags, dropped_flags, inner = argument
        if added_flags or dropped_flags:
            raise _NotPortable("flags")
        return _group(inner)
    if op is sre.BRANCH:
        some = [_sequence(branch) for branch in argument[1] if len(branch)]
        return f"({'|'.join(some)})" + ("?" if len(some) < len(argument[1]) else "")
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):  # lazy and greedy repeats accept the same texts
        return _repeat(*argument)
    return _class(_members(op, argument))


def _repeat(low: int, high: Any, inner: Any) -> str:
    unbounded = high is sre.MAXREPEAT
    if high == 0 or (unbounded and inner.getwidth()[0] == 0):
        raise _NotPortable("a repeat of nothing")
    op, argument = inner[0]
    # llama.cpp repeats a literal together with the letters before it, so it is written as a class.
    one_character = len(inner) == 1 and op in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN)
    repeated = _class(_members(op, argument)) if one_character else _group(inner)
    if unbounded:
        return repeated + "+" if low == 1 else (repeated + f"{{{low}}}" if low else "") + repeated + "*"
    if (low, high) == (0, 1):
        return repeated + "?"
    return repeated + (f"{{{low}}}" if low == high else f"{{{low},{high}}}")


def _group(items: Any) -> str:
    text = _sequence(items)
    grouped = len(items) == 1 and items[0][0] in (sre.BRANCH, sre.SUBPATTERN) and text.endswith(")")
    return text if grouped else f"({text})"


def _expanded_length(items: Any) -> int:
    """The number of characters of a pattern with its repeats written out."""
    number = 0
    for op, argument in items:
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            low, high, inner = argument
            number += (max(low, 1) if high is sre.MAXREPEAT else int(high)) * _expanded_length(inner)
        elif op is sre.SUBPATTERN:
            number += _expanded_length(argument[3])
        elif op is sre.BRANCH:
            number += sum(map(_expanded_length, argument[1]))
        else:
            number += 1
    return number


def _members(op: Any, argument: Any) -> Ranges:
    """The code points that a one-character construct matches; `\\d`, `\\w` and `\\s` are ASCII."""
    if op is sre.ANY:
        return _complement([(ord("\n"), ord("\n"))])
    if op is sre.LITERAL:
        return [(argument, argument)]
    if op is sre.NOT_LITERAL:
        return _complement([(argument, argument)])
    if op is not sre.IN:
        raise _NotPortable(str(op))
    found: Ranges = []
    for kind, value in argument:
        if kind is sre.LITERAL:
            found.append((value, value))
        elif kind is sre.RANGE:
            found.append(value)
        elif kind is sre.CATEGORY and value in _CATEGORIES:
            found += _CATEGORIES[value]
        elif kind is sre.CATEGORY:
            found += _complement(_CATEGORIES[_OPPOSITES[value]])
    return _complement(found) if argument[0][0] is sre.NEGATE else _merge_ranges(found)


def _class(members: Ranges) -> str:
    """A character class of these code points without those that JSON escapes."""
    if members and members[-1][1] == _LAST:
        return f"[^{_class_text(_merge_ranges([*_complement(members), *_JSON_ESCAPES]))}]"
    kept = _complement([*_complement(members), *_JSON_ESCAPES])
    if not kept:
        raise _NotPortable("a class of characters that JSON escapes")
    return f"[{_class_text(kept)}]"


def _class_text(ranges: Ranges) -> str:
    ends = [(_class_character(low), _class_character(high)) for low, high in ranges]
    return "".join(low if low == high else f"{low}-{high}" for low, high in ends)


def _class_character(code: int) -> str:
    """A character in a class; in hexadecimal if it could have a special meaning."""
    plain = chr(code).isalnum() or code in (ord("_"), ord(" ")) or code > 0x7F
    return chr(code) if plain else f"\\x{code:02x}"


def _merge_ranges(ranges: Sequence[tuple[int, int]]) -> Ranges:
    merged: Ranges = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def _complement(ranges: Sequence[tuple[int, int]]) -> Ranges:
    gaps: Ranges = []
    start = 0
    for low, high in _merge_ranges(ranges):
        if start < low:
            gaps.append((start, low - 1))
        start = high + 1
    return [*gaps, (start, _LAST)] if start <= _LAST else gaps


def _contains(ranges: Ranges, code: int) -> bool:
    return any(low <= code <= high for low, high in ranges)
