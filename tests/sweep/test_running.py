"""What a sweep does: what is missing and nothing else, and what it says of the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from datacreate.errors import LockLost, RunLocked, Stopped
from datacreate.locking import lock
from datacreate.runs.directory import RunDirectory
from datacreate.sweep import running
from datacreate.sweep.folder import SweepFolder
from datacreate.sweep.process import run_process
from tests.claims import claim, take_over
from tests.finetuning.conftest import import_rows
from tests.finetuning.sets import claims
from tests.sweep.conftest import Bench, states

READER: dict[str, Any] = {"encoders": ["./models/reader"]}
HUMAN: dict[str, Any] = {"conditions": ["human"], **READER}
BOTH: dict[str, Any] = {"conditions": ["human", "tree"], **READER}


class Heard:
    """A `Progress` that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[str, str]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def at_work(self, where: str, said: str, seconds: float) -> None: ...

    def ended(self, where: str, how: str, seconds: float) -> None:
        self.steps.append((where.rpartition("  ")[2], how))


def verbs(calls: list[str]) -> list[str]:
    return [call.partition(" ")[0] for call in calls]


def files(folder: Path, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(pattern))


def test_all_cells_are_created_trained_and_measured_and_then_left_alone(bench: Bench) -> None:
    assert states(bench.run(**BOTH)) == {"creak-human-42": "finished", "creak-writer-tree-42": "finished"}
    assert verbs(bench.calls()) == ["train", "evaluate", "create", "train", "evaluate"]
    measured = files(bench.out / "trained", "evaluation.json")
    assert len(measured) == 4
    assert measured[0] == "creak-human-42/human-reader-10/seed-1/evaluations/creak-test/evaluation.json"
    assert (bench.out / "runs" / "creak-writer-tree-42" / "train.jsonl").is_file()
    assert states(bench.run(**BOTH)) == {"creak-human-42": "finished", "creak-writer-tree-42": "finished"}
    assert bench.calls() == []


def test_each_step_keeps_its_command_and_all_that_it_said(bench: Bench) -> None:
    bench.run()
    place = bench.out / "cells" / "creak-writer-random-42"
    assert "$ " in (log := (place / "create.log").read_text())
    assert "10 of 10 examples" in log
    mark = json.loads((place / "create.json").read_text())
    assert mark["state"] == "finished"
    assert mark["command"][:3] == ["create", "--benchmark", "creak"]


def test_a_failed_cell_keeps_its_last_line_and_others_go_on(bench: Bench, tmp_path: Path) -> None:
    heard = Heard()
    failed, other = bench.sweep(**BOTH, count=70).run(progress=heard)
    assert (failed.state, other.state) == ("failed", "finished")
    assert failed.said == "70 rows were asked for and 60 are there; lower --count or make more"
    assert heard.steps[0] == ("train-human-reader-70", f"failed: {failed.said}")
    assert [one.said for one in bench.sweep(**BOTH, count=70).standing()] == [failed.said, None]

    import_rows(tmp_path / "reference", "creak", train=claims(80, 1))
    bench.calls()
    assert {one.state for one in bench.run(**BOTH, count=70)} == {"finished"}
    assert verbs(bench.calls()) == ["train", "evaluate"]


def test_what_fails_stops_only_what_follows_it(bench: Bench) -> None:
    [cell] = bench.run(conditions=["human"], count=70, sizes=["all", 20], **READER)
    assert cell.state == "failed"
    assert verbs(bench.calls()) == ["train", "train", "evaluate"]
    assert cell.finished_steps == 2


def test_one_cell_can_be_run_alone(bench: Bench) -> None:
    [only] = bench.sweep(**BOTH).run(1)
    assert (only.cell.name, only.state) == ("creak-writer-tree-42", "finished")
    assert states(bench.sweep(**BOTH).standing())["creak-human-42"] == "to do"


def test_a_cell_is_run_by_one_process_at_a_time(bench: Bench) -> None:
    sweep = bench.sweep(**BOTH)
    with SweepFolder(bench.out).locked(sweep.cells[0]):
        assert states(sweep.standing())["creak-human-42"] == "running"
        with pytest.raises(RunLocked, match="cell creak-human-42 is being run by process"):
            sweep.run(0)
        heard = Heard()
        assert states(sweep.run(progress=heard)) == {
            "creak-human-42": "running",
            "creak-writer-tree-42": "finished",
        }
    [note] = heard.notes
    assert note.startswith(f"1 of 2  cell creak-human-42 is being run by process {os.getpid()} on ")
    assert note.endswith(" UTC; wait for it; going on with the next")


