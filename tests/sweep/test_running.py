"""What a sweep runs, skips and runs again."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from datacreate import locking
from datacreate.errors import (
    OTHER_WRITER,
    RESUMABLE,
    SWEEP_STEP,
    DatacreateError,
    EngineError,
    LockLost,
    RunLocked,
    ServersUnavailable,
    Stopped,
    UnwritablePath,
)
from datacreate.runs.directory import RunDirectory
from datacreate.sweep import run as sweep_run
from datacreate.sweep.folder import SweepFolder, run_process
from tests.finetuning.conftest import import_rows
from tests.finetuning.sets import claims
from tests.support.faults import at, changes_of, contents, forked, killed
from tests.support.inprocess import typed
from tests.support.locks import write_record
from tests.sweep.conftest import Bench, states

READER: dict[str, Any] = {"encoders": ["./models/reader"]}
HUMAN: dict[str, Any] = {"conditions": ["human"], **READER}
BOTH: dict[str, Any] = {"conditions": ["human", "tree"], **READER}


def verbs(calls: list[str]) -> list[str]:
    return [call.partition(" ")[0] for call in calls]


def files(folder: Path, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(pattern))


def test_all_cells_are_created_trained_and_evaluated_once(bench: Bench) -> None:
    assert states(bench.run(**BOTH)) == {"creak-human-42": "finished", "creak-writer-tree-42": "finished"}
    assert verbs(bench.calls()) == ["create", "train", "evaluate", "train", "evaluate"]
    measured = files(bench.out / "trained", "evaluation.json")
    assert len(measured) == 4
    assert measured[0] == "creak-human-42/human-reader-10/seed-1/evaluations/creak-test/evaluation.json"
    assert (bench.out / "runs" / "creak-writer-tree-42" / "train.jsonl").is_file()
    log = (bench.out / "cells" / "creak-writer-tree-42" / "create.log").read_text()
    assert log.startswith("$ ")
    assert " create --benchmark creak " in log
    assert "10 of 10 examples" in log
    again = bench.run(**BOTH, description="Only the description has changed.")
    assert {one.state for one in again} == {"finished"}
    assert bench.calls() == []
    bench.out.rename(bench.folder / "moved")
    (bench.folder / "out").symlink_to(bench.folder / "moved")
    assert {one.state for one in bench.run(**BOTH)} == {"finished"}
    assert bench.calls() == []


def test_a_cell_improves_its_rows_beside_others(bench: Bench) -> None:
    plan = {"variants": {"more": {"strategy": "tree", "improve": True}}, "conditions": ["tree", "more"]}
    assert set(states(bench.run(**plan, **READER, count=80)).values()) == {"finished"}
    done = sorted(verbs(bench.calls())[:3])  # with the generator, which both cells share
    assert done == ["create", "create", "improve"]
    rows = {path.parent.name: path.read_text().count("\n") for path in bench.out.rglob("train.jsonl")}
    name = "creak-writer-more-42"
    assert rows == {"creak-writer-tree-42": 80, name: 40, f"{name}-improved": 40}
    assert {one.state for one in bench.run(**plan, **READER, count=80)} == {"finished"}
    assert bench.calls() == []


def test_a_failed_cell_reports_its_last_line_and_the_others_run(bench: Bench, tmp_path: Path) -> None:
    lines: list[str] = []
    failed, other = bench.sweep(**BOTH, count=70).run(notify=lines.append)
    assert (failed.state, other.state) == ("failed", "finished")
    assert failed.message == "--count 70 but only 60 rows; lower --count or add sources"
    assert lines[1].startswith(f"1 of 2  creak-human-42  train-human-reader-70  failed: {failed.message}, ")
    assert [one.message for one in bench.sweep(**BOTH, count=70).states()] == [failed.message, None]

    import_rows(tmp_path / "reference", "creak", train=claims(80, 1), test=claims(20, 2))
    bench.calls()
    assert {one.state for one in bench.run(**BOTH, count=70)} == {"finished"}
    assert verbs(bench.calls()) == ["train", "evaluate"]


def test_what_fails_stops_only_what_follows_it(bench: Bench) -> None:
    [cell] = bench.run(conditions=["human"], count=70, sizes=["all", 20], **READER)
    assert cell.state == "failed"
    assert verbs(bench.calls()) == ["train", "train", "evaluate"]
    assert cell.finished_steps == 2


def test_servers_that_do_not_start_fail_the_sets_of_their_generator(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    error: DatacreateError = EngineError("no GPU has enough memory")

    def servers(models: tuple[str, ...], *_: Any) -> Any:
        if models[0].endswith("writer"):
            raise error
        return nullcontext(sweep_run.Resources())

    monkeypatch.setattr(sweep_run, "start_shared_servers", servers)
    plan: dict[str, Any] = {"conditions": ["human", "random"], "example_seeds": [1, 2], **READER}
    plan["generators"] = ["./models/writer", "./models/reader"]
    lines: list[str] = []
    outcomes = bench.sweep(**plan).run(notify=lines.append)
    for one in outcomes:
        expected = ("failed", str(error)) if "writer" in one.cell.name else ("finished", None)
        assert (one.state, one.message) == expected
    assert len(outcomes) == 6
    assert sum("no GPU has enough memory; continuing" in line for line in lines) == 1
    error = ServersUnavailable("the server has ended")
    with pytest.raises(ServersUnavailable):
        bench.run(**plan)


def test_a_cell_is_run_by_one_process_at_a_time(bench: Bench) -> None:
    sweep = bench.sweep(**BOTH)
    with SweepFolder(bench.out).locked(sweep.cells[0]):
        assert states(sweep.states())["creak-human-42"] == "running"
        assert states(bench.sweep(index=0, **BOTH).run()) == {"creak-human-42": "running"}
        lines: list[str] = []
        assert states(sweep.run(notify=lines.append)) == {
            "creak-human-42": "running",
            "creak-writer-tree-42": "finished",
        }
    assert lines[1].startswith(
        f"1 of 2  creak-human-42  {bench.out}/cells/creak-human-42 is locked by process {os.getpid()} on "
    )
    assert lines[1].endswith(" UTC; wait until it has finished; continuing with the next")
    shorter, longer = bench.sweep(index=1, **BOTH), bench.sweep(index=1, **BOTH, sizes=["all", 5])
    with SweepFolder(bench.out).locked(longer.cells[0]):
        [finished], [running] = shorter.states(), longer.states()
    assert (finished.state, finished.finished_steps) == ("finished", 3)
    assert (running.state, running.finished_steps) == ("running", 3)  # of 5


def test_a_step_whose_folder_is_locked_stops_only_its_cell(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_run, "run_process", run_process)  # real steps
    run = bench.out / "runs" / "creak-writer-tree-42"
    with RunDirectory(run).locked():
        human, tree = bench.run(**BOTH)
    assert (human.state, tree.state, tree.finished_steps) == ("finished", "running", 0)
    assert (tree.message or "").startswith(f"{run} is locked by process {os.getpid()} on ")
    assert verbs(bench.calls()) == ["create", "train", "evaluate"]
    assert set(states(bench.run(**BOTH)).values()) == {"finished"}


@pytest.mark.parametrize("error", [LockLost, RunLocked])
def test_the_exit_code_of_a_step_says_that_another_process_has_its_folder(
    error: type[DatacreateError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datacreate.cli.group.datacreate.main", Mock(side_effect=error("runs/mine: taken over")))
    assert typed("create").code == RESUMABLE
    monkeypatch.setenv(SWEEP_STEP, "1")
    assert typed("create").code == OTHER_WRITER


def test_a_sweep_that_loses_its_lock_stops_the_step_and_writes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(sweep_run, "run_process", run_process)  # a real step
    monkeypatch.setenv("SCRIPTED", json.dumps({"gated": True}))  # whose engine never answers
    place = bench.out / "cells" / "creak-writer-random-42"
    run = RunDirectory(bench.out / "runs" / "creak-writer-random-42")

    def update(_: str) -> None:
        if run.exists and (place / ".lock").exists():
            write_record(place)

    with pytest.raises(LockLost, match="taken over by process 7 on node7"):
        bench.sweep().run(update=update)
    with run.locked():  # the step has also ended
        pass
    assert json.loads((place / "create.json").read_text())["state"] == "started"
    assert (place / ".lock").is_file()


def test_a_sweep_that_is_killed_at_a_change_of_a_file_gives_the_same_result(bench: Bench) -> None:
    def results() -> dict[str, bytes]:
        found = contents(bench.out)
        return {
            name: b"" if name.endswith((".log", "log.jsonl")) or "/runs/" in f"/{name}" else content
            for name, content in found.items()
        } | {name: content for name, content in found.items() if name.endswith("train.jsonl")}

    number = changes_of(lambda: bench.run(**BOTH))
    expected = results()
    assert not [name for name in expected if name.endswith((".part", ".lock"))]
    for change in range(number - 1, 0, -(number // 5)):
        shutil.rmtree(bench.out)
        assert forked(lambda: len(bench.run(**BOTH)), at(change, killed)) == 9
        assert set(states(bench.run(**BOTH)).values()) == {"finished"}
        assert results() == expected, change


def test_nothing_is_written_through_links(bench: Bench, tmp_path: Path) -> None:
    victim, log = tmp_path / "victim", tmp_path / "step.log"
    victim.write_text("mine")
    log.symlink_to(victim)
    with pytest.raises(UnwritablePath, match=r"step\.log: .*a symbolic link is there"):
        run_process(["true"], log, lambda _: False, {})
    assert victim.read_text() == "mine"
    bench.out.mkdir()
    for name in ("cells", "runs"):
        (bench.out / name).symlink_to(tmp_path)
        with pytest.raises(UnwritablePath, match=rf"{name}: .*a symbolic link is there"):
            bench.run()
        (bench.out / name).unlink()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generators": ["qwen3-8b"]}, "qwen3-8b is not downloaded: run `datacreate models pull qwen3-8b`"),
        ({"encoders": ["roberta-large"]}, "roberta-large is not downloaded"),
        (
            {"conditions": ["diverse"], "create": {"embedding_model": "all-minilm-l6-v2"}},
            "all-minilm-l6-v2 is not downloaded",
        ),
        ({"create": {"verifier": "qwen3-8b"}}, "qwen3-8b is not downloaded"),
        ({"test": ["boolq_closed"], **READER}, "benchmark boolq_closed is not imported"),
        ({"train": {"recipe": "paper"}, **READER}, "benchmark creak has no dev split"),
        ({"benchmarks": ["creak", "csqa"], "conditions": ["human+tree"], **READER}, "csqa has no train split"),
    ],
)
def test_nothing_is_run_if_something_is_missing(
    changes: dict[str, Any], message: str, bench: Bench, csqa: None
) -> None:
    sweep = bench.sweep(**changes)
    [missing] = sweep.missing_requirements()
    assert message in missing
    with pytest.raises(DatacreateError, match="plan plan: nothing was run: "):
        sweep.run()
    assert not bench.out.exists()


def test_a_finished_cell_needs_nothing(bench: Bench) -> None:
    bench.run()
    shutil.rmtree(bench.folder / "models" / "writer")
    assert set(states(bench.run()).values()) == {"finished"}


class TestChangedPlans:
    """Only what a change touches runs again."""

    def test_more_rows_extend_the_set_and_train_again(self, bench: Bench) -> None:
        bench.run(conditions=["tree"], **READER)
        first = (bench.out / "runs" / "creak-writer-tree-42" / "train.jsonl").read_bytes()
        bench.calls()
        bench.run(conditions=["tree"], count=15, **READER)
        assert verbs(bench.calls()) == ["create", "train", "evaluate"]
        second = (bench.out / "runs" / "creak-writer-tree-42" / "train.jsonl").read_bytes()
        assert second.startswith(first)
        assert len(second.splitlines()) == 15

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"count": 5}, "was made with --count 10, which cannot be reduced to 5"),
            ({"create": {"temperature": 0.5}}, "was made with another --temperature"),
        ],
    )
    def test_a_set_that_cannot_be_continued_is_kept_and_the_cell_fails(
        self, changes: dict[str, Any], message: str, bench: Bench
    ) -> None:
        bench.run()
        before = (bench.out / "runs" / "creak-writer-random-42" / "log.jsonl").read_bytes()
        [cell] = bench.run(**changes)
        assert cell.state == "failed"
        assert cell.message
        assert message in cell.message
        assert (bench.out / "runs" / "creak-writer-random-42" / "log.jsonl").read_bytes() == before

    def test_one_more_seed_or_size_trains_only_that_one(self, bench: Bench) -> None:
        bench.run(**HUMAN)
        [kept] = (bench.out / "trained" / "creak-human-42").glob("*/seed-1/model.json")
        before = kept.stat().st_mtime_ns
        bench.calls()
        bench.run(**HUMAN, train_seeds=[1, 2])
        assert verbs(bench.calls()) == ["train", "evaluate"]
        assert kept.stat().st_mtime_ns == before
        assert len(files(bench.out / "trained", "evaluation.json")) == 4
        bench.run(sizes=[5, "all"], **HUMAN, train_seeds=[1, 2])
        train, evaluate = bench.calls()
        assert "human-reader-5" in train
        assert "human-reader-5" in evaluate

    def test_one_more_test_set_is_evaluated_with_weights_that_were_kept(self, bench: Bench) -> None:
        plan = {"conditions": ["human"], "test": ["creak"], "keep_weights": True, **READER}
        bench.run(**plan)
        bench.calls()
        bench.run(**plan | {"test": ["creak", "strategyqa"]})
        assert verbs(bench.calls()) == ["evaluate"]


def test_weights_are_deleted_after_the_evaluation_and_removed_results_are_made_again(bench: Bench) -> None:
    bench.run(**HUMAN)
    assert files(bench.out, "*.safetensors") == []
    shutil.rmtree(bench.out / "trained" / "creak-human-42" / "human-reader-10")
    bench.calls()
    [cell] = bench.run(**HUMAN, keep_weights=True)
    assert cell.state == "finished"
    assert verbs(bench.calls()) == ["train", "evaluate"]
    assert len(files(bench.out, "*.safetensors")) == 1


def test_another_test_set_needs_the_deleted_weights(bench: Bench) -> None:
    bench.run(**HUMAN, test=["creak"])
    [missing] = (sweep := bench.sweep(**HUMAN, test=["creak", "strategyqa"])).missing_requirements()
    folder = bench.out / "trained" / "creak-human-42" / "human-reader-10"
    assert missing.startswith(f"{folder}: the weights of its models were deleted after their evaluation (`keep_weights")
    with pytest.raises(DatacreateError, match=r"nothing was run: .* remove the folder to train them again"):
        sweep.run()
    shutil.rmtree(folder)
    assert sweep.missing_requirements() == []
    assert set(states(sweep.run()).values()) == {"finished"}


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -9 $$", "killed by signal 9; out of memory?"),
        ("exit 3", "ended with exit code 3 and without output"),
        ("echo one; echo; echo two; exit 1", "two"),
        ("echo 'datacreate: no luck' >&2; echo noise; exit 1", "no luck"),
    ],
)
def test_the_message_of_a_failure_is_its_last_line(script: str, message: str, bench: Bench) -> None:
    [cell] = bench.sweep(("/bin/sh", "-c", script)).run()
    assert (cell.state, cell.message) == ("failed", message)


@pytest.mark.parametrize("message", ["the disk is full", "runs/this is locked by me: the disk is full"])
def test_a_step_that_was_stopped_stops_the_sweep(message: str, bench: Bench) -> None:
    sweep = bench.sweep(("/bin/sh", "-c", f"echo 'datacreate: {message}'; exit 75"), **BOTH)
    with pytest.raises(Stopped, match=f"creak-writer-tree-42, create: {message}"):
        sweep.run()
    assert set(states(sweep.states()).values()) == {"pending"}
