"""Heat steps, bars and what goes into charts."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from datacreate.reporting.figures import bars, curve_figures, depth_bars, heat, plotly_text, script_json
from datacreate.reporting.tables import Curve, CurvePoint


@given(document=st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_in_a_script_cannot_end_it(document: Any) -> None:
    text = script_json(document)
    assert json.loads(text) == document
    assert not re.search("[<>&\u2028\u2029]", text)


def test_names_in_charts_are_no_markup() -> None:
    assert plotly_text("<b>a</b> & \u202e") == "&lt;b&gt;a&lt;/b&gt; &amp; \ufffd"


def test_the_heat_follows_the_figure() -> None:
    assert [heat(x / 100) for x in (-90, -5, -1, 0, 1, 3, 10, 25, 40, 60, 100)] == (
        ["m6", "m1", "p0", "p0", "p0", "p1", "p2", "p3", "p4", "p5", "p6"]
    )


def test_long_histograms_are_put_together() -> None:
    drawn = depth_bars(dict.fromkeys(range(1, 1225), 5))
    assert len(drawn) <= 16
    assert drawn[0].name == "1 to 77"
    assert drawn[0].figure == "385 (6%)"
    many = bars({f"label {number}": 2 for number in range(40)})
    assert (len(many), many[-1].name, many[-1].figure) == (16, "25 others", "50 (62%)")
    assert bars({}) == []


def curve(condition: str, generator: str | None, *counts: int, benchmark: str = "csqa") -> Curve:
    points = tuple(CurvePoint(count, 0.3, 0.2, 0.35, 0.6, 2, int(count == 100)) for count in counts)
    return Curve(condition, benchmark, "test", "tiny", "datacreate", "held-out", generator, points)


def test_the_human_arm_stands_beside_the_created_rows_of_each_generator() -> None:
    figures = curve_figures(
        [curve("human", None, 100, 300), curve("tree", "a", 100), curve("tree", "b", 300)]
    )
    assert [(f.title, [c.condition for c in f.curves]) for f in figures] == [
        ("csqa, a", ["human", "tree"]),
        ("csqa, b", ["human", "tree"]),
    ]


def test_what_has_one_count_only_is_not_drawn() -> None:
    assert curve_figures([curve("human", None, 100), curve("tree", "a", 300)]) == []


def test_a_chart_shows_points_and_not_shares_and_marks_what_collapsed() -> None:
    [figure] = curve_figures([curve("<i>tree</i>", "a", 100, 3000)])
    [trace] = figure.spec["data"]
    assert (trace["x"], trace["y"]) == ([100, 3000], [30.0, 30.0])
    assert (trace["error_y"]["arrayminus"], trace["error_y"]["array"]) == ([10.0, 10.0], [5.0, 5.0])
    assert trace["marker"]["symbol"] == ["circle-open", "circle"]
    assert trace["name"] == "&lt;i&gt;tree&lt;/i&gt;"
    assert figure.spec["layout"]["xaxis"]["type"] == "log"
