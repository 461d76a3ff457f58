"""The page: one file that fetches nothing, can be read by everybody, and shows text as text."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datacreate.errors import StorageError
from datacreate.reporting.overview import measured
from datacreate.reporting.page import render, write_page
from datacreate.reporting.tables import Report, TreeNode
from datacreate.reporting.wording import harmless, signed
from tests.reporting.markup import Parsed
from tests.reporting.sample_report import ENCODER, GENERATOR, HOSTILE, sample_report

TURNS = re.compile("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@pytest.fixture(scope="module")
def light() -> str:
    """A page without curves, and so without a script."""
    return render(sample_report(curves=False))


@pytest.fixture(scope="module")
def whole() -> str:
    """A page with everything, and with arms whose names mean harm."""
    return render(sample_report(hostile_names=True))


def policy(page: str) -> str:
    [found] = [meta for meta in Parsed(page).named("meta") if "http-equiv" in meta]
    assert found["http-equiv"] == "Content-Security-Policy"
    return found["content"] or ""


def test_the_page_fetches_nothing(whole: str) -> None:
    parsed = Parsed(whole)
    attributes = {name for _, given in parsed.elements for name in given}
    assert not attributes & {"src", "srcset", "data", "poster", "action", "background", "ping"}
    assert not parsed.named("link", "img", "iframe", "object", "embed", "base", "form")
    assert all((link["href"] or "").startswith("#") for link in parsed.named("a"))
    style = whole.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_names_the_scripts_by_their_hash_and_nothing_else(whole: str) -> None:
    specs, *scripts = Parsed(whole).scripts
    json.loads(specs)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(hashes) == 2
    directives = dict(part.strip().partition(" ")[::2] for part in policy(whole).split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == " ".join(f"'sha256-{digest}'" for digest in hashes)
    assert not {"connect-src", "font-src", "frame-src", "worker-src"} & set(directives)


def test_without_curves_there_is_no_script(light: str) -> None:
    assert Parsed(light).named("script") == []
    assert "script-src 'none'" in policy(light)
    assert len(light.encode()) < 300_000


def test_plotly_is_inlined_once(whole: str) -> None:
    assert whole.count("* plotly.js v") == 1
    assert len(whole.encode()) < 6_000_000


def test_curves_of_one_count_need_no_chart() -> None:
    report = sample_report()
    short = tuple(dataclasses.replace(curve, points=curve.points[:1]) for curve in report.curves)
    page = render(dataclasses.replace(report, curves=short))
    assert Parsed(page).named("script") == []
    assert "no curve to draw" in page


def test_what_a_model_wrote_is_shown_as_text(light: str) -> None:
    parsed = Parsed(light)
    for text in HOSTILE:
        assert f"What is meant by {harmless(text)}?" in parsed.written
        assert any(harmless(text) == written for written in parsed.written)  # in the tree
    assert {tag for tag, _ in parsed.elements} <= set(
        "html head meta title style body a header h1 h2 h3 h4 h5 p nav ul li main section div strong "
        "q table caption span thead tr th tbody td abbr details summary dl dt dd code bdi footer".split()
    )
    assert not [name for _, given in parsed.elements for name in given if name.startswith("on")]


def test_no_character_turns_the_text_round_or_controls_anything(whole: str) -> None:
    assert TURNS.findall(Parsed(whole).text) == []
    assert "שלום" in whole  # text that runs from right to left by itself stays
    assert "\u200f" in whole


MARKS = (
    """< > </ & " ' -- <!-- ]]> script {{ {% \\ <script> </textarea> </title> </style> &lt; &#x3c;""".split()
)
MARKS += ["\u2028", "\u202e", "\ud800"]


def with_text(text: str) -> Report:
    """A small report with `text` wherever a text can come from a model, a user or a folder."""
    report = sample_report(curves=False, sets=1)
    [made] = report.created
    root, child = TreeNode("root", None, 0, text, text, 1), TreeNode("n1", "root", 1, text, text, 0)
    made = dataclasses.replace(
        made,
        path=text,
        model=text,
        example={"question": text},
        labels={text: 3},
        rejected={text: 2},
        samples=({"question": text, "options": [text, text], "other": {"key": text}},),
        tree=(root, child),
    )
    table = report.tables[0]
    columns = tuple(dataclasses.replace(column, title=text) for column in table.columns)
    cells = tuple(
        dataclasses.replace(cell, collapsed=1, collapse_reasons=(text,)) if cell else None
        for cell in table.rows[0].cells
    )
    rows = (dataclasses.replace(table.rows[0], cells=cells),)
    table = dataclasses.replace(
        table, columns=columns, title=text, encoder=text, rows=rows, differences=table.differences[:2]
    )
    return dataclasses.replace(report, tables=(table,), created=(made,), paths=(text,), citation=text)


@cache
def shape_of_plain_text() -> list[Any]:
    return Parsed(render(with_text("x"))).shape


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=st.lists(
        st.text(max_size=8)
        | st.sampled_from(
            ["<", ">", "</", "&", '"', "'", "--", "<!--", "]]>", "script", "style", "{{", "{%", "\\"]
        )
        | st.sampled_from(
            ["<script>", "</textarea>", "</title>", "&lt;", "&#x3c;", "\u2028", "\u202e", "\ud800"]
        ),
        min_size=1,
        max_size=6,
    ).map("".join)
)
def test_no_text_changes_the_markup(text: str) -> None:
    page = render(with_text("x" + text))
    parsed = Parsed(page)
    assert parsed.shape == shape_of_plain_text()
    assert parsed.unclosed == []
    assert any(harmless("x" + text) == written for written in parsed.written)
    page.encode("utf-8")


