"""Creation against imported benchmarks: what repeats a row of theirs stays out, and the run says so."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from datacreate.benchmarks import find_benchmark, import_reference
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


def saying(question: str) -> Script:
    """A writer that asks this question in its third request, and else what comes to its mind."""

    def script(request: Request) -> Completion:
        rows = written(request, random.Random(f"{request.id}:{request.messages}"))
        if request.id == 2:
            rows[1] = [question, HELD_OUT["options"]]
        return Completion(request.id, json.dumps(rows), "stop", 50, 50)

    return script


def contaminated(run_dir: Path) -> list[str]:
    """What was said of the rejected rows."""
    rejects = [reject for commit in commits(run_dir) for reject in commit.rejects]
    return [reject.because for reject in rejects if reject.reason == "contaminated"]


def test_a_test_row_that_the_model_writes_is_rejected_and_counted(tmp_path: Path, model: str) -> None:
    imported(tmp_path / "files", "csqa", {"test": [*choices(3), HELD_OUT], "dev": choices(2, first=9)})
    run_dir = tmp_path / "run"
    summary = make(run_dir, model, saying(HELD_OUT["question"]))
    [because] = contaminated(run_dir)
    assert because.startswith("csqa test row 4 (What would the keeper of a lighthouse polish")
    assert because.endswith(": n-gram")
    assert summary["rejected"]["contaminated"] == 1
    assert HELD_OUT["question"] not in {row["question"] for row in examples(run_dir)}
    assert len(examples(run_dir)) == 25
    told = {each["name"]: each for each in summary["filters"]}
    assert told["contamination"] == {
        "name": "contamination",
        "reason": "contaminated",
        "on": True,
        "ngram": 8,
        "near": 0.7,
        "semantic": None,
        "decontaminate": ["csqa"],
        "rejected": 1,
    }
    compared = [(each["benchmark"], each["split"]) for each in summary["compared_with"]]
    assert compared == [("csqa", "dev"), ("csqa", "test")]
    assert json.loads((run_dir / "summary.json").read_text("utf-8")) == summary


def test_without_near_duplicates_a_test_row_nearly_repeated_is_still_rejected(
    tmp_path: Path, model: str
) -> None:
    imported(tmp_path / "files", "csqa", {"test": [HELD_OUT]})
    nearly = HELD_OUT["question"].replace("evening", "thick")
    how: dict[str, Any] = {"near": None, "ngram": 14}
    make(tmp_path / "run", model, saying(nearly), **how)
    [because] = contaminated(tmp_path / "run")
    assert "csqa test row 1 (" in because
    assert ": near 0.7" in because
    make(tmp_path / "off", model, saying(nearly), decontaminate_near=None, **how)
    assert contaminated(tmp_path / "off") == []
    assert nearly in {row["question"] for row in examples(tmp_path / "off")}


def test_rows_imported_anew_are_another_run(tmp_path: Path, model: str) -> None:
    imported(tmp_path / "files", "csqa", {"test": [HELD_OUT]})
    make(tmp_path / "run", model)
    write_reference(tmp_path / "other", "csqa", {"test": choices(4)})
    import_reference(tmp_path / "other", find_benchmark("csqa"), any_count=True, replace=True)
    with pytest.raises(RunMismatch, match="was made with another compared_with"):
        make(tmp_path / "run", model)


def test_a_run_that_was_compared_with_nothing_says_so(tmp_path: Path, model: str) -> None:
    summary = make(tmp_path / "run", model, saying(HELD_OUT["question"]))
    assert summary["compared_with"] == []
    [told] = [each for each in summary["filters"] if each["name"] == "contamination"]
    assert (told["on"], told["decontaminate"], told["rejected"]) == (False, [], 0)
    assert HELD_OUT["question"] in {row["question"] for row in examples(tmp_path / "run")}


def test_a_damaged_split_is_told_before_the_model_loads_and_anything_is_written(
    tmp_path: Path, model: str, home: Path
) -> None:
    imported(tmp_path / "files", "csqa", {"test": [HELD_OUT]})
    [split] = home.rglob("test.jsonl")
    split.write_bytes(split.read_bytes()[:-20])
    engine = ScriptedEngine(answering())
    with pytest.raises(BenchmarkError, match="is not what was imported"):
        make(tmp_path / "run", model, engine)
    assert not engine.started
    assert not RunDirectory(tmp_path / "run").exists


def test_test_rows_are_embedded_before_the_model_loads(tmp_path: Path, model: str) -> None:
    imported(tmp_path / "files", "csqa", {"test": [HELD_OUT]})

    class Late(ScriptedEngine):
        def start(self, checks: Sequence[Check] = ()) -> None:
            assert [HELD_OUT["question"]] in embedder.asked
            super().start()

    embedder = HashedWords()
    other_order = " ".join(reversed(HELD_OUT["question"].split()))
    make(
        tmp_path / "run",
        model,
        Late(saying(other_order)),
        SharedWords(),
        embedder,
        semantic=0.95,
        decontaminate_near=None,
    )
    assert ["meaning 1.00" in because for because in contaminated(tmp_path / "run")] == [True]


def test_a_finished_run_reads_no_benchmark_again(tmp_path: Path, model: str, home: Path) -> None:
    imported(tmp_path / "files", "csqa", {"test": [HELD_OUT]})
    made = make(tmp_path / "run", model)
    for split in home.rglob("test.jsonl"):
        split.unlink()
    assert make(tmp_path / "run", model)["accepted"] == made["accepted"]
