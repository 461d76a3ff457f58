"""The figures of the page: heat steps of cells, bars of counts, and learning curves for plotly.

Colours are not here: the style sheet has one set for light and one for dark, and curves are painted
with them in the browser.
"""

from __future__ import annotations

import bisect
import html
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datacreate.metrics.summary_lines import Measures, diversity_lines, shortcut_lines
from datacreate.reporting.tables import Curve, CurvePoint, Distance
from datacreate.reporting.wording import counted, harmless

HEAT_BOUNDS = (0.025, 0.10, 0.20, 0.35, 0.50, 0.70)
"""Where the steps of the heat map begin, as distances from chance; below the first, no colour."""

MOST_BARS = 16

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "star", "x")
_COLOURS = 8  # --c1 to --c8 of the style sheet
_WIDE_RANGE = 4  # largest over smallest count from which the axis is logarithmic


def heat(primary: float) -> str:
    """The class of a centred figure: `p1` to `p6` above chance, `m1` to `m6` below, `p0` near it."""
    step = bisect.bisect_right(HEAT_BOUNDS, round(abs(primary), 9))
    return f"{'m' if primary < 0 and step else 'p'}{step}"


def heat_scale() -> list[tuple[str, str]]:
    """The legend: class and range in points, from worst to best."""
    bounds = [f"{bound * 100:g}" for bound in HEAT_BOUNDS]
    ranges = [f"{low} to {high}" for low, high in itertools.pairwise(bounds)]
    ranges.append(f"{bounds[-1]} or more")
    above = [(f"p{step}", text) for step, text in enumerate(ranges, 1)]
    below = [("m2", f"more than {bounds[1]} below"), ("m1", f"{bounds[0]} to {bounds[1]} below")]
    return [*below, ("p0", f"within {bounds[0]} of chance"), *above]


@dataclass(frozen=True)
class Bar:
    """A name, a figure, and how long its bar is, in [0, 1] of the longest."""

    name: str
    figure: str
    length: float


def bars(counts: Mapping[str, int]) -> list[Bar]:
    """A bar for each count with its share of all; of many, the last stands for the rest."""
    total = sum(counts.values())
    named = list(counts.items())
    if len(named) > MOST_BARS:
        rest = named[MOST_BARS - 1 :]
        named = [*named[: MOST_BARS - 1], (f"{len(rest)} others", sum(number for _, number in rest))]
    longest = max((number for _, number in named), default=0)
    if not longest:
        return []
    return [Bar(name, f"{number:,} ({number / total:.0%})", number / longest) for name, number in named]


def depth_bars(depths: Mapping[int, int]) -> list[Bar]:
    """The depth histogram; deep runs are put together in bins of equal width."""
    binned: dict[str, int] = defaultdict(int)
    width = math.ceil(max(depths, default=1) / MOST_BARS)
    for depth, number in sorted(depths.items()):
        low = (depth - 1) // width * width + 1
        binned[str(low) if width == 1 else f"{low} to {low + width - 1}"] += number
    return bars(binned)


def distance_bars(distance: Distance) -> list[Bar]:
    """The histogram of distances to the formatting example."""
    edges = [f"{edge:.2f}" for edge in distance.edges]
    names = [f"{low} to {high}" for low, high in itertools.pairwise(edges)]
    longest = max(distance.bins, default=0) or 1
    return [
        Bar(name, f"{number:,}", number / longest) for name, number in zip(names, distance.bins, strict=True)
    ]


def distance_by_depth(distance: Distance) -> list[Bar]:
    """The mean distance at each depth; of many depths, some that are evenly spread."""
    depths = sorted(distance.by_depth)
    step = math.ceil(len(depths) / MOST_BARS) or 1
    furthest = max(distance.by_depth.values(), default=0.0) or 1.0
    return [
        Bar(str(depth), f"{distance.by_depth[depth]:.2f}", max(0.0, distance.by_depth[depth]) / furthest)
        for depth in depths[::step]
    ]


@dataclass(frozen=True)
class Pair:
    """A figure of this set above the human set's, both in [0, 1] of the same bar, and where chance is."""

    name: str
    ours: Bar
    human: Bar | None
    chance: float | None
    marked: bool  # there is a warning


def shortcut_pairs(measures: Measures) -> list[Pair]:
    """Shortcuts as bars up to 100 %."""
    return [
        Pair(
            line.name,
            Bar("this set", f"{line.ours:.0%}", line.ours),
            None if line.human is None else Bar("human", f"{line.human:.0%}", line.human),
            line.chance,
            line.warning is not None,
        )
        for line in shortcut_lines(measures)
    ]