def test_the_first_screen_says_what_was_measured(light: str) -> None:
    told = measured(sample_report())
    assert (told.created, told.examples, len(told.tests)) == (2, 14_620, 6)
    assert told.encoders == (ENCODER,)
    assert told.generators == (GENERATOR,)
    lead = " ".join(Parsed(light).text.partition("Findings")[0].split())
    assert f"{told.models} models ({ENCODER}) were fine-tuned and tested on 6 test sets" in lead
    assert "2 created sets with 14,620 examples" in lead


def test_a_cell_shows_all_that_is_asked_of_it(light: str) -> None:
    row = sample_report().tables[0].rows[1]
    cell = row.cells[3]
    assert cell
    assert cell.collapsed
    [written] = [
        td for td in light.split("<td ") if "Collapsed, 2 of 6" in td and f"{signed(cell.primary)}<" in td
    ]
    shown = Parsed("<td " + written)
    text = " ".join(shown.text.split())
    for part in (
        f"{signed(cell.primary)}†",
        f"{signed(cell.primary_interval[0])} to {signed(cell.primary_interval[1])}",
        f"accuracy {cell.accuracy * 100:.1f}",
        f"paper {row.paper[3].accuracy * 100:.1f}" if row.paper[3] else "",
        "2 examples × 3 seeds",
        "SD: seeds 2.1, sets 3.4",
    ):
        assert part in text
    [dagger] = shown.named("abbr")
    assert dagger["title"] == "Collapsed, 2 of 6 models: 97 % of the answers are 'yes'"


def test_a_cell_trained_on_another_number_of_rows_says_so(light: str) -> None:
    assert "on 15,113 rows (all)" in light
    assert "smallest difference" in light


def test_the_footnote_of_swapped_rows_stands_below_their_table(light: str) -> None:
    _, inside, outside = light.split('<table class="heat">')
    assert "‡" not in inside
    assert "‡ This row seems to be printed under the wrong heading." in outside


def test_pairs_that_are_missing_are_named() -> None:
    report = sample_report(curves=False)
    table = dataclasses.replace(
        report.tables[0], missing=(("boolq_open", "boolq_open"), ("bioasq", "pubmedqa"))
    )
    page = render(dataclasses.replace(report, tables=(table,)))
    assert "In the paper, not run here: boolq_open, bioasq → pubmedqa." in page


def test_an_empty_report_is_a_page() -> None:
    report = Report("0.1.0", ("runs",), 0, (), (), (), (), "a paper", "a note")
    parsed = Parsed(render(report))
    assert "No evaluation was found" in parsed.text
    assert parsed.unclosed == []


def test_headings_follow_each_other_and_ids_are_unique(whole: str) -> None:
    parsed = Parsed(whole)
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [given["id"] for _, given in parsed.elements if "id" in given]
    assert len(ids) == len(set(ids))
    targets = {(link["href"] or "")[1:] for link in parsed.named("a")}
    labels = {given["aria-labelledby"] for _, given in parsed.elements if "aria-labelledby" in given}
    assert targets | labels <= set(ids)


def test_tables_have_captions_and_scopes_and_can_be_scrolled_by_key(whole: str) -> None:
    parsed = Parsed(whole)
    assert len(parsed.named("caption")) == len(parsed.named("table")) > 6
    assert all(head.get("scope") in ("row", "col") for head in parsed.named("th"))
    regions = [given for given in parsed.named("div") if given.get("role") == "region"]
    assert len(regions) == len(parsed.named("table"))
    assert all(region.get("tabindex") == "0" and region.get("aria-label") for region in regions)
    assert parsed.named("html") == [{"lang": "en"}]
    assert parsed.unclosed == []


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.2."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_stands_out_from_every_colour_behind_it(light: str, mode: str) -> None:
    blocks = re.findall(r":root \{(.*?)\}", light, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w+)", blocks[0 if mode == "light" else 1]))
    for step in [*(f"p{n}" for n in range(1, 7)), *(f"m{n}" for n in range(1, 7)), "paper", "soft"]:
        assert contrast(colours["ink"], colours[step]) >= 4.5, step
    for name in ("muted", "link", "mark"):
        assert min(contrast(colours[name], colours["paper"]), contrast(colours[name], colours["soft"])) >= 4.5
    for number in range(1, 9):  # lines and bars
        assert contrast(colours[f"c{number}"], colours["paper"]) >= 3
    assert contrast(colours["bar"], colours["soft"]) >= 3


def test_many_created_sets_stay_a_small_page() -> None:
    page = render(sample_report(curves=False, sets=50))
    assert len(page.encode()) < 3_000_000


def test_the_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(sample_report(curves=False), path)
    before = path.read_bytes()
    write_page(sample_report(curves=False), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(StorageError, match=r"report\.html"):
        write_page(sample_report(curves=False), path / "report.html")
