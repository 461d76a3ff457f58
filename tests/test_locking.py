"""Locks on directories: who is refused, who takes over, and who stops before it writes."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from datacreate import locking
from datacreate.engines.request import ServerTest
from datacreate.errors import LockLost, RunLocked, StorageError
from datacreate.locking import LOCK_FILE, is_held, locked
from datacreate.runs.directory import RunDirectory
from tests.support.inprocess import run
from tests.support.locks import NODE, speed_up, write_record
from tests.support.making import COMMONSENSE, make, train
from tests.support.process import ROOT, Live
from tests.support.scripted import ScriptedClient, answering


class Time:
    """A clock that only moves in `sleep`, which then calls `event`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []
        self.event: Callable[[], object] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps.append(seconds)
        self.event()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(locking, "sleep", time.sleep)
    monkeypatch.setattr(locking, "clock", lambda: time.now)
    return time


def send_heartbeat(path: Path, count: int) -> None:
    os.utime(path, (count, count))


# One machine


def test_a_second_process_is_refused(tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"JOB_ID": "817", "ARRAY_JOB_ID": "815", "ARRAY_TASK_ID": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with locked(tmp_path):
        name = rf"process {os.getpid()} on \S+ \(SLURM job 815_2\), since .* UTC; wait"
        with pytest.raises(RunLocked, match=name), locked(tmp_path):
            pass
    assert time.sleeps == []
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_frees_the_directory_at_once(tmp_path: Path, time: Time) -> None:
    script = f"""
import time
from pathlib import Path
from datacreate.locking import locked
with locked(Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(RunLocked, match=f"process {process.pid} on "), locked(tmp_path):
            pass
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and still a zombie
        with locked(tmp_path) as lock:
            assert not lock.taken_over
    assert time.sleeps == []
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_lock_behind(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(StorageError, match="the disk is full"), locked(tmp_path):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_removed_and_made_again_while_it_is_locked_is_held_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = tmp_path / "new", fcntl.flock
    with ExitStack() as first, ExitStack() as third:
        first.enter_context(locked(folder))

        def flock(*arguments: Any) -> None:
            """The holder ends, and a third process starts, while a second one has opened the folder."""
            monkeypatch.undo()
            first.close()
            third.enter_context(locked(folder))
            real(*arguments)

        monkeypatch.setattr(fcntl, "flock", flock)
        with pytest.raises(RunLocked, match="new is locked by process"), locked(folder):
            pass
        assert is_held(folder)
    assert not folder.exists()


# Another machine


@pytest.mark.parametrize("restarts", ["0", "1"])
def test_a_heartbeat_of_another_machine_refuses(
    tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch, restarts: str
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)  # without a job
    path = write_record(tmp_path)
    notes: list[str] = []

    def event() -> None:
        time.now += 3600  # the file server hangs, for the holder too
        if len(time.sleeps) == 9:
            send_heartbeat(path, 1)

    time.event = event
    with pytest.raises(RunLocked) as error, locked(tmp_path, notes.append):
        pass
    assert str(error.value) == f"{tmp_path} is locked by {NODE}; wait until it has finished"
    assert time.sleeps == [1] * 9
    assert notes == [f"waiting up to a minute for a heartbeat: {tmp_path} is locked by {NODE}"]
    assert path.exists()


@pytest.mark.parametrize("content", [None, b"", b"process 7 on"], ids=["whole", "empty", "cut off"])
def test_an_expired_lock_of_another_machine_is_taken(tmp_path: Path, time: Time, content: bytes | None) -> None:
    path = write_record(tmp_path)
    if content is not None:
        path.write_bytes(content)
    notes: list[str] = []
    with locked(tmp_path, notes.append) as lock:
        assert lock.taken_over
        assert time.sleeps == [1] * 60 + [25]
    assert notes[0].endswith(f" is locked by {NODE if content is None else 'another process'}")
    assert not path.exists()


def test_a_lock_that_is_freed_meanwhile_is_taken(tmp_path: Path, time: Time) -> None:
    path = write_record(tmp_path)
    time.event = lambda: path.unlink(missing_ok=True)
    with locked(tmp_path) as lock:
        assert time.sleeps == [1]
        assert not lock.taken_over


def test_a_requeued_job_waits(tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    path = write_record(tmp_path)
    time.event = lambda: send_heartbeat(path, int(time.now / 10)) if time.now < 100 else None
    with locked(tmp_path):
        assert time.now > 100


def test_a_lock_is_shown_as_held_while_it_gets_heartbeats(tmp_path: Path) -> None:
    path = write_record(tmp_path)
    assert is_held(tmp_path)
    send_heartbeat(path, 1)
    assert not is_held(tmp_path)


# Loss


@pytest.mark.parametrize("change", ["taken over", "removed", "directory removed"])
def test_a_holder_notices_the_loss_and_leaves_the_new_lock(tmp_path: Path, time: Time, change: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with locked(folder) as lock:
        lock.check()
        if change == "taken over":
            write_record(folder)
        else:
            (folder / LOCK_FILE).unlink()
        if change == "directory removed":
            folder.rmdir()
        time.now += 21  # two heartbeats are overdue
        why = f"taken over by {NODE}" if change == "taken over" else "the lock file is gone"
        with pytest.raises(LockLost, match=r"^[^\n]*$") as error:
            lock.check()
    assert f"{folder} lost its lock: {why}; stopped" in str(error.value)
    assert error.value.exit_code == 75
    assert (folder / LOCK_FILE).exists() == (change == "taken over")


def test_a_lock_that_cannot_be_renewed_is_lost_before_others_take_it(
    tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with locked(tmp_path) as lock:
        monkeypatch.setattr(os, "utime", fails)
        time.now = 30
        lock.check()
        time.now = 51
        with pytest.raises(LockLost, match="cannot be renewed"):
            lock.check()
        monkeypatch.undo()


def test_a_holder_sends_heartbeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "HEARTBEAT_SECONDS", 0.001)
    with locked(tmp_path) as lock:
        first = (tmp_path / LOCK_FILE).stat().st_mtime_ns
        while (tmp_path / LOCK_FILE).stat().st_mtime_ns == first:
            lock.check()


# Runs


@pytest.fixture
def command(tmp_path: Path, model: str) -> list[object]:
    example = tmp_path / "example.json"
    example.write_text(json.dumps(COMMONSENSE))
    return ["create", "--example", example, "--model", model, "--count", 400, "--run-dir", tmp_path / "run"]


def log_lines(run_dir: Path) -> int:
    log = run_dir / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def test_a_run_of_a_lost_node_resumes_after_its_lock_has_expired(
    tmp_path: Path, command: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Live(*command, gated=True) as first:
        first.allow(10)
        first.wait_for(lambda: log_lines(tmp_path / "run") == 11)
        first.stop(signal.SIGKILL)
    write_record(tmp_path / "run")
    speed_up(100, monkeypatch.setattr)
    second = run(*command)
    assert second.code == 0
    assert any(line.startswith("waiting up to") and f"is locked by {NODE}" in line for line in second.lines)
    assert len(train(tmp_path / "run").splitlines()) == 400
    assert not (tmp_path / "run" / LOCK_FILE).exists()


def test_a_run_that_was_suspended_during_a_takeover_stops_with_75_and_writes_nothing(
    tmp_path: Path, command: list[object]
) -> None:
    path = tmp_path / "run"

    def contents() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in path.iterdir() if file.name != "train.jsonl"}

    with Live(*command, gated=True, lock_speed=200) as first, pytest.MonkeyPatch.context() as patch:
        first.allow(10)
        first.wait_for(lambda: log_lines(path) == 11)
        os.kill(first.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WNOWAIT)
        old = (path / "log.jsonl").stat().st_ino
        speed_up(200, patch.setattr)
        patch.setattr(locking, "MACHINE", "another")
        patch.setattr(locking.fcntl, "flock", lambda *_: None)
        with RunDirectory(path).locked() as lock:
            # Its log is a copy: a write cut in two ends in the old file.
            assert (path / "log.jsonl").stat().st_ino != old
            patch.setattr(locking, "HEARTBEAT_SECONDS", 1e6)
            kept = contents()
            first.allow(100)
            ended = first.stop(signal.SIGCONT)
            assert contents() == kept
            lock.check()
    assert ended.code == 75
    assert f"taken over by process {os.getpid()} on " in ended.failure
    assert run(*command).code == 0
    whole = tmp_path / "whole"
    assert run(*command[:-1], whole).code == 0
    assert train(path) == train(whole)


def test_a_run_that_is_taken_over_while_the_model_loads_leaves_the_directory_alone(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "HEARTBEAT_SECONDS", 0.001)

    class Slow(ScriptedClient):
        def start(self, tests: Sequence[ServerTest] = ()) -> None:
            write_record(tmp_path)
            locking.time.sleep(0.01)
            super().start()

    with pytest.raises(LockLost):
        make(tmp_path, model, Slow(answering()))
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]
