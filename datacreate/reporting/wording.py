"""How figures and texts are written on the page: shares as points, and text as nothing but text."""

from __future__ import annotations

import json
import unicodedata

from markupsafe import Markup

from datacreate.formats.example import Json
from datacreate.reporting.tables import Cell, Interval

_MOST_CHARACTERS = 1500  # of one field: passages of open-book questions reach 19,000
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def harmless(value: object) -> object:
    """A value as it may stand in the page: controls, surrogates and what turns text round are replaced.

    Markup is left to the escaping of the template; what is already `Markup` is left alone.
    """
    if isinstance(value, Markup):
        return value
    return "".join(map(_visible, str(value).replace("\r\n", "\n")))


def _visible(character: str) -> str:
    control = unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
    return "\N{REPLACEMENT CHARACTER}" if control or character in _TURNS else character


def signed(share: float) -> str:
    """A centred figure or a difference in points: `+12.3`, `−4.0`, `0.0`."""
    rounded = round(share * 100, 1)
    sign = "+" if rounded > 0 else "−" if rounded < 0 else ""
    return f"{sign}{abs(rounded):.1f}"


def points(share: float) -> str:
    """A share times 100, to one decimal."""
    return f"{share * 100:.1f}"


def between(interval: Interval) -> str:
    """An interval of centred figures, in points."""
    return f"{signed(interval[0])} to {signed(interval[1])}"


def counted(number: int, noun: str) -> str:
    """`1 seed`, `2 seeds`, `12,300 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def p_value(p: float) -> str:
    """A p-value as it is printed: three decimals, or the bound."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def behind(cell: Cell) -> str:
    """What stands behind a cell: formatting examples times training seeds, and sets where they are more."""
    if not cell.models:
        return ""
    if cell.count is None:
        return "not trained"
    parts = [counted(cell.examples, "example")] if cell.examples else []
    if cell.sets > max(1, cell.examples):
        parts.append(counted(cell.sets, "set"))
    return " × ".join([*parts, counted(cell.seeds, "seed")])


def spread(cell: Cell) -> str:
    """The standard deviations of a cell by their source, in points; empty if there is none."""
    parts = [
        f"{name} {points(deviation)}"
        for name, deviation in (("seeds", cell.spread.seeds), ("sets", cell.spread.sets))
        if deviation is not None
    ]
    return f"SD: {', '.join(parts)}" if parts else ""


def parts(value: Json) -> list[str]:
    """A field of an example as a reader sees it: each option by itself, and cut where it is very long."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return [_cut(part) for part in value]
    return [_cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]


def _cut(text: str) -> str:
    if len(text) <= _MOST_CHARACTERS:
        return text
    return f"{text[:_MOST_CHARACTERS]} … ({len(text):,} characters)"
