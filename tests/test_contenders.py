"""Several processes that want the same folder: one gets it, whatever their order."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.locking import FolderLock, Pace, Taken
from tests.claims import Time, claim, claims, here
from tests.process import ROOT, ended_process

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
@settings(max_examples=100)
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