def diversity_pairs(measures: Measures) -> list[Pair]:
    """Figures of diversity: shares as bars up to 1, numbers up to the larger of the two."""
    pairs = []
    for line in diversity_lines(measures):
        most = max(1.0 if line.is_share else 0.0, line.ours, line.human or 0.0) or 1.0
        ours, human = (
            None if figure is None else Bar(name, line.spelled(figure), max(0.0, figure) / most)
            for name, figure in (("this set", line.ours), ("human", line.human))
        )
        assert ours is not None, "a line has a figure"
        pairs.append(Pair(line.name, ours, human, None, False))
    return pairs


@dataclass(frozen=True)
class CurveFigure:
    """Arms of one benchmark that may be compared, against their number of training rows."""

    title: str
    curves: tuple[Curve, ...]
    spec: dict[str, Any]  # `data` and `layout` as plotly.js takes them


def curve_figures(curves: Sequence[Curve]) -> list[CurveFigure]:
    """A figure for all curves that may be compared, wherever one of them has two counts.

    They share benchmark, encoder, settings, selection and generator; arms without a generator stand
    beside those of each.
    """
    groups: dict[tuple[str, ...], list[Curve]] = defaultdict(list)
    for curve in curves:
        beside = {other.generator for other in curves if _measured(other) == _measured(curve)} - {None}
        for generator in [curve.generator] if curve.generator else sorted(map(str, beside)) or [""]:
            groups[*_measured(curve), generator].append(curve)
    drawn = {key: group for key, group in groups.items() if any(len(curve.points) > 1 for curve in group)}
    conditions = list(dict.fromkeys(curve.condition for group in drawn.values() for curve in group))
    # A title says only what tells the figures apart.
    told = [place for place in range(6) if place == 0 or len({key[place] for key in drawn}) > 1]
    return [
        CurveFigure(
            ", ".join(key[place] for place in told if key[place]), tuple(group), _spec(group, conditions)
        )
        for key, group in drawn.items()
    ]


def _measured(curve: Curve) -> tuple[str, ...]:
    return curve.benchmark, curve.split, curve.encoder, curve.settings, curve.selection


def _spec(curves: Sequence[Curve], conditions: Sequence[str]) -> dict[str, Any]:
    import plotly.graph_objects as go

    counts = sorted({point.count for curve in curves for point in curve.points})
    wide = counts[-1] >= _WIDE_RANGE * max(1, counts[0])
    figure = go.Figure([go.Scatter(_trace(curve, conditions.index(curve.condition))) for curve in curves])
    figure.update_layout(
        template="none",
        margin={"l": 56, "r": 12, "t": 8, "b": 52},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"align": "left"},
        xaxis={
            "title": {"text": "training rows"},
            "type": "log" if wide else "linear",
            "tickvals": counts,
            "ticktext": [f"{count:,}" for count in counts],
            "zeroline": False,
        },
        yaxis={"title": {"text": "primary figure (0 is chance)"}, "rangemode": "tozero", "zerolinewidth": 2},
    )
    spec: dict[str, Any] = json.loads(figure.to_json(engine="json"))
    del spec["layout"]["template"]
    return spec


def _trace(curve: Curve, condition: int) -> dict[str, Any]:
    symbol = _SYMBOLS[condition % len(_SYMBOLS)]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plotly_text(curve.condition),
        "meta": condition % _COLOURS,
        "x": [point.count for point in curve.points],
        "y": [round(point.primary * 100, 3) for point in curve.points],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [round(max(0.0, point.high - point.primary) * 100, 3) for point in curve.points],
            "arrayminus": [round(max(0.0, point.primary - point.low) * 100, 3) for point in curve.points],
            "thickness": 1.2,
            "width": 4,
        },
        "marker": {
            "size": 9,
            "symbol": [f"{symbol}-open" if point.collapsed else symbol for point in curve.points],
            "line": {"width": 1.5},
        },
        "line": {"width": 2},
        "text": [_hover(point) for point in curve.points],
        "hovertemplate": "%{fullData.name}, %{x:,} rows<br>%{y:.1f} %{text}<extra></extra>",
    }


def _hover(point: CurvePoint) -> str:
    collapsed = f", {point.collapsed} collapsed" if point.collapsed else ""
    return (
        f"[{point.low * 100:.1f}, {point.high * 100:.1f}]<br>accuracy {point.accuracy * 100:.1f}, "
        f"{counted(point.models, 'model')}{collapsed}"
    )


def plotly_text(name: str) -> str:
    """A name as plotly shows it letter by letter: it takes <b>, <a href> and entities for markup."""
    return html.escape(str(harmless(name)), quote=False)


def script_json(document: object) -> str:
    """JSON that can stand in a <script> element: no character in it can end the element or the string."""
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
