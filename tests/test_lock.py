"""Locks on folders: who is refused, who takes over, and who stops."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.errors import LockLost
from datacreate.locking import FolderLock, Pace, Taken, held_by
from tests.claims import NODE, claim, here, take_over
from tests.process import ROOT, ended_process


class Time:
    """A clock that waiting moves, and what is to happen at a wait."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self._then = then

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)
        self._then()

    def clock(self) -> float:
        return self.now


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


def claims(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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


# Several at once

WORKER = """
import sys
from pathlib import Path
from datacreate.locking import FolderLock, Pace, Taken, holder
if sys.argv[1] != "here":
    holder._machine = lambda: sys.argv[1]
for line in sys.stdin:
    lock = FolderLock(Path(line.strip()), pace=Pace(beat=0.02, poll=0.01, quiet=0.5))
    try:
        lock.acquire()
    except Taken:
        print("taken", flush=True)
    else:
        print("held", flush=True)
        sys.stdin.readline()
        how = "lost" if lock.is_lost else "kept"
        lock.release()
        print(how, flush=True)
"""


@pytest.mark.parametrize("machines", ["one machine", "a machine each"])
@pytest.mark.parametrize("left", ["nothing", "dead", "silent"])
def test_of_several_processes_exactly_one_gets_the_folder(tmp_path: Path, machines: str, left: str) -> None:
    places = ["here"] * 4 if machines == "one machine" else ["a", "b", "c", "d"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, place], cwd=ROOT, **pipes) for place in places]
    try:
        for number in range(4 if left == "silent" or places[0] == "a" else 40):
            folder = tmp_path / str(number)
            folder.mkdir()
            if left == "silent" or (left == "dead" and places[0] == "a"):
                claim(folder)
            elif left == "dead":
                claim(folder, **here(process=ended_process()))
            tell(workers, str(folder))
            answers = [read(worker) for worker in workers]
            assert sorted(answers) == ["held", "taken", "taken", "taken"]
            winner = workers[answers.index("held")]
            tell([winner], "")
            assert read(winner) == "kept"
            assert claims(folder) == []
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def tell(workers: list[subprocess.Popen[str]], line: str) -> None:
    for worker in workers:
        assert worker.stdin
        worker.stdin.write(line + "\n")
        worker.stdin.flush()


def read(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout
    return worker.stdout.readline().strip()


class Turns:
    """Contenders that do one thing with the file system at a time, in an order from outside."""

    def __init__(self) -> None:
        self._mine = threading.local()

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.remove", "os.listdir", "os.scandir"):
            self.pause()

    def pause(self, *_: object) -> None:
        if contender := getattr(self._mine, "contender", None):
            contender.arrived.set()
            contender.go.acquire()

    def run(self, contender: Contender) -> None:
        self._mine.contender = contender
        try:
            for _ in range(2):
                self.pause()
                with suppress(Taken):
                    contender.lock.acquire()
                    contender.holds = contender.held = True
                    self.pause()
                    contender.holds = False
                    contender.lock.release()
        finally:
            self._mine.contender = None
            contender.ended = True
            contender.arrived.set()


class Contender:
    def __init__(self, folder: Path, turns: Turns, time: Time) -> None:
        pace = Pace(beat=1000, poll=1, quiet=3)
        self.lock = FolderLock(folder, None, pace, turns.pause, time.clock)
        self.holds = self.held = self.ended = False
        self.arrived, self.go = threading.Event(), threading.Semaphore(0)
        self.thread = threading.Thread(target=turns.run, args=(self,), daemon=True)
        self.thread.start()
        self.arrived.wait()

    def step(self) -> None:
        self.arrived.clear()
        self.go.release()
        self.arrived.wait()


TURNS = Turns()
sys.addaudithook(TURNS.hook)


RUNS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 25)), max_size=12)
"""Who comes next, and for how many steps."""


@pytest.mark.parametrize("known", [True, False], ids=["of one machine", "a machine each"])
@given(runs=RUNS, left=st.sampled_from(["nothing", "gone", "silent"]))
def test_in_whatever_order_contenders_come_never_do_two_hold_the_folder(
    tmp_path_factory: pytest.TempPathFactory, known: bool, runs: list[tuple[int, int]], left: str
) -> None:
    folder, time = tmp_path_factory.mktemp("folder"), Time()
    gone = 2**22 + 1  # larger than any process number
    if left != "nothing":
        claim(folder, **here(process=gone) if left == "gone" else {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "datacreate.locking.holder.Holder.is_here",
            property(lambda self: self.process == gone or (known and self.host != "node7")),
        )
        contenders = [Contender(folder, TURNS, time) for _ in range(3)]
        for turn in [*(who for who, steps in runs for _ in range(steps)), *(0, 1, 2) * 1000]:
            if not contenders[turn].ended:
                contenders[turn].step()
            holding = [each for each in contenders if each.holds]
            if known or len(holding) > 1:
                time.now += 1e6  # every beat is overdue
                lost = sum(each.lock.is_lost for each in holding)
                # Whoever is let sleep is found dead by other machines, and is to know it on waking up.
                assert len(holding) - lost <= 1
                assert not (known and lost)
            if all(each.ended for each in contenders):
                break
    assert claims(folder) == []
    assert any(each.held for each in contenders)
