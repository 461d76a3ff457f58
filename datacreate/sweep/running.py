"""Cell after cell, step after step; what is finished is left as it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

from datacreate.errors import RESUMABLE, RunLocked, Stopped, UsageError
from datacreate.locking import FolderLock
from datacreate.signals import Signals, caught_signals
from datacreate.sweep.cells import Cell, cells_of
from datacreate.sweep.folder import Mark, SweepFolder
from datacreate.sweep.needs import Need, missing
from datacreate.sweep.plan import Plan
from datacreate.sweep.process import run_process
from datacreate.sweep.steps import Step

State = Literal["finished", "failed", "impossible", "running", "to do"]

COMMAND = (sys.executable, "-m", "datacreate")


@dataclass(frozen=True)
class Outcome:
    """Where a cell stands. `said` is the last line of a failure, or why it is impossible."""

    cell: Cell
    state: State
    said: str | None = None
    step: Step | None = None  # that failed or is impossible
    finished_steps: int = 0


class Progress(Protocol):
    """Whoever wants to know how a sweep is going."""

    def notify(self, text: str) -> None:
        """A line worth reading, once."""

    def at_work(self, where: str, said: str, seconds: float) -> None:
        """Now and then while a step runs: which, its last line, and for how long it has been running."""

    def ended(self, where: str, how: str, seconds: float) -> None:
        """After each step."""


class Silent:
    """A `Progress` that says nothing."""

    def notify(self, text: str) -> None: ...

    def at_work(self, where: str, said: str, seconds: float) -> None: ...

    def ended(self, where: str, how: str, seconds: float) -> None: ...


class Sweep:
    """A plan in a folder. `command` is what a step's arguments are given to, by default `datacreate`."""

    def __init__(self, plan: Plan, out: Path, command: Sequence[str] | None = None) -> None:
        self.plan = plan
        self._folder = SweepFolder(out)
        self._out = out.absolute()  # steps may not depend on where they are started
        self._command = tuple(command or COMMAND)
        self._missing: dict[Need, str | None] = {}

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        return cells_of(self.plan)

    def cell(self, index: int) -> Cell:
        """The cell of that index, from 0. UsageError if there is none."""
        if not 0 <= index < len(self.cells):
            raise UsageError(
                f"plan {self.plan.name} has the cells 0 to {len(self.cells) - 1}, and no {index}; "
                "`datacreate sweep PLAN --list` shows them"
            )
        return self.cells[index]

    def standing(self) -> list[Outcome]:
        """Where every cell stands; nothing is written. PlanError if the folder is another plan's."""
        self._folder.refuse_other(self.plan)
        return [self._standing(cell) for cell in self.cells]

    def run(self, index: int | None = None, progress: Progress | None = None) -> list[Outcome]:
        """Run all cells that are not finished, or the one of `index`; how each came out.

        A cell that another process runs is left to it; RunLocked if it is the one asked for. Raises
        Stopped after a signal or a step that was stopped, LockLost, StorageError, PlanError: then
        nothing is lost, and the same call goes on.
        """
        progress = progress or Silent()
        chosen = self.cells if index is None else (self.cell(index),)
        self._folder.adopt(self.plan)
        self._tell_missing(chosen, progress)
        with caught_signals() as signals:
            outcomes = []
            for number, cell in enumerate(chosen, 1):
                place = f"{number} of {len(chosen)}  " if index is None else ""
                try:
                    with self._folder.locked(cell, progress.notify) as lock, signals.deferred():
                        outcomes.append(self._run(cell, place, progress, signals, lock))
                except RunLocked as error:
                    if index is not None:
                        raise
                    progress.notify(f"{place}{error}; going on with the next")
                    outcomes.append(Outcome(cell, "running"))
            return outcomes

    def _run(self, cell: Cell, place: str, progress: Progress, signals: Signals, lock: FolderLock) -> Outcome:
        failed: list[tuple[Step, str]] = []
        blocked: list[Step] = []
        for step in cell.steps:
            if step.follows in blocked:
                blocked.append(step)
                continue
            if not self._folder.finished(cell, step):
                if self._lacks(step):
                    blocked.append(step)
                    continue
                said = self._run_step(cell, step, f"{place}{cell.name}  {step.name}", progress, signals, lock)
                if said is not None:
                    failed.append((step, said))
                    blocked.append(step)
            if step.kind == "evaluate" and step not in blocked and not self.plan.keep_weights:
                self._folder.discard_weights(step)
            if signals.received:
                raise Stopped(_STOPPED)
        return self._standing(cell, failed, own=True)

    def _run_step(
        self, cell: Cell, step: Step, where: str, progress: Progress, signals: Signals, lock: FolderLock
    ) -> str | None:
        """Run a step; the last line of a failure, None if it is finished."""
        lock.look()
        if note := self._folder.make_room(cell, step):
            progress.notify(note)
        self._folder.write(cell, step, Mark.of(step, "begun"))
        began = time.monotonic()

        def tell(said: str) -> None:
            lock.look()
            progress.at_work(where, said, time.monotonic() - began)

        command = [*self._command, *self._arguments(step)]
        ended = run_process(command, self._folder.log(cell, step), signals, tell)
        lock.look()
        seconds = time.monotonic() - began
        if ended.code == 0:
            if step.kind == "evaluate" and not self.plan.keep_weights:
                self._folder.discard_weights(step)  # before the mark: a kill in between costs nothing
            self._folder.write(cell, step, Mark.of(step, "finished", seconds=round(seconds, 1)))
            progress.ended(where, "finished", seconds)
            return None
        if ended.code == RESUMABLE or signals.received:
            progress.ended(where, "stopped", seconds)
            raise Stopped(_STOPPED if signals.received else f"{cell.name}, {step.name}: {ended.said}")
        self._folder.write(cell, step, Mark.of(step, "failed", ended.said, round(seconds, 1)))
        progress.ended(where, f"failed: {ended.said}", seconds)
        return ended.said

    def _arguments(self, step: Step) -> list[str]:
        paths = [one if isinstance(one, str) else str(self._out / one) for one in step.arguments]
        return [*paths, *step.engine, *step.grows]

    def _standing(self, cell: Cell, failed: Sequence[tuple[Step, str]] = (), *, own: bool = False) -> Outcome:
        """Where a cell stands, as far as its files say; `own`: it is we who hold it."""
        done = [step for step in cell.steps if self._folder.finished(cell, step)]
        left = [step for step in cell.steps if step not in done]
        if not left:
            return Outcome(cell, "finished", finished_steps=len(done))
        if not own and self._folder.is_running(cell):
            return Outcome(cell, "running", finished_steps=len(done))
        found = list(failed) or [(step, said) for step in left if (said := self._folder.failure(cell, step))]
        for step, said in found:
            return Outcome(cell, "failed", said, step, len(done))
        for step in left:
            if why := self._lacks(step):
                return Outcome(cell, "impossible", why, step, len(done))
        return Outcome(cell, "to do", finished_steps=len(done))

    def _tell_missing(self, cells: Sequence[Cell], progress: Progress) -> None:
        """Say what is not here, once each, before anything is run."""
        stopped: dict[str, set[str]] = {}
        for cell in cells:
            for step in cell.steps:
                if not self._folder.finished(cell, step) and (why := self._lacks(step)):
                    stopped.setdefault(why, set()).add(cell.name)
        for why, names in stopped.items():
            some = f"{len(names)} cells" if len(names) > 1 else min(names)
            progress.notify(f"impossible for {some}: {why}")

    def _lacks(self, step: Step) -> str | None:
        """Why a step cannot be run here."""
        for need in step.needs:
            if need not in self._missing:
                self._missing[need] = missing(need)
            if why := self._missing[need]:
                return why
        return None


_STOPPED = "stopped by a signal; what is finished is kept: run the same command to go on"
