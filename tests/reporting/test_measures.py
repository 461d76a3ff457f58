"""Shortcuts and diversity in the report: beside the human train set, with chance, warnings in words."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from datacreate.reporting.as_json import as_json
from datacreate.reporting.as_markdown import markdown
from datacreate.reporting.figures import diversity_pairs, shortcut_pairs
from datacreate.reporting.page import render
from datacreate.reporting.tables import Report
from tests.reporting.markup import Parsed
from tests.reporting.sample_report import measures, sample_report


def report_with(found: dict[str, Any] | None) -> Report:
    report = sample_report(curves=False, sets=1)
    return replace(report, created=tuple(replace(made, measures=found) for made in report.created))


def test_bars_are_as_long_as_their_share_and_chance_is_marked() -> None:
    first, second = shortcut_pairs(measures("x", human=True))
    assert (first.ours.length, first.chance, first.marked) == (0.55, 0.5, False)
    assert (second.ours.figure, second.marked) == ("91%", True)
    page = Parsed(render(report_with(measures("x", human=True))))
    tracks = [found for found in page.named("span") if found.get("class") == "chance"]
    assert [found["style"] for found in tracks] == ["--share:50.0%"] * 4  # two shortcuts of two sets


def test_numbers_are_drawn_up_to_the_larger_and_shares_up_to_one() -> None:
    found = measures("x", human=True)
    found["human"]["diversity"] = found["diversity"] | {"vendi": 122.6}
    pairs = {pair.name: pair for pair in diversity_pairs(found)}
    vendi, bleu = pairs["Vendi score"], pairs["self-BLEU (less is more diverse)"]
    assert vendi.human is not None
    assert (vendi.ours.length, vendi.human.length) == (0.5, 1.0)
    assert bleu.ours.length == 0.31
    assert "distinct triples of words" not in pairs  # there is no such figure


def test_page_and_markdown_say_the_warning_and_what_stands_beside() -> None:
    report = report_with(measures("'not'", human=True))
    page, text = Parsed(render(report)).text, markdown(report)
    for shown in (page, text):
        assert "csqa train (500 rows)" in shown
        assert "as many of either set" in shown
        assert "wording: see" in shown
    assert re.search(r"\| wording +\| 91\.0 +\| 50\.0 +\| 91\.0 ", text)
    assert '"vendi": 61.3' in as_json(report)


def test_without_a_human_set_the_page_says_so() -> None:
    report = report_with(measures("x", human=False))
    assert "no human train set here" in Parsed(render(report)).text
    assert re.search(r"\| wording +\| 91\.0 +\| 50\.0 +\|\n", markdown(report))


def test_free_text_answers_have_no_shortcuts_and_that_is_said() -> None:
    found = measures("x", human=False) | {"shortcuts": [], "no_shortcuts": "the answers are free text"}
    report = report_with(found)
    assert "the answers are free text" in Parsed(render(report)).text
    assert "the answers are free text" in markdown(report)


def test_a_set_without_rows_has_neither() -> None:
    report = report_with(None)
    assert "Shortcuts" not in Parsed(render(report)).text
    assert "self-BLEU" not in markdown(report)


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "a | b", "</span><b>", "&lt;", "\u202e"])
def test_a_word_in_a_warning_stays_text(hostile: str) -> None:
    plain, other = (Parsed(render(report_with(measures(text, human=True)))) for text in ("word", hostile))
    assert other.shape == plain.shape
    lines = markdown(report_with(measures(hostile, human=True))).split("\n")
    (warning,) = [line for line in lines if line.startswith("- Warning")]
    assert not set("<>|\u202e") & set(warning)
