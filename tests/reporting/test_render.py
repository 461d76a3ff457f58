"""The files of a report: numbers are in them, untrusted text stays text, nothing is loaded from a network."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.errors import StorageError
from datacreate.messages import markdown, safe_text
from datacreate.reporting.build import build_report
from datacreate.reporting.render import as_json, as_markdown, as_page, write_report
from datacreate.reporting.results import Report
from tests.reporting.evaluations import answers, evaluated
from tests.reporting.sample import HOSTILE, sample_report

FILES = {"report.md", "report.html", "report.json"}
ANY_TEXT = st.text(max_size=12) | st.sampled_from([*HOSTILE, "{{", "{%", "]]>", "&#x3c;", "</textarea>"])


class Parsed(HTMLParser):
    """The elements of a page in order, and its text without scripts."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += "" if self.cdata_elem else data


@pytest.fixture
def report(tmp_path: Path) -> Report:
    truth = ["True"] * 50 + ["False"] * 50
    for example, rights in (("a", (90, 88)), ("b", (87, 50))):
        for seed, right in enumerate(rights, 1):
            folder = tmp_path / "runs" / f"{example}{seed}"
            evaluated(folder, answers(right, 100), truth, seed=seed, example=example, rows_of=example)
    evaluated(tmp_path / "runs" / "swap", answers(6, 10), train="bioasq", benchmark="pubmedqa")
    evaluated(tmp_path / "runs" / "human", answers(90, 100), truth, condition="human", count=1234)
    return build_report([tmp_path / "runs"])


def test_markdown_has_every_number_of_a_result(report: Report) -> None:
    text = as_markdown(report)
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in text.split("\n")]
    header = next(line for line in lines if line[0] == "test set")
    rows = [line for line in lines if line[0] == "creak"][:2]
    human, tree = [dict(zip(header, line, strict=True)) for line in rows]
    assert (human["condition"], human["N"], human["seeds"], human["flags"]) == ("human", "1,234", "1", "")
    assert re.fullmatch(r"\+80\.0 \(\+\S+ to \+\S+\)", human["score (95 %)"])
    names = ("N", "examples", "seeds", "constant", "paper", "SD seeds", "SD examples", "test rows")
    assert [tree[name] for name in names] == ["100", "2", "2", "50.0", "72.7", "37.1", "29.0", "100"]
    assert tree["flags"] == "†1/4 ‡1/4 °"
    assert "† degenerate: one class" in text
    assert "° fewer than three formatting examples" in text
    assert "Comparisons: 0 of 1 significant at 5 %" in text
    assert text.count("Two rows look exchanged in print") == 2  # of the paper, below each table


def test_json_has_the_records(report: Report) -> None:
    document = json.loads(as_json(report))
    inside = document["tables"][0]
    assert [one["condition"] for one in inside["results"]] == ["human", "tree"]
    assert inside["results"][1]["models"] == 4
    assert inside["results"][1]["accuracy"]["value"] == pytest.approx((0.89 + 0.685) / 2)
    (compared,) = inside["comparisons"]
    assert (compared["first"], compared["second"]) == ("human, 1,234 rows", "tree, 100 rows")
    found = compared["difference"]
    assert found["value"] == pytest.approx(0.8 - 0.575)
    assert found["low"] < found["value"] < found["high"]


def test_a_report_is_reproducible_and_replaces_an_older_one(tmp_path: Path, report: Report) -> None:
    for name in ("one", "two"):
        assert {path.name for path in write_report(report, tmp_path / name)} == FILES
    write_report(build_report([tmp_path / "runs"]), tmp_path / "two")
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert {path.name for path in (tmp_path / "two").iterdir()} == FILES
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="choose another path"):
        write_report(report, tmp_path / "file")


def test_the_page_loads_nothing() -> None:
    page = as_page(sample_report())
    parsed = Parsed(page)
    names = {name for name, _ in parsed.attributes}
    assert not names & {"src", "srcset", "data", "poster", "action", "background", "ping"}
    loading = {"link", "img", "iframe", "object", "embed", "base", "form"}
    assert not {tag for tag, _ in parsed.elements} & loading
    assert all((value or "").startswith("#") for name, value in parsed.attributes if name == "href")
    (policy,) = [value or "" for _, value in parsed.attributes if value and value.startswith("default-src")]
    assert policy.startswith("default-src 'none'; ")
    assert "<script" not in page
    assert len(page.encode()) < 60_000
    as_page(Report("0.1", ("runs",), 0, (), {}, {}, ""))  # without results


@settings(max_examples=50, deadline=None)
@given(text=ANY_TEXT)
def test_no_text_adds_an_element_to_the_page(text: str) -> None:
    text = "x" + text
    page = as_page(sample_report(text))
    plain_page = as_page(sample_report("x"))
    parsed = Parsed(page)
    assert parsed.elements == Parsed(plain_page).elements
    assert safe_text(text).replace("\r", "\n") in parsed.text.replace("\r", "\n")
    page.encode("utf-8")


@settings(max_examples=50, deadline=None)
@given(text=ANY_TEXT)
def test_no_text_is_markup_in_markdown(text: str) -> None:
    shown = markdown(text)
    assert not set(re.sub(r"&#\d+;", "", shown)) & set("<>|*`~[]\\$!@&\n\x1b\u202e\ud800")
    assert not re.search(r"(?<![^\W_])_|_(?![^\W_])|://|www\.", shown)
    if safe_text(text) == text:
        assert " ".join(html.unescape(shown).split()) == " ".join(text.split())
    lines = as_markdown(sample_report(text)).split("\n")
    assert all(line.endswith("|") for line in lines if line.startswith("|"))
    assert len(lines) == len(as_markdown(sample_report("x")).split("\n"))


def test_names_stay_readable() -> None:
    name = "boolq_open → all-minilm-l6-v2, lr 2e-05"
    assert markdown(name) == name
