"""Charts of bars, plots of dots and lines, and the templates of pages that show them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from datacreate.messages import safe_text

if TYPE_CHECKING:
    from jinja2 import Template

COLORS = 8  # numbered from 0; the last is grey


@dataclass(frozen=True)
class Bar:
    """A line of a chart: colored parts (color, percent of the width) and marks (percent)."""

    name: str
    value: str
    parts: Sequence[tuple[int, float]]
    marks: Sequence[float] = ()


@dataclass(frozen=True)
class Chart:
    """Horizontal bars with names and values."""

    title: str
    bars: Sequence[Bar]
    note: str = ""
    legend: Sequence[str] = ()  # names of the colors


@dataclass(frozen=True)
class Dot:
    """A point of a plot with its tooltip."""

    x: float
    y: float
    color: int
    text: str
    radius: float = 4.0
    hollow: bool = False


@dataclass(frozen=True)
class Plot:
    """Dots, and lines below them: start, end and class (`link`, `grid`, or `c0` for a color)."""

    title: str
    size: tuple[float, float]
    dots: Sequence[Dot]
    lines: Sequence[tuple[float, float, float, float, str]]
    legend: Sequence[str] = ()  # names of the colors
    labels: Sequence[tuple[float, float, str]] = ()  # texts at the axes
    note: str = ""


_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _MARGIN = 480.0, 260.0, 60.0, 230.0, 20.0
_DODGE = 4  # between points of several lines at one x


def line_plot(title: str, series: Mapping[str, Mapping[int, tuple[float, float, float, str]]]) -> Plot:
    """Lines by name: x -> y, low and high end of its interval, tooltip.

    The x axis, from 1, is logarithmic; at least two values of x are different.
    """
    points = [point for line in series.values() for point in line.values()]
    numbers = sorted({x for line in series.values() for x in line})
    bottom, top = min(0.0, *(low for _, low, _, _ in points)), max(high for _, _, high, _ in points)
    step = 20 if top - bottom > 60 else 10
    first, last = math.floor(bottom / step), max(1, math.ceil(top / step))

    def across(x: float) -> float:
        share = math.log(x / numbers[0]) / math.log(numbers[-1] / numbers[0])
        return _LEFT + _MARGIN + (_WIDTH - _LEFT - 2 * _MARGIN) * share

    def down(y: float) -> float:
        return _BOTTOM - (_BOTTOM - _MARGIN) * (y / step - first) / (last - first)

    ticks = range(first * step, (last + 1) * step, step)
    lines = [(_LEFT, down(tick), _WIDTH, down(tick), "grid") for tick in ticks]
    labels = [(_LEFT / 2, down(tick) + 4, str(tick)) for tick in ticks]
    labels += [(across(x), _BOTTOM + _MARGIN, f"{x:,}") for x in numbers]
    dots = []
    for at, line in enumerate(series.values()):
        color, shift = at % COLORS, _DODGE * (at - (len(series) - 1) / 2)
        before: tuple[float, float] | None = None
        for x, (y, low, high, text) in line.items():
            place = across(x) + shift, down(y)
            dots.append(Dot(*place, color, text))
            lines.append((place[0], down(low), place[0], down(high), f"c{color}"))
            if before:
                lines.append((*before, *place, f"c{color}"))
            before = place
    return Plot(title, (_WIDTH, _HEIGHT), dots, lines, tuple(series), labels)


@cache
def page_template(name: str) -> Template:
    """A template of this package that escapes every text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: object) -> object:
        return value if isinstance(value, Markup) else safe_text(str(value))

    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    options |= {"autoescape": True, "finalize": shown, "undefined": StrictUndefined}
    return Environment(loader=PackageLoader("datacreate.reporting"), **options).get_template(name)
