"""Regular expressions in the dialect that every grammar converter reads the same way.

A JSON Schema `pattern` is a search with Python's `re`. The converters want it anchored, and differ in
nearly everything else: llama.cpp copies a class as it stands, has no `\\d`, and writes a quotation mark
into the JSON string as it is. What is rendered here has plain groups, classes of literal characters,
`|` and repeats of a class or a group, and never matches a character that JSON has to escape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

Ranges = list[tuple[int, int]]
"""Code points as sorted inclusive ranges that do not touch."""

_MOST_PLACES = 40
"""Characters that the repeats of a pattern may add up to: xgrammar takes 1.4 s to compile `.{0,32}`."""

_LAST = 0x10FFFF
_ESCAPED_IN_JSON: Ranges = [(0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F)]
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
    """The converters do not agree on this construct, or have none for it."""


def portable_pattern(pattern: str) -> str | None:
    """The pattern as all converters hold it, `^…$`; None if it is to be checked by validation alone.

    What the result matches is a subset of what the pattern finds, but for the Unicode digits, letters
    and spaces that `\\D`, `\\W` and `\\S` exclude; validation sees to those.
    """
    try:
        parsed = _parser.parse(pattern)
        if parsed.state.flags != re.UNICODE.value or _places(parsed) > _MOST_PLACES:
            return None
        return f"^{_whole(parsed)}$"
    except (_NotPortable, re.error, RecursionError, OverflowError):
        return None


def _whole(items: Iterable[Any], before: str = _ANY_TEXT) -> str:
    """A search as a match of the whole text: what is not anchored may have any text beside it."""
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
        if _contains(_ESCAPED_IN_JSON, argument):
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
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):  # lazy or greedy, the texts are the same
        return _repeat(*argument)
    return _class(_members(op, argument))


def _repeat(low: int, high: Any, inner: Any) -> str:
    unbounded = high is sre.MAXREPEAT
    if high == 0 or (unbounded and inner.getwidth()[0] == 0):
        raise _NotPortable("a repeat of nothing")
    op, argument = inner[0]
    # A class and not a literal: llama.cpp would repeat the letters before it too.
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


def _places(items: Any) -> int:
    """How many characters a grammar spells out for a pattern, repeats multiplied out."""
    number = 0
    for op, argument in items:
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            low, high, inner = argument
            number += (max(low, 1) if high is sre.MAXREPEAT else int(high)) * _places(inner)
        elif op is sre.SUBPATTERN:
            number += _places(argument[3])
        elif op is sre.BRANCH:
            number += sum(map(_places, argument[1]))
        else:
            number += 1
    return number


def _members(op: Any, argument: Any) -> Ranges:
    """The code points that a one-character construct matches, `\\d` and the like as in ASCII."""
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
    return _complement(found) if argument[0][0] is sre.NEGATE else _joined(found)


def _class(members: Ranges) -> str:
    """A class of these code points but for those that JSON escapes."""
    if members and members[-1][1] == _LAST:
        return f"[^{_spelled(_joined([*_complement(members), *_ESCAPED_IN_JSON]))}]"
    kept = _complement([*_complement(members), *_ESCAPED_IN_JSON])
    if not kept:
        raise _NotPortable("a class of characters that JSON escapes")
    return f"[{_spelled(kept)}]"


def _spelled(ranges: Ranges) -> str:
    ends = [(_character(low), _character(high)) for low, high in ranges]
    return "".join(low if low == high else f"{low}-{high}" for low, high in ends)


def _character(code: int) -> str:
    """Inside a class: what could have a meaning of its own there is spelled in hexadecimal."""
    plain = chr(code).isalnum() or code in (ord("_"), ord(" ")) or code > 0x7F
    return chr(code) if plain else f"\\x{code:02x}"


def _joined(ranges: Sequence[tuple[int, int]]) -> Ranges:
    joined: Ranges = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined


def _complement(ranges: Sequence[tuple[int, int]]) -> Ranges:
    gaps: Ranges = []
    start = 0
    for low, high in _joined(ranges):
        if start < low:
            gaps.append((start, low - 1))
        start = high + 1
    return [*gaps, (start, _LAST)] if start <= _LAST else gaps


def _contains(ranges: Ranges, code: int) -> bool:
    return any(low <= code <= high for low, high in ranges)
