"""The page of a run: `datacreate show RUN --html FILE`. How it looks in a browser: test_browser.py."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from datacreate.creation.run_metrics import measure_run
from datacreate.reporting import run_page
from datacreate.reporting.run_page import RowView, find_near_pairs, plot_lineage
from datacreate.runs.directory import RunDirectory
from tests.review.reviews import accept, review
from tests.support.inprocess import typed
from tests.support.making import COMMONSENSE, NLI, NLI_LABELS, make


def page_of(run: Path) -> str:
    directory = RunDirectory(run)
    return run_page.make_run_page(directory, directory.summary(), measure_run(directory))


def test_show_writes_the_page_and_replaces_an_older_one(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, example=NLI, labels=NLI_LABELS, count=30, strategy="tree")
    page = tmp_path / "new" / "page.html"
    first = typed("show", str(tmp_path / "run"), "--html", str(page))
    assert (first.code, first.err) == (0, f"wrote {page}\n")
    assert "30 of 30" in first.out
    text = page.read_text(encoding="utf-8")
    assert text == page_of(tmp_path / "run")
    assert re.findall(r'scope="row">(entailment|neutral|contradiction)<.*\n.*?<td>(.*?)</td></tr>', text)
    page.write_text("older")
    assert typed("show", str(tmp_path / "run"), "--html", str(page), "--json").code == 0
    assert page.read_text(encoding="utf-8") == text
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]


def test_a_page_says_whether_all_rows_were_reviewed(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, count=5)
    with review(tmp_path) as session:
        for row in session.rows[:4]:
            accept(session, row.number)
    assert "nobody has read all of them" in page_of(tmp_path)
    with review(tmp_path) as session:
        accept(session, 5)
    assert "people reviewed all of them" in page_of(tmp_path)


def test_unfinished_and_empty_runs(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, count=5)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"count": 50}))
    assert "not finished: 5 of 50 examples" in page_of(tmp_path)
    assert "too few texts for a map" in page_of(tmp_path)
    (tmp_path / "log.jsonl").write_bytes(b"")
    for name in ("train.jsonl", "summary.json"):
        (tmp_path / name).unlink()
    assert "not finished: 0 of 50 examples" in page_of(tmp_path)


def test_large_runs_are_sampled(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, model, count=120, strategy="random")
    for name, number in {"MAX_NODES": 30, "MAX_POINTS": 40, "MAX_SAMPLES": 10, "MAX_COMPARED": 100}.items():
        monkeypatch.setattr(run_page, name, number)
    page = page_of(tmp_path)
    assert page.count("<circle") == 1 + 30 + 40
    assert page.count("<h3>Row ") == 10
    for note in ("The first 30 of 120 rows", "40 of 120 rows", "first 100 rows", "10 of 120 examples"):
        assert note in page


def test_the_tree_has_a_line_for_each_example_to_its_parent(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, count=60, strategy="tree")
    directory = RunDirectory(tmp_path)
    view = RowView(directory.read_config().format)
    plot = plot_lineage(directory.commits(), [COMMONSENSE], view, 60)
    assert (len(plot.dots), len(plot.lines)) == (61, 60)
    center = plot.dots[0]
    from_center = [line for line in plot.lines if line[:2] == (center.x, center.y)]
    assert len(from_center) == directory.summary()["depths"]["1"]
    assert not any(dot.hollow for dot in plot.dots)
    several = plot_lineage(directory.commits(), [COMMONSENSE, {**COMMONSENSE, "question": "Another?"}], view, 60)
    assert (len(several.dots), len(several.lines)) == (62, 62), "the examples are around the center"
    assert [dot.color for dot in several.dots[:2]] == [run_page.COLORS] * 2


def test_pairs_just_below_the_threshold() -> None:
    words = [f"w{number}" for number in range(20)]

    def changed(*at: int) -> tuple[str, ...]:
        return (" ".join("other" if number in at else word for number, word in enumerate(words)),)

    rows: list[Any] = [changed(), changed(3), ("nothing like it",), changed(3, 8, 10, 12, 15)]
    pairs, note = find_near_pairs(rows, 0.9)
    assert [pair[:2] for pair in pairs] == [(1, 0)]
    assert 0.7 <= pairs[0][2] < 0.9
    assert "1 of the first 4 rows share at least 70%" in note
    assert [pair[:2] for pair in find_near_pairs(rows, None)[0]] == [(1, 0), (3, 1)]