def test_a_sweep_whose_cell_is_taken_over_stops_its_step_and_marks_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PACE", lock.Pace(beat=0))
    monkeypatch.setattr(running, "run_process", run_process)  # a real step
    monkeypatch.setenv("SCRIPTED", json.dumps({"gated": True}))  # that waits for answers that never come
    place = bench.out / "cells" / "creak-writer-random-42"
    run = RunDirectory(bench.out / "runs" / "creak-writer-random-42")

    class TakenOver(Heard):
        def at_work(self, where: str, said: str, seconds: float) -> None:
            if run.exists and (place / ".lock.1").exists():
                take_over(place)

    with pytest.raises(LockLost, match="taken over by process 7 on node7"):
        bench.sweep().run(progress=TakenOver())
    with run.locked():  # the step is gone, too
        pass
    assert json.loads((place / "create.json").read_text())["state"] == "begun"
    assert (place / ".lock.2").is_file()


def test_a_list_tells_cells_that_another_machine_runs(bench: Bench) -> None:
    sweep = bench.sweep(**BOTH)
    place = bench.out / "cells" / "creak-human-42"
    place.mkdir(parents=True)
    kept = claim(place)
    assert states(sweep.standing())["creak-human-42"] == "running"
    os.utime(kept, (1, 1))
    assert states(sweep.standing())["creak-human-42"] == "to do"


def test_what_is_not_here_is_told_before_the_first_cell(bench: Bench, csqa: None) -> None:
    heard = Heard()
    told = {"benchmarks": ["creak", "csqa"], "conditions": ["human-full"], **READER}
    there, lacking = bench.sweep(**told).run(progress=heard)
    assert (there.state, lacking.state) == ("finished", "impossible")
    assert lacking.said
    assert lacking.said.startswith("benchmark csqa has no train split here: ")
    assert heard.notes == [f"impossible for csqa-human-full: {lacking.said}"]


def test_where_human_rows_are_missing_the_created_ones_are_trained_on_alone(bench: Bench, csqa: None) -> None:
    [cell] = bench.run(benchmarks=["csqa"], conditions=["human+tree", "tree"], **READER)
    assert verbs(bench.calls()) == ["create", "train", "evaluate"]
    assert cell.state == "impossible"
    assert cell.step
    assert cell.step.name == "train-human+tree-reader-full+10"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"generators": ["qwen3-8b"]}, "qwen3-8b is not downloaded: run `datacreate models pull qwen3-8b`"),
        ({"encoders": ["roberta-large"]}, "roberta-large is not downloaded"),
        ({"conditions": ["diverse"]}, "all-mpnet-base-v2 is not downloaded"),
        (
            {"conditions": ["diverse"], "create": {"encoder": "all-minilm-l6-v2"}},
            "all-minilm-l6-v2 is not downloaded",
        ),
        ({"benchmarks": ["csqa"]}, "benchmark csqa is not imported"),
        ({"test": ["boolq_closed"], **READER}, "benchmark boolq_closed is not imported"),
        ({"model_selection": "human", **READER}, "benchmark creak has no dev split here"),
        ({"settings": "paper", **READER}, "benchmark creak has no dev split here"),
    ],
)
def test_everything_that_a_cell_needs_is_looked_at(changes: dict[str, Any], words: str, bench: Bench) -> None:
    [cell] = bench.sweep(**changes).standing()
    assert cell.state == "impossible"
    assert cell.said
    assert words in cell.said


