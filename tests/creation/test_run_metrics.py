"""Metrics of a run's rows, beside those of the human train set."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from datacreate.creation.run_metrics import measure_rows, measure_run, sampled
from datacreate.formats.task_format import read_format
from datacreate.metrics import MAX_ROWS
from datacreate.runs.directory import RunDirectory
from datacreate.runs.log import Commit
from tests.benchmarks.conftest import imported
from tests.metrics.rows import STATEMENT, choice_rows, statement_rows
from tests.support.making import make


def commit(request: int, parent: str, rows: list[dict[str, Any]], parent_depth: int = 1) -> Commit:
    return Commit(
        request_number=request,
        parent=parent,
        parent_depth=parent_depth,
        accepted=tuple(rows),
        chosen_children=(),
        rejects=(),
        prompt_tokens=1,
        generated_tokens=1,
        time=0.0,
    )


@pytest.fixture
def creak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An imported benchmark of 60 synthetic train rows."""
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))
    rows = statement_rows(60, 1)
    imported(tmp_path / "files", "creak", {"train": rows, "test": rows})


def test_what_is_absent_is_none(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, count=30)
    metrics = measure_run(RunDirectory(tmp_path))
    assert (metrics.rows, metrics.human, metrics.no_shortcuts) == (30, None, None)
    assert {one.name for one in metrics.shortcuts} >= {"longest option", "words of the question"}
    assert metrics.diversity
    assert metrics.diversity.texts == 30
    document = json.loads(json.dumps(asdict(metrics)))
    assert list(document) == [
        "rows",
        "shortcuts",
        "no_shortcuts",
        "diversity",
        "passage_words",
        "human",
        "near_duplicates",
    ]
    assert metrics.diversity_table()[0] == ["diversity", "this set"]  # no column without human rows
    assert {len(row) for row in metrics.shortcut_table()[1]} == {3}
    assert document["diversity"]["texts"] == 30
    for name in ("log.jsonl", "train.jsonl", "summary.json"):
        (tmp_path / name).unlink()
    metrics = measure_run(RunDirectory(tmp_path))
    assert (metrics.rows, metrics.shortcuts, metrics.diversity) == (0, (), None)
    assert metrics.no_shortcuts == "there are too few rows"


@pytest.mark.usefixtures("creak")
def test_the_human_set_is_measured_at_the_same_size() -> None:
    rows = statement_rows(200, 2)
    metrics = measure_rows(STATEMENT, rows, None, rows[:1], "creak")
    human = metrics.human
    assert human
    assert (human.benchmark, human.rows) == ("creak", 60)
    assert metrics.diversity
    assert human.diversity
    assert metrics.diversity.texts == human.diversity.texts == 60
    assert metrics.rows == 200
    assert metrics.shortcuts
    assert human.shortcuts
    fewer = measure_rows(STATEMENT, rows[:30], None, rows[:1], "creak").human
    assert fewer
    assert fewer.diversity
    assert fewer.rows == fewer.diversity.texts == 30


@pytest.mark.usefixtures("creak")
@pytest.mark.parametrize("benchmark", [None, "csqa", "never-heard-of"])
def test_without_an_imported_human_set(benchmark: str | None) -> None:
    rows = statement_rows(40, 3)
    assert measure_rows(STATEMENT, rows, None, rows[:1], benchmark).human is None


def test_rows_of_one_parent_are_a_family_unless_it_is_a_formatting_example() -> None:
    made = choice_rows(60, 4)
    several = [commit(n, f"p{n % 6}", made[n * 5 : n * 5 + 5]) for n in range(12)]
    rows, families = sampled(several)
    assert rows == made
    assert len(set(families)) == 6
    naive = [commit(n, "root", made[n * 5 : n * 5 + 5], parent_depth=0) for n in range(12)]
    assert len(set(sampled(naive)[1])) == 12


def test_many_near_duplicates_are_a_warning() -> None:
    texts = [f"The delivery took {n} weeks and the box was crushed." for n in range(13)]
    rows = [{**row, "question": text} for row, text in zip(statement_rows(13, 1), texts, strict=True)]
    rows += statement_rows(27, 2)
    metrics = measure_rows(STATEMENT, rows, None, rows[:1], None)
    assert metrics.near_warning == "12 of 40 rows are near-duplicates of earlier rows; `--near 0.7` rejects them"
    assert measure_rows(STATEMENT, rows[9:], None, rows[:1], None).near_warning == ""  # 3 of 31
    large = replace(metrics, rows=MAX_ROWS, near_duplicates=900)
    assert large.near_warning.startswith("900 of 4,000 rows drawn by seed are near-duplicates of earlier rows")


def test_rows_of_a_large_run_are_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    commits = [commit(n, f"p{n}", [{"n": n * 5 + k} for k in range(5)]) for n in range(2000)]
    rows, families = sampled(commits)
    numbers = [row["n"] for row in rows]
    assert len(rows) == len(families) == len(set(numbers)) == MAX_ROWS
    assert 4700 < sum(numbers) / len(numbers) < 5300
    assert sampled(commits) == (rows, families)


def test_the_texts_that_vary_are_measured_not_a_constant_question() -> None:
    label = {"enum": ["yes", "no"]}
    document = {
        "properties": {"question": {"const": "Is it good?"}, "context": {"type": "string"}, "answer": label},
        "x-datacreate": {"roles": {"context": "context", "answer": "answer"}},
    }
    task_format, question = read_format(document, "reviews"), {"question": "Is it good?"}
    rows = [
        question | {"context": f"{row['question']} {row['label']}", "answer": "yes" if row["label"] else "no"}
        for row in statement_rows(60, 3)
    ]
    metrics = measure_rows(task_format, rows, None, rows[:1], None)
    assert metrics.diversity
    assert metrics.diversity.between
    assert metrics.diversity.between > 0.5
    assert metrics.passage_words is None
    [wording] = [one for one in metrics.shortcuts if one.name == "wording"]
    assert "most telling: " in str(wording.warning)
