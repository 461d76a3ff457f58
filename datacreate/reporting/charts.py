"""Charts of bars, plots of dots and lines, and the templates of pages that show them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from datacreate.messages import safe_text

if TYPE_CHECKING:
    from jinja2 import Template

COLORS = 8  # numbered from 0; the last is grey


@dataclass(frozen=True)
class Bar:
    """One bar of a chart, with colored parts from left to right."""

    name: str
    value: str
    parts: Sequence[tuple[int, float]]  # of each part the color and the width, in percent of the chart's width
    marks: Sequence[float] = ()  # where vertical marks are, in percent of the chart's width


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
    """Dots, and lines below them. Places are in pixels from the left upper corner."""

    title: str
    size: tuple[float, float]  # width and height
    dots: Sequence[Dot]
    lines: Sequence[tuple[float, float, float, float, str]]  # x, y, x, y and class: `link`, `grid`, or `c0` for a color
    legend: Sequence[str] = ()  # names of the colors
    labels: Sequence[tuple[float, float, str]] = ()  # texts at the axes: x, y and text
    note: str = ""


_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _MARGIN = 480.0, 260.0, 60.0, 230.0, 20.0
_SHIFT = 4  # between points of several lines at one x
_FINE_STEP, _COARSE_STEP, _FINE_RANGE = 10, 20, 60  # steps of the y axis; the longest one with fine steps

CurvePoint = tuple[float, float, float, str]
"""A point of a curve: y, the two ends of the interval of y, and the tooltip."""


def line_plot(title: str, series: Mapping[str, Mapping[int, CurvePoint]]) -> Plot:
    """A plot of lines; `series` has the points of each line by x.

    The x axis is logarithmic, the y axis includes 0. All x are 1 or more, and at least two of them are different.
    """
    numbers = sorted({x for points in series.values() for x in points})
    intervals = [(low, high) for points in series.values() for _, low, high, _ in points.values()]
    bottom, top = min(0.0, *(low for low, _ in intervals)), max(high for _, high in intervals)
    step = _COARSE_STEP if top - bottom > _FINE_RANGE else _FINE_STEP
    ticks = range(step * math.floor(bottom / step), step * (max(1, math.ceil(top / step)) + 1), step)

    def across(x: float) -> float:
        share = math.log(x / numbers[0]) / math.log(numbers[-1] / numbers[0])
        return _LEFT + _MARGIN + (_WIDTH - _LEFT - 2 * _MARGIN) * share

    def down(y: float) -> float:
        share = (y - ticks[0]) / (ticks[-1] - ticks[0])
        return _BOTTOM - (_BOTTOM - _MARGIN) * share

    lines = [(_LEFT, down(tick), _WIDTH, down(tick), "grid") for tick in ticks]
    labels = [(_LEFT / 2, down(tick) + 4, str(tick)) for tick in ticks]
    labels += [(across(x), _BOTTOM + _MARGIN, f"{x:,}") for x in numbers]
    dots = []
    for number, points in enumerate(series.values()):
        color, shift = number % COLORS, _SHIFT * (number - (len(series) - 1) / 2)
        own = [Dot(across(x) + shift, down(y), color, text) for x, (y, _, _, text) in points.items()]
        for dot, (_, low, high, _) in zip(own, points.values(), strict=True):
            lines.append((dot.x, down(low), dot.x, down(high), f"c{color}"))
        lines += [(start.x, start.y, end.x, end.y, f"c{color}") for start, end in pairwise(own)]
        dots += own
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
