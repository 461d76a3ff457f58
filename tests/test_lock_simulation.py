"""Locks in simulated time: no holder writes after a takeover, whatever is slow or suspended."""

from __future__ import annotations

import heapq
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datacreate import locking
from datacreate.errors import LockLost, RunLocked
from datacreate.locking import FolderLock, locked
from tests.support.locks import write_record


class Simulation:
    """Threads that run one at a time, in an order given by simulated time; each file that is opened takes time."""

    def __init__(self, folder: Path, delays: Sequence[float]) -> None:
        self.folder = folder
        self.now = 0.0
        self.latest = 0  # number of the last acquisition
        self.waiting: list[tuple[float, int, Actor]] = []
        self.current: Actor | None = None
        self._delays = iter(delays)
        self._order = 0

    def pause(self, seconds: float | None = None) -> None:
        """In an actor's thread: let the others run until so much time has passed, by default the next delay."""
        actor = self.current
        assert actor
        wake = self.now + (next(self._delays, 4.0) if seconds is None else seconds)
        self._order += 1
        heapq.heappush(self.waiting, (wake, self._order, actor))
        actor.paused.set()
        actor.resumed.acquire()

    def run(self) -> None:
        while self.waiting:
            self.now, _, self.current = heapq.heappop(self.waiting)
            locking.MACHINE = self.current.machine
            self.current.paused.clear()
            self.current.resumed.release()
            self.current.paused.wait()
        self.current = None


class Actor(threading.Thread):
    """Takes the lock twice, if it can, and then writes several times, unless it has lost the lock."""

    def __init__(self, simulation: Simulation, machine: str) -> None:
        super().__init__(daemon=True)
        self.simulation, self.machine = simulation, machine
        self.paused, self.resumed = threading.Event(), threading.Semaphore(0)
        self.held, self.error = 0, ""
        heapq.heappush(simulation.waiting, (0.0, -len(simulation.waiting), self))
        self.start()

    def __lt__(self, other: Actor) -> bool:
        return False

    def run(self) -> None:
        self.resumed.acquire()
        simulation = self.simulation
        try:
            simulation.pause()
            for _ in range(2):
                with suppress(RunLocked, LockLost), locked(simulation.folder) as lock:
                    self.held += 1
                    simulation.latest += 1
                    self.write(lock, simulation.latest)
                simulation.pause(60)
        except Exception as error:  # noqa: BLE001 (the simulation goes on, and the test reports it)
            self.error = repr(error)
        finally:
            self.paused.set()

    def write(self, lock: FolderLock, acquisition: int) -> None:
        for count in range(1, 16):
            self.simulation.pause()
            if count % 3 == 0:
                lock._send_heartbeat()  # as its thread does
            lock.check()
            assert acquisition == self.simulation.latest, "wrote after another process had acquired the lock"


ACTIVE: list[Simulation] = []


def pause_before_open(event: str, arguments: tuple[Any, ...]) -> None:
    is_path = event == "open" and isinstance(arguments[0], str | os.PathLike)
    if is_path and ACTIVE and threading.current_thread() is ACTIVE[0].current:
        ACTIVE[0].pause(None if arguments[2] & os.O_WRONLY else 0.01)


sys.addaudithook(pause_before_open)


@settings(max_examples=100)
@example(machines=["A", "B"], delays=[0, 0, 90], left="A")  # the other one takes over meanwhile
@given(
    machines=st.lists(st.sampled_from("AB"), min_size=2, max_size=4),
    delays=st.lists(st.sampled_from([0.0, 4.0, 15.0, 30.0, 90.0]), max_size=40),
    left=st.sampled_from([None, "A", "node7"]),
)
def test_no_holder_writes_after_a_takeover_whatever_is_slow_or_suspended(
    tmp_path_factory: pytest.TempPathFactory, machines: list[str], delays: list[float], left: str | None
) -> None:
    folder, flocks = tmp_path_factory.mktemp("folder"), tmp_path_factory.mktemp("flocks")
    for machine in "AB":
        (flocks / machine).mkdir()
    if left:
        write_record(folder, machine=left)
    simulation = Simulation(folder, delays)
    flock, fdopen, utime, beats = locking.fcntl.flock, os.fdopen, os.utime, iter(range(1, 10**6))

    def local_flock(file: int, mode: int) -> None:
        """A flock that only the same machine sees."""
        own = os.open(flocks / locking.MACHINE, os.O_RDONLY)
        os.dup2(own, file)
        os.close(own)
        flock(file, mode)

    def slow_fdopen(file: int, mode: str, **options: Any) -> Any:
        if mode == "w":
            simulation.pause()  # between creating a file and writing it
        return fdopen(file, mode, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locking, "MACHINE", "")
        patch.setattr(locking, "fcntl", SimpleNamespace(**{**vars(locking.fcntl), "flock": local_flock}))
        patch.setattr(os, "fdopen", slow_fdopen)
        patch.setattr(os.path, "samestat", lambda *_: True)  # `local_flock` gives another folder
        patch.setattr(locking, "sleep", simulation.pause)
        patch.setattr(locking, "clock", lambda: simulation.now)
        patch.setattr(os, "utime", lambda path: utime(path, ns=(0, next(beats))))
        actors = [Actor(simulation, machine) for machine in machines]
        ACTIVE[:] = [simulation]
        simulation.run()
        ACTIVE.clear()
    assert [actor.error for actor in actors] == [""] * len(actors)
    assert any(actor.held for actor in actors)
    assert list(folder.iterdir()) == []
