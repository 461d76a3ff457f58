"""A report as Markdown, CSV and JSON: the figures are there, and no text is more than text."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.errors import UsageError
from datacreate.reporting.as_csv import cells_csv, guarded
from datacreate.reporting.as_json import as_json
from datacreate.reporting.as_markdown import markdown
from datacreate.reporting.build import build_report
from datacreate.reporting.files import write_report
from datacreate.reporting.markdown_text import escaped, grid
from datacreate.reporting.tables import Report
from tests.reporting.evaluations import answers, evaluated

FILES = {"report.md", "report.html", "report.json", "in_distribution.csv", "out_of_distribution.csv"}


@pytest.fixture
def report(tmp_path: Path) -> Report:
    runs = tmp_path / "runs"
    truth = ["True"] * 50 + ["False"] * 50
    for seed, right in enumerate((60, 62, 50), 1):
        evaluated(runs / f"tree{seed}", answers(right, 100), truth, seed=seed, example="a")
    evaluated(runs / "swap", answers(6, 10), train="bioasq", benchmark="pubmedqa")
    evaluated(runs / "human", answers(90, 100), truth, condition="human", count=1234)
    return build_report([runs], encoder="none")


def table_rows(text: str, beginning: str) -> list[list[str]]:
    lines = [line for line in text.split("\n") if line.startswith(f"| {beginning} ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_markdown_has_every_figure_of_a_cell(report: Report) -> None:
    text = markdown(report)
    primary, accuracy, *_ = table_rows(text, "creak")
    assert primary[:2] == ["creak", "100"]
    assert re.fullmatch(r"\+80\.0 \[\+\S+ to \+\S+\] 1t N=1,234", primary[3])
    assert re.fullmatch(r"\+14\.7 \[\S+ to \+\S+\] 1e·3t †1/3", primary[4])
    assert accuracy[2].startswith("50.0 [")
    assert accuracy[4].endswith("(paper 72.74)")
    assert accuracy[5:] == ["100", "14.0"]
    assert "(paper 67.14‡)" not in text  # that is the human arm's, which has no run there
    assert "No runs yet: piqa, winogrande" in text
    assert "1 of 3 collapsed: answers 'True' to 100% of the rows" in text
    assert "1 comparisons of this table: 1 significant" in text


def test_the_footnote_of_swapped_rows_stands_where_they_do(report: Report) -> None:
    text = markdown(report)
    assert table_rows(text, "bioasq → pubmedqa")[1][3].endswith("(paper 81.42‡)")
    assert text.count("‡ These two rows of the paper look exchanged") == 1


def test_csv_has_a_line_per_cell(report: Report) -> None:
    lines = list(csv.DictReader(io.StringIO(cells_csv(report, "in"))))
    assert [line["condition"] for line in lines] == ["constant", "human", "tree"]
    tree = lines[2]
    assert float(tree["accuracy"]) == pytest.approx((0.60 + 0.62 + 0.50) / 3)
    assert (tree["models"], tree["examples"], tree["seeds"], tree["collapsed"]) == ("3", "1", "3", "1")
    assert (tree["paper_accuracy"], tree["paper_train_rows"], tree["sd_sets"]) == ("0.7274", "10176", "")
    (_, swapped) = csv.DictReader(io.StringIO(cells_csv(report, "out")))
    assert (swapped["train"], swapped["test"], swapped["paper_printed_swapped"]) == (
        "bioasq",
        "pubmedqa",
        "True",
    )


def test_json_has_the_whole_report(report: Report) -> None:
    document = json.loads(as_json(report))
    assert set(document) == {field.name for field in dataclasses.fields(Report)}
    assert document["curves"] == json.loads(json.dumps([dataclasses.asdict(one) for one in report.curves]))
    assert document["tables"][0]["rows"][0]["cells"][2]["models"] == 3


def test_a_report_is_the_same_bytes_every_time(tmp_path: Path, report: Report) -> None:
    for name in ("one", "two"):
        assert {path.name for path in write_report(report, tmp_path / name)} == FILES
    again = build_report([tmp_path / "runs"], encoder="none")
    write_report(again, tmp_path / "two")  # an older report is replaced
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert {path.name for path in (tmp_path / "two").iterdir()} == FILES


def test_a_file_in_the_folders_place(tmp_path: Path, report: Report) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="choose another --out"):
        write_report(report, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


HOSTILE = [
    "<script>alert(1)</script>",
    "a | b\n| c |",
    "**bold** _soft_ ~~gone~~ `code`",
    "[link](https://example.org) ![i](http://x)",
    "https://example.org and www.example.org and me@example.org",
    "# heading",
    "&lt;b&gt; \\| $x$",
    "half \ud800 of it \x1b[31m \u202egnp",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_marks_nothing_up_in_markdown(text: str) -> None:
    shown = escaped(text)
    plain = re.sub(r"&#\d+;", "", shown)
    assert not set(plain) & set("<>|*`~[]\\$!@\n\x1b\u202e\ud800")
    assert "&" not in plain
    assert "://" not in plain
    assert "www." not in plain


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_an_escaped_text_is_itself_when_read(text: str) -> None:
    import html
    import unicodedata

    read = " ".join(html.unescape(escaped(text)).split())
    if not any(unicodedata.category(c) == "Cc" or "\u202a" <= c <= "\u2069" for c in text):
        assert read == " ".join(text.split())
    assert not re.search(r"(?<![^\W_])_|_(?![^\W_])", escaped(text))


def test_names_stay_readable() -> None:
    assert escaped("riddle_sense") == "riddle_sense"
    assert escaped("boolq_open → all-minilm-l6-v2, lr 2e-05") == "boolq_open → all-minilm-l6-v2, lr 2e-05"


@given(st.text(max_size=20))
def test_no_text_is_a_formula_in_a_spreadsheet(text: str) -> None:
    shown = guarded(text)
    assert isinstance(shown, str)
    assert not shown.startswith(("=", "+", "-", "@", "\t", "\r", "\n", " "))
    read = next(csv.reader(io.StringIO(f'"{shown.replace(chr(34), chr(34) * 2)}"\n')), [""])
    assert read == [shown]


def test_numbers_are_left_alone() -> None:
    assert guarded(-0.5) == -0.5
    assert guarded("=1+1") == "'=1+1"
    assert guarded("\t=1+1") == "'=1+1"


def test_a_table_is_as_wide_as_its_cells() -> None:
    assert list(grid(["a", "b"], [["long one", ""]])) == [
        "| a        | b   |",
        "| -------- | --- |",
        "| long one |     |",
    ]


def test_hostile_names_and_samples_break_no_file(tmp_path: Path, report: Report) -> None:
    from tests.reporting.sample_report import sample_report

    hostile = sample_report(hostile_names=True)
    write_report(hostile, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "\x1b" not in text
    for line in text.split("\n"):
        if line.startswith("|"):
            assert line.endswith("|")
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["tables"]
    for line in csv.reader((tmp_path / "out" / "in_distribution.csv").open(encoding="utf-8", newline="")):
        assert not any(re.match(r"[=+@]|-[^\d]", value) for value in line)
