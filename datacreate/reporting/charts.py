"""Charts of bars and lines, and the templates of pages that show them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from datacreate.messages import safe_text

if TYPE_CHECKING:
    from jinja2 import Template

GREY = 7  # the last color of a chart


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
class Point:
    """A point of a line with the interval of y and a tooltip: values as measured, or as `line_plot` places them."""

    x: float
    y: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class LinePlot:
    """A line for each name of the legend; `columns` and `rows` are the labels of the axes with their places."""

    title: str
    legend: Sequence[str]
    lines: Sequence[Sequence[Point]]
    columns: Sequence[tuple[float, str]]
    rows: Sequence[tuple[float, str]]


_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 470, 10, 230
_DODGE = 4  # between points of several lines at one x


def line_plot(title: str, series: Mapping[str, Sequence[Point]]) -> LinePlot:
    """Lines by name. The x axis, from 1, is logarithmic; at least two values of x are different."""
    points = [point for line in series.values() for point in line]
    numbers = sorted({point.x for point in points})
    bottom, top = min(0.0, *(point.low for point in points)), max(point.high for point in points)
    step = 20 if top - bottom > 60 else 10
    first, last = math.floor(bottom / step), max(1, math.ceil(top / step))

    def across(x: float) -> float:
        share = math.log(x / numbers[0]) / math.log(numbers[-1] / numbers[0])
        return _LEFT + 20 + (_RIGHT - _LEFT - 40) * share

    def down(y: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (y / step - first) / (last - first)

    shifts = [_DODGE * (index - (len(series) - 1) / 2) for index in range(len(series))]
    lines = [
        [Point(across(p.x) + shift, down(p.y), down(p.low), down(p.high), p.text) for p in line]
        for shift, line in zip(shifts, series.values(), strict=True)
    ]
    rows = [(down(at * step), str(at * step)) for at in range(first, last + 1)]
    return LinePlot(title, tuple(series), lines, [(across(x), f"{x:,.0f}") for x in numbers], rows)


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
