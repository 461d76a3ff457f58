"""`create` rejects examples that repeat rows of imported benchmarks, and its summary reports it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from datacreate.benchmarks import find_benchmark, import_benchmark
from datacreate.engines.base import Check, Completion, Request
from datacreate.errors import BenchmarkError, RunMismatch
from datacreate.runs.directory import RunDirectory
from tests.benchmarks.conftest import choices, imported, write_reference
from tests.filters.texts import HashedWords
from tests.making import SharedWords, commits, examples, make
from tests.scripted import Script, ScriptedEngine, answering, written

HELD_OUT: dict[str, Any] = {
    "question": "What would the keeper of a lighthouse polish before the evening fog comes in?",
    "context": None,
    "options": ["the lens", "a spoon", "his boots", "the moon", "a saddle"],
    "label": "the lens",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def writing(question: str) -> Script:
    """A writer that writes this question in its third request, and otherwise random ones."""

    def script(request: Request) -> Completion:
        rows = written(request, random.Random(f"{request.id}:{request.messages}"))
        if request.id == 2:
            rows[1] = [question, HELD_OUT["options"]]
        return Completion(request.id, json.dumps(rows), "stop", 50, 50)

    return script


def details(run_dir: Path) -> list[str]:
    """The details of the rejects with the reason `contaminated`."""
    rejects = [reject for commit in commits(run_dir) for reject in commit.rejects]
    return [reject.detail for reject in rejects if reject.reason == "contaminated"]


def report(summary: dict[str, Any]) -> dict[str, Any]:
    [found] = [each for each in summary["filters"] if each["name"] == "contamination"]
    return dict(found)


def test_a_generated_test_row_is_rejected_and_counted(tmp_path: Path, model: str) -> None:
    imported(tmp_path / "files", "csqa", {"test": [*choices(3), HELD_OUT], "dev": choices(2, first=9)})
    run_dir = tmp_path / "run"
    summary = make(run_dir, model, writing(HELD_OUT["question"]))
    [detail] = details(run_dir)
    assert detail.startswith("csqa test row 4 (What would the keeper of a lighthouse polish")
    assert summary["rejected"]["contaminated"] == 1
    assert HELD_OUT["question"] not in {row["question"] for row in examples(run_dir)}
    assert len(examples(run_dir)) == 25
    assert report(summary) == {
        "name": "contamination",
        "reason": "contaminated",
        "on": True,
        "settings": {"decontaminate": ["csqa"], "ngram": 8, "decontaminate_near": 0.7},
        "rejected": 1,
    }
    compared = [(each["benchmark"], each["split"]) for each in summary["compared_with"]]
    assert compared == [("csqa", "dev"), ("csqa", "test")]


def test_decontaminate_near_does_not_need_the_near_filter(tmp_path: Path, model: str) -> None:
    imported(tmp_path / "files", "csqa", {"test": [HELD_OUT]})
    similar = HELD_OUT["question"].replace("evening", "thick")
    how: dict[str, Any] = {"near": None, "ngram": 14}
    make(tmp_path / "run", model, writing(similar), **how)
    [detail] = details(tmp_path / "run")
    assert "csqa test row 1 (" in detail
    assert ": Jaccard 0.7" in detail
    make(tmp_path / "off", model, writing(similar), decontaminate_near=None, **how)
    assert details(tmp_path / "off") == []
    assert similar in {row["question"] for row in examples(tmp_path / "off")}


def test_a_run_cannot_resume_after_rows_were_imported_again(tmp_path: Path, model: str) -> None:
    imported(tmp_path / "files", "csqa", {"test": [HELD_OUT]})
    make(tmp_path / "run", model)
    write_reference(tmp_path / "other", "csqa", {"test": choices(4)})
    import_benchmark(find_benchmark("csqa"), tmp_path / "other", allow_count_mismatch=True, replace=True)
    with pytest.raises(RunMismatch, match="was made with another compared_with"):
        make(tmp_path / "run", model)


def test_without_imported_benchmarks_the_filter_is_off(tmp_path: Path, model: str) -> None:
    summary = make(tmp_path / "run", model, writing(HELD_OUT["question"]))
    assert summary["compared_with"] == []
    assert (report(summary)["on"], report(summary)["rejected"]) == (False, 0)


def test_held_out_rows_are_read_and_embedded_before_the_model_loads(
    tmp_path: Path, model: str, home: Path
) -> None:
    imported(tmp_path / "files", "csqa", {"test": [HELD_OUT]})

    class Late(ScriptedEngine):
        def start(self, checks: Sequence[Check] = ()) -> None:
            assert [HELD_OUT["question"]] in embedder.asked
            super().start()

    embedder = HashedWords()
    other_order = " ".join(reversed(HELD_OUT["question"].split()))
    how: dict[str, Any] = {"semantic": 0.95, "decontaminate_near": None}
    make(tmp_path / "run", model, Late(writing(other_order)), SharedWords(), embedder, **how)
    assert ["cosine 1.00" in detail for detail in details(tmp_path / "run")] == [True]

    [split] = home.rglob("test.jsonl")
    split.write_bytes(split.read_bytes()[:-20])
    engine = ScriptedEngine(answering())
    with pytest.raises(BenchmarkError, match="was changed after the import"):
        make(tmp_path / "damaged", model, engine)
    assert not engine.started
    assert not RunDirectory(tmp_path / "damaged").exists


def test_a_finished_run_does_not_read_benchmarks(tmp_path: Path, model: str, home: Path) -> None:
    imported(tmp_path / "files", "csqa", {"test": [HELD_OUT]})
    made = make(tmp_path / "run", model)
    for split in home.rglob("test.jsonl"):
        split.unlink()
    assert make(tmp_path / "run", model)["accepted"] == made["accepted"]
