"""Charts of bars, plots of dots and lines, and the templates of pages that show them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

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


class CurvePoint(NamedTuple):
    """A point of a line, the ends of its interval, and its tooltip."""

    y: float
    low: float
    high: float
    text: str


_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _MARGIN = 480.0, 260.0, 60.0, 230.0, 20.0
_SHIFT = 4  # between points of several lines at one x
_FINE_STEP, _COARSE_STEP, _FINE_RANGE = 10, 20, 60  # steps of the y axis; the longest one with fine steps


@dataclass(frozen=True)
class _Axes:
    """The axes of a line plot; the x axis, from 1, is logarithmic."""

    first_x: int
    last_x: int
    ticks: range  # of the y axis

    @classmethod
    def of(cls, numbers: Sequence[int], points: Sequence[CurvePoint]) -> _Axes:
        """Axes that have these numbers (x), and 0 and the intervals of these points (y)."""
        bottom, top = min(0.0, *(point.low for point in points)), max(point.high for point in points)
        step = _COARSE_STEP if top - bottom > _FINE_RANGE else _FINE_STEP
        first, last = math.floor(bottom / step), max(1, math.ceil(top / step))
        return cls(min(numbers), max(numbers), range(first * step, (last + 1) * step, step))

    def across(self, x: float) -> float:
        share = math.log(x / self.first_x) / math.log(self.last_x / self.first_x)
        return _LEFT + _MARGIN + (_WIDTH - _LEFT - 2 * _MARGIN) * share

    def down(self, y: float) -> float:
        share = (y - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return _BOTTOM - (_BOTTOM - _MARGIN) * share


def line_plot(title: str, series: Mapping[str, Mapping[int, CurvePoint]]) -> Plot:
    """Lines by name, each with its points by x, from 1. At least two values of x are different."""
    numbers = sorted({x for points in series.values() for x in points})
    axes = _Axes.of(numbers, [point for points in series.values() for point in points.values()])
    lines = [(_LEFT, axes.down(tick), _WIDTH, axes.down(tick), "grid") for tick in axes.ticks]
    labels = [(_LEFT / 2, axes.down(tick) + 4, str(tick)) for tick in axes.ticks]
    labels += [(axes.across(x), _BOTTOM + _MARGIN, f"{x:,}") for x in numbers]
    dots = []
    for number, points in enumerate(series.values()):
        color, shift = number % COLORS, _SHIFT * (number - (len(series) - 1) / 2)
        places = [(axes.across(x) + shift, axes.down(point.y)) for x, point in points.items()]
        for (x, y), point in zip(places, points.values(), strict=True):
            dots.append(Dot(x, y, color, point.text))
            lines.append((x, axes.down(point.low), x, axes.down(point.high), f"c{color}"))
        lines += [(*start, *end, f"c{color}") for start, end in pairwise(places)]
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
