"""Two jobs at one run directory: the second is refused, or follows a dead one; no two write at once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from datacreate.engines.base import Check, Completion, Request
from datacreate.errors import LockLost
from datacreate.locking import lock
from datacreate.runs.directory import RunDirectory
from tests.claims import NODE, claim, elsewhere, take_over
from tests.inprocess import run
from tests.making import COMMONSENSE, commits, make, train
from tests.process import Live
from tests.scripted import ScriptedEngine, answering

HASTE = lock.Pace(beat=0.01, poll=0.001, quiet=0.02)
HASTE_OF_DRIVER = [0.05, 0.01, 0.3]


@pytest.fixture
def command(tmp_path: Path, model: str) -> list[object]:
    example = tmp_path / "example.json"
    example.write_text(json.dumps(COMMONSENSE))
    return ["create", "--example", example, "--model", model, "--count", 400, "--run-dir", tmp_path / "run"]


def lines(run_dir: Path) -> int:
    log = run_dir / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def test_the_second_job_is_told_host_process_and_job_of_the_first(
    tmp_path: Path, command: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "815")
    with Live(*command, gated=True) as first:
        first.allow(1)
        first.wait_for(lambda: lines(tmp_path / "run") == 2)
        second = run(*command)
    assert second.code == 1
    assert f"{tmp_path / 'run'} is being written by process {first.pid} on " in second.failure
    assert "(SLURM job 815), since " in second.failure
    assert second.failure.endswith("; wait for it, or take another --run-dir")


def test_a_run_of_a_dead_node_goes_on_and_says_what_it_waits_for(
    tmp_path: Path, command: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Live(*command, gated=True) as first:
        first.allow(10)
        first.wait_for(lambda: lines(tmp_path / "run") == 11)
        first.stop(signal.SIGKILL)
    for path in (tmp_path / "run").glob(".lock.*"):
        path.unlink()
    claim(tmp_path / "run", 3)
    monkeypatch.setattr(lock, "PACE", lock.Pace(*HASTE_OF_DRIVER))
    second = run(*command)
    assert second.code == 0
    [said] = [line for line in second.lines if "sign of life" in line]
    assert f"{tmp_path / 'run'} is, or was, in the hands of {NODE}; looking" in said
    assert len(train(tmp_path / "run").splitlines()) == 400
    assert not list((tmp_path / "run").glob(".lock*"))


def others(path: Path) -> dict[str, bytes]:
    """What a run holds, but for claims, and train.jsonl, which whoever goes on makes anew from the log."""
    left_out = {each.name for each in path.iterdir() if lock.is_claim(each.name)} | {"train.jsonl"}
    return {each.name: each.read_bytes() for each in path.iterdir() if each.name not in left_out}


def test_a_job_that_slept_through_a_takeover_stops_with_75_and_writes_nothing(
    tmp_path: Path, command: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    monkeypatch.setattr(lock, "PACE", HASTE)
    elsewhere(monkeypatch)
    with Live(*command, gated=True, pace=HASTE_OF_DRIVER) as first:
        first.allow(10)
        first.wait_for(lambda: lines(path) == 11)
        os.kill(first.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WNOWAIT)
        old = (path / "log.jsonl").stat().st_ino
        with RunDirectory(path).locked() as ours:  # in a log of its own: a write cut in two ends in the old
            kept = others(path)
            assert (path / "log.jsonl").stat().st_ino != old
            first.allow(100)
            ended = first.stop(signal.SIGCONT)
            assert others(path) == kept
            assert not ours.is_lost
    assert ended.code == 75
    assert f"its lock is gone, taken over by process {os.getpid()} on " in ended.failure
    assert run(*command).code == 0
    whole = tmp_path / "whole"
    assert run(*command[:-1], whole).code == 0
    assert train(path) == train(whole)


def test_a_run_that_is_taken_over_leaves_all_files_as_they_are(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PACE", lock.Pace(beat=0))
    script = answering()
    seen: dict[str, bytes] = {}

    def answers(request: Request) -> Completion:
        if request.id == 7:
            take_over(tmp_path)
            seen.update({path.name: path.read_bytes() for path in tmp_path.iterdir()})
        return script(request)

    with pytest.raises(LockLost, match="taken over by process 7 on node7"):
        make(tmp_path, model, answers, count=100)
    assert seen == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(commits(tmp_path)) >= 4


def test_a_run_that_is_taken_over_while_the_model_loads_leaves_the_directory_alone(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PACE", lock.Pace(beat=0))

    class Slow(ScriptedEngine):
        def start(self, checks: Sequence[Check] = ()) -> None:
            take_over(tmp_path)
            super().start()

    with pytest.raises(LockLost):
        make(tmp_path, model, Slow(answering()))
    assert [path.name for path in tmp_path.iterdir()] == [".lock.2"]
