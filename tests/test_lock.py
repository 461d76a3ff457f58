"""Locks on folders: who is refused, who takes over, and who stops."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from datacreate.errors import LockLost
from datacreate.locking import FolderLock, Pace, Taken, held_by
from tests.claims import NODE, Time, claim, claims, here, take_over
from tests.process import ROOT, ended_process


def lock_of(folder: Path, time: Time | None = None, said: list[str] | None = None) -> FolderLock:
    time = time or Time()
    return FolderLock(folder, [].append if said is None else said.append, None, time.wait, time.clock)


@contextmanager
def held(folder: Path, time: Time | None = None) -> Iterator[FolderLock]:
    lock = lock_of(folder, time)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


# Who is refused


def test_a_live_process_of_this_machine_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "815")
    with held(tmp_path):
        time = Time()
        with pytest.raises(Taken, match=rf"process {os.getpid()} on \S+ \(SLURM job 815\), since .* UTC"):
            lock_of(tmp_path, time).acquire()
        assert time.waits == []
    assert claims(tmp_path) == []


def test_a_task_of_an_array_is_named_as_slurm_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"JOB_ID": "817", "ARRAY_JOB_ID": "815", "ARRAY_TASK_ID": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with held(tmp_path):
        assert "(SLURM job 815_2)" in str(held_by(tmp_path))


def test_a_process_of_another_machine_is_refused_with_its_next_beat(tmp_path: Path) -> None:
    path = claim(tmp_path)
    kept = path.read_bytes()

    def beats_at_last() -> None:
        if len(time.waits) == 9:
            path.write_bytes(kept[:-13] + b"%012d\n" % 1)

    time, said = Time(beats_at_last), list[str]()
    with pytest.raises(Taken) as caught:
        lock_of(tmp_path, time, said).acquire()
    assert str(caught.value) == NODE
    assert time.waits == [1.0] * 9
    assert said == [
        f"{tmp_path} is, or was, in the hands of {NODE}; looking for a sign of life, for up to 60 seconds"
    ]
    assert claims(tmp_path) == [".lock.1"]


# Who takes over


def test_a_process_that_is_gone_from_this_machine_is_followed_at_once(tmp_path: Path) -> None:
    claim(tmp_path, 4, **here(process=ended_process()))
    time = Time()
    with held(tmp_path, time) as lock:
        assert time.waits == []
        assert not lock.by_silence
        assert claims(tmp_path) == [".lock.5"]
    assert claims(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="when a process began is read from /proc")
def test_a_number_that_another_process_has_by_now_is_not_the_holder(tmp_path: Path) -> None:
    claim(tmp_path, **here(started="1"))
    with held(tmp_path):
        pass


def test_a_killed_process_that_nobody_has_buried_is_gone(tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from datacreate.locking import FolderLock
FolderLock(Path({str(tmp_path)!r})).acquire()
print("held", flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(Taken):
            lock_of(tmp_path).acquire()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and still a number
        with held(tmp_path):
            pass
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("content", [None, b"", b'{"process": 7, "ho'], ids=["whole", "empty", "cut off"])
def test_a_silent_process_of_another_machine_is_followed_after_a_minute(
    tmp_path: Path, content: bytes | None
) -> None:
    path = claim(tmp_path, 2)
    if content is not None:
        path.write_bytes(content)
    time, said = Time(), list[str]()
    lock = lock_of(tmp_path, time, said)
    lock.acquire()
    assert lock.by_silence
    assert 60 <= time.now < 61
    assert len(said) == 1
    assert claims(tmp_path) == [".lock.3"]
    lock.release()


def test_the_last_start_of_the_same_job_is_waited_for_on_the_node_that_slurm_has_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    path = claim(tmp_path)
    kept = path.read_bytes()

    def beats_until_it_is_ended() -> None:
        if time.now % 10 == 0 and time.now < 100:
            path.write_bytes(kept[:-13] + b"%012d\n" % time.now)

    time = Time(beats_until_it_is_ended)
    lock = lock_of(tmp_path, time)
    lock.acquire()
    assert time.now > 100
    assert claims(tmp_path) == [".lock.2"]
    lock.release()


def test_after_a_holder_has_given_back_the_folder_is_free(tmp_path: Path) -> None:
    path = claim(tmp_path)
    time = Time(lambda: path.unlink(missing_ok=True))
    with held(tmp_path, time) as lock:
        assert time.waits == [1.0]
        assert not lock.by_silence


def test_a_claim_that_is_only_about_to_be_written_is_read_again(tmp_path: Path) -> None:
    (tmp_path / ".lock.1").touch()
    with pytest.raises(Taken, match=f"process {os.getpid()} on "):
        lock_of(tmp_path, Time(lambda: claim(tmp_path, **here()))).acquire()


def test_a_file_server_that_hangs_makes_nobody_dead(tmp_path: Path) -> None:
    path = claim(tmp_path)
    kept = path.read_bytes()

    def hangs() -> None:
        time.now += 3600  # neither could the holder beat
        if len(time.waits) == 3:
            path.write_bytes(kept[:-13] + b"%012d\n" % 1)

    time = Time(hangs)
    with pytest.raises(Taken):
        lock_of(tmp_path, time).acquire()


# Who stops


def test_whoever_was_taken_over_is_told_by_whom_and_leaves_the_lock_alone(tmp_path: Path) -> None:
    time = Time()
    with held(tmp_path, time) as lock:
        lock.look()
        take_over(tmp_path)
        time.now += 21  # two beats are overdue
        assert lock.is_lost
        with pytest.raises(LockLost) as caught:
            lock.look()
    assert caught.value.exit_code == 75
    assert f"its lock is gone, taken over by {NODE}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert claims(tmp_path) == [".lock.2"]


def test_a_claim_of_the_same_number_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    time = Time()
    with held(tmp_path, time) as lock:
        claim(tmp_path, 1)
        time.now += 21
        assert lock.is_lost
    assert claims(tmp_path) == [".lock.1"]


def test_a_removed_folder_is_a_lost_lock(tmp_path: Path) -> None:
    time, folder = Time(), tmp_path / "run"
    folder.mkdir()
    with held(folder, time) as lock:
        (folder / ".lock.1").unlink()
        folder.rmdir()
        time.now += 21
        with pytest.raises(LockLost, match="removed by somebody"):
            lock.look()


def test_a_lock_that_cannot_be_renewed_is_lost_before_others_may_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Time()
    with held(tmp_path, time) as lock:

        def fails(*_: Any) -> int:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "pwrite", fails)
        time.now = 30
        lock.look()
        time.now = 51
        with pytest.raises(LockLost, match="cannot be kept"):
            lock.look()
        monkeypatch.undo()


def test_a_holder_beats_and_so_keeps_its_lock(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path, pace=Pace(beat=0.001))
    lock.acquire()
    path = tmp_path / ".lock.1"
    first = path.read_bytes()
    while (now := path.read_bytes()) == first:
        lock.look()
    assert now.split(b"\n")[0] == first.split(b"\n")[0]
    assert len(now) == len(first)
    lock.release()
    assert claims(tmp_path) == []


def test_who_holds_a_folder_can_be_seen_without_waiting(tmp_path: Path) -> None:
    assert held_by(tmp_path) is None
    with held(tmp_path):
        assert str(held_by(tmp_path)).startswith(f"process {os.getpid()} on ")
    path = claim(tmp_path)
    assert held_by(tmp_path) == NODE
    os.utime(path, (1, 1))
    assert held_by(tmp_path) is None