class TestChangedPlans:
    """Only what a change touches is done again."""

    def test_more_rows_are_added_to_the_set_and_trained_on_anew(self, bench: Bench) -> None:
        bench.run(conditions=["tree"], **READER)
        first = (bench.out / "runs" / "creak-writer-tree-42" / "train.jsonl").read_bytes()
        bench.calls()
        bench.run(conditions=["tree"], count=15, **READER)
        assert verbs(bench.calls()) == ["create", "train", "evaluate"]
        second = (bench.out / "runs" / "creak-writer-tree-42" / "train.jsonl").read_bytes()
        assert second.startswith(first)
        assert len(second.splitlines()) == 15
        assert not (bench.out / "replaced").exists()

    def test_fewer_rows_are_another_set_and_the_old_one_is_kept(self, bench: Bench) -> None:
        bench.run()
        [cell] = bench.run(count=5)
        assert cell.state == "finished"
        run = "creak-writer-random-42"
        assert len((bench.out / "runs" / run / "train.jsonl").read_text().splitlines()) == 5
        assert len((bench.out / "replaced" / f"{run}-1" / "train.jsonl").read_text().splitlines()) == 10

    def test_another_way_of_creating_makes_the_set_anew_and_all_that_was_trained_on_it(
        self, bench: Bench
    ) -> None:
        bench.run(conditions=["tree"], **READER)
        bench.calls()
        heard = Heard()
        bench.sweep(conditions=["tree"], create={"temperature": 0.5}, **READER).run(progress=heard)
        assert verbs(bench.calls()) == ["create", "train", "evaluate"]
        assert heard.notes == [
            "runs/creak-writer-tree-42: the plan has changed; moved to replaced/creak-writer-tree-42-1, "
            "and made anew",
            "trained/creak-writer-tree-42/tree-reader-10: the plan has changed; made anew",
        ]

    def test_another_way_of_training_leaves_the_created_sets(self, bench: Bench) -> None:
        bench.run(conditions=["tree"], **READER)
        bench.calls()
        bench.run(conditions=["tree"], train={"epochs": 2}, **READER)
        assert verbs(bench.calls()) == ["train", "evaluate"]

    def test_one_more_seed_trains_that_one(self, bench: Bench) -> None:
        bench.run(**HUMAN)
        [kept] = (bench.out / "trained" / "creak-human-42").glob("*/seed-1/model.json")
        before = kept.stat().st_mtime_ns
        bench.calls()
        bench.run(**HUMAN, train_seeds=[1, 2])
        assert verbs(bench.calls()) == ["train", "evaluate"]
        assert kept.stat().st_mtime_ns == before
        assert len(files(bench.out / "trained", "evaluation.json")) == 4

    def test_one_more_size_or_encoder_trains_that_one(self, bench: Bench) -> None:
        bench.run(**HUMAN)
        bench.calls()
        bench.run(sizes=[5, "all"], **HUMAN)
        train, evaluate = bench.calls()
        assert "human-reader-5" in train
        assert "human-reader-5" in evaluate

    def test_one_more_test_set_trains_again_where_weights_are_gone(self, bench: Bench) -> None:
        told = {"conditions": ["human"], "test": ["creak"], **READER}
        bench.run(**told)
        bench.calls()
        heard = Heard()
        bench.sweep(**told | {"test": ["creak", "strategyqa"]}).run(progress=heard)
        assert verbs(bench.calls()) == ["train", "evaluate"]
        assert "seed-1 is trained again, to be measured: its weights were not kept" in heard.notes[0]

    def test_one_more_test_set_only_measures_where_weights_are_kept(self, bench: Bench) -> None:
        told = {"conditions": ["human"], "test": ["creak"], "keep_weights": True, **READER}
        bench.run(**told)
        bench.calls()
        bench.run(**told | {"test": ["creak", "strategyqa"]})
        assert verbs(bench.calls()) == ["evaluate"]

    def test_another_description_changes_nothing(self, bench: Bench) -> None:
        bench.run()
        bench.calls()
        bench.run(description="Now with words.")
        assert bench.calls() == []

    def test_a_sweep_that_was_moved_is_still_finished(self, bench: Bench) -> None:
        bench.run(**HUMAN)
        bench.calls()
        bench.out.rename(bench.folder / "elsewhere")
        (bench.folder / "out").symlink_to(bench.folder / "elsewhere")
        assert {one.state for one in bench.run(**HUMAN)} == {"finished"}
        assert bench.calls() == []


def test_weights_are_removed_when_a_model_is_measured_unless_they_are_to_be_kept(bench: Bench) -> None:
    bench.run(keep_weights=True, **HUMAN)
    assert len(files(bench.out, "*.safetensors")) == 1
    bench.calls()
    bench.run(**HUMAN)
    assert bench.calls() == []
    assert files(bench.out, "*.safetensors") == []
    assert len(files(bench.out, "evaluation.json")) == 2


def test_what_somebody_removed_is_made_again(bench: Bench) -> None:
    bench.run(**HUMAN)
    bench.calls()
    next((bench.out / "trained").rglob("evaluation.json")).unlink()
    [cell] = bench.run(**HUMAN)
    assert cell.state == "finished"
    assert verbs(bench.calls()) == ["train", "evaluate"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("kill -9 $$", "killed by signal 9; the memory may have been full"),
        ("exit 3", "ended with exit code 3, and said nothing"),
        ("echo one; echo; echo two; exit 1", "two"),
        ("echo 'datacreate: no luck' >&2; echo noise; exit 1", "no luck"),
    ],
)
def test_a_failure_is_told_by_its_last_line(script: str, said: str, bench: Bench) -> None:
    [cell] = bench.sweep(("/bin/sh", "-c", script)).run()
    assert (cell.state, cell.said) == ("failed", said)


def test_a_step_that_was_stopped_stops_the_sweep(bench: Bench) -> None:
    sweep = bench.sweep(("/bin/sh", "-c", "echo 'datacreate: the disk is full'; exit 75"), **BOTH)
    with pytest.raises(Stopped, match="creak-human-42, train-human-reader-10: the disk is full"):
        sweep.run()
    assert set(states(sweep.standing()).values()) == {"to do"}
