"""Runs a sweep: cell by cell, each step as a child process. Finished steps are skipped."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from datacreate.child_process import supervised
from datacreate.errors import RESUMABLE, RunLocked, Stopped, UsageError
from datacreate.files import storage_error
from datacreate.locking import FolderLock
from datacreate.messages import Notify, no_notify
from datacreate.signals import Signals, caught_signals
from datacreate.sweep.cells import Requirement, Step, SweepCell, cells_of
from datacreate.sweep.folder import SweepFolder
from datacreate.sweep.plan import SweepPlan

State = Literal["finished", "failed", "blocked", "running", "pending"]
"""Of a cell. blocked: a checkpoint or benchmark is missing."""

COMMAND = (sys.executable, "-m", "datacreate")

_STOPPED = "stopped by a signal; finished steps are kept: run the same command to resume"

_POLL_SECONDS = 0.2
_STEP_OPTIONS = ("DATACREATE_CREATE_", "DATACREATE_TRAIN_", "DATACREATE_EVALUATE_")
"""Environment variables that steps do not get: the plan decides their options."""

_GRACE_SECONDS = 600.0  # after SIGTERM: training writes a checkpoint first
_TAIL_BYTES, _MAX_LINE = 8192, 500


@dataclass(frozen=True)
class Outcome:
    """The state of a cell. `message` says why it failed or is blocked, and `step` where."""

    cell: SweepCell
    state: State
    message: str | None = None
    step: Step | None = None
    finished_steps: int = 0


@dataclass(frozen=True)
class _Run:
    """A cell that is being run. `name` is shown in messages."""

    name: str
    notify: Notify
    update: Notify
    signals: Signals
    lock: FolderLock


class Sweep:
    """A plan in a folder. `command` runs a step's arguments; default: this `datacreate`."""

    def __init__(self, plan: SweepPlan, out: Path, command: Sequence[str] | None = None) -> None:
        self.plan = plan
        self._folder = SweepFolder(out)
        self._out = out.absolute()
        self._command = tuple(command or COMMAND)
        self._missing: dict[Requirement, str | None] = {}

    @cached_property
    def cells(self) -> tuple[SweepCell, ...]:
        return cells_of(self.plan)

    def cell(self, index: int) -> SweepCell:
        """The cell of that index, from 0. UsageError if there is none."""
        if not 0 <= index < len(self.cells):
            raise UsageError(
                f"plan {self.plan.name} has the cells 0 to {len(self.cells) - 1}, and no {index}; "
                "`datacreate sweep PLAN --list` shows them"
            )
        return self.cells[index]

    def states(self) -> list[Outcome]:
        """The state of every cell; writes nothing. PlanError if the folder belongs to another plan."""
        self._folder.check_plan(self.plan)
        return [self._state(cell) for cell in self.cells]

    def commands(self, cell: SweepCell) -> list[list[str]]:
        """The commands that `run` would run for a cell, as far as their requirements are met."""
        return [["datacreate", *self._arguments(step)] for step in self._steps_to_run(cell, [])]

    def _steps_to_run(self, cell: SweepCell, skipped: list[Step]) -> Iterator[Step]:
        """Unfinished steps whose requirements are met, without those that depend on a step in `skipped`."""
        for step in cell.steps:
            is_finished = self._folder.is_finished(cell, step)
            if step.depends_on in skipped or (not is_finished and self._why_missing(step)):
                skipped.append(step)
            elif not is_finished:
                yield step

    def missing(self, cells: Sequence[SweepCell]) -> list[str]:
        """A line for each unmet requirement of unfinished steps."""
        lacking: dict[str, dict[str, None]] = {}
        for cell in cells:
            left = [step for step in cell.steps if not self._folder.is_finished(cell, step)]
            for requirement in dict.fromkeys(
                requirement for step in left for requirement in step.requirements
            ):
                if why := self._check(requirement):
                    lacking.setdefault(why, {})[cell.name] = None
        return [
            f"missing for {next(iter(names)) if len(names) == 1 else f'{len(names)} cells'}: {why}"
            for why, names in lacking.items()
        ]

    def run(
        self, index: int | None = None, notify: Notify = no_notify, update: Notify = no_notify
    ) -> list[Outcome]:
        """Run all unfinished cells, or only the one of `index`; returns their outcomes.

        `notify` gets lines worth keeping; `update` gets the last line of the running step, several times a
        second. A cell that another process runs is skipped; RunLocked if it is the one of `index`. Raises
        Stopped after a signal or if a step was stopped, LockLost, StorageError, PlanError; the same call
        resumes.
        """
        chosen = self.cells if index is None else (self.cell(index),)
        self._folder.create(self.plan)
        for line in self.missing(chosen):
            notify(line)
        outcomes = []
        with caught_signals() as signals:
            for number, cell in enumerate(chosen, 1):
                prefix = f"{number} of {len(chosen)}  " if index is None else ""
                try:
                    with self._folder.locked(cell, notify) as lock, signals.deferred():
                        run = _Run(f"{prefix}{cell.name}", notify, update, signals, lock)
                        outcomes.append(self._run(cell, run))
                except RunLocked as error:
                    if index is not None:
                        raise
                    notify(f"{prefix}{error}; continuing with the next")
                    outcomes.append(Outcome(cell, "running"))
        return outcomes

    def _run(self, cell: SweepCell, run: _Run) -> Outcome:
        failed: dict[Step, str] = {}
        skipped: list[Step] = []
        for step in self._steps_to_run(cell, skipped):
            if (message := self._run_step(cell, step, run)) is not None:
                failed[step] = message
                skipped.append(step)
            self._delete_weights(cell)
            if run.signals.received:
                raise Stopped(_STOPPED)
        self._delete_weights(cell)
        return self._state(cell, failed)

    def _delete_weights(self, cell: SweepCell) -> None:
        """Delete the weights of evaluated models, unless the plan keeps them."""
        for step in cell.steps if not self.plan.keep_weights else ():
            if step.kind == "evaluate" and self._folder.is_finished(cell, step):
                self._folder.delete_weights(step)

    def _run_step(self, cell: SweepCell, step: Step, run: _Run) -> str | None:
        """Run a step. Returns the last line of a failure, None if the step finished."""
        run.lock.check()
        if note := self._folder.prepare(cell, step):
            run.notify(note)
        self._folder.write(cell, step, "started")
        start, name = time.monotonic(), f"{run.name}  {step.name}"

        def poll(line: str) -> None:
            run.lock.check()
            run.update(f"{name}  {time.monotonic() - start:.0f} s  {line}")

        command = [*self._command, *self._arguments(step)]
        code, line = run_process(command, self._folder.log(cell, step), run.signals, poll)
        run.lock.check()
        is_stopped = code != 0 and (code == RESUMABLE or run.signals.received)
        result = "finished" if code == 0 else "stopped" if is_stopped else f"failed: {line}"
        run.notify(f"{name}  {result}, {time.monotonic() - start:.0f} s")
        if is_stopped:
            raise Stopped(_STOPPED if run.signals.received else f"{cell.name}, {step.name}: {line}")
        self._folder.write(cell, step, "failed" if code else "finished", line if code else None)
        return line if code else None

    def _arguments(self, step: Step) -> list[str]:
        """The arguments of a step with absolute paths: it may start in any folder."""
        paths = [word if isinstance(word, str) else str(self._out / word) for word in step.arguments]
        return [*paths, *step.engine_arguments, *step.growable_arguments]

    def _state(self, cell: SweepCell, failed: Mapping[Step, str] | None = None) -> Outcome:
        """The state of a cell from its files; `failed` are the steps that failed in this process."""
        finished = [step for step in cell.steps if self._folder.is_finished(cell, step)]
        left, number = [step for step in cell.steps if step not in finished], len(finished)
        if not left:
            return Outcome(cell, "finished", finished_steps=number)
        if failed is None and self._folder.is_running(cell):
            return Outcome(cell, "running", finished_steps=number)
        if failed is None:
            failed = {step: why for step in left if (why := self._folder.failure(cell, step)) is not None}
        for step, message in failed.items():
            return Outcome(cell, "failed", message, step, number)
        for step in left:
            if why := self._why_missing(step):
                return Outcome(cell, "blocked", why, step, number)
        return Outcome(cell, "pending", finished_steps=number)

    def _why_missing(self, step: Step) -> str | None:
        """Why a requirement of the step is not met; None if all are met."""
        return next(filter(None, map(self._check, step.requirements)), None)

    def _check(self, requirement: Requirement) -> str | None:
        if requirement not in self._missing:  # each is checked once
            self._missing[requirement] = requirement.missing()
        return self._missing[requirement]


def run_process(
    command: Sequence[str], log: Path, signals: Signals, poll: Callable[[str], None]
) -> tuple[int, str]:
    """Run a command, its output appended to `log`; returns its exit code and its last line.

    The exit code is negative for a signal. `poll` gets the last line several times a second. A signal that
    arrives is passed on, once. Raises StorageError if the log cannot be written.
    """
    try:
        with log.open("ab") as file:
            file.write(f"$ {shlex.join(command)}\n".encode(errors="replace"))
        start = log.stat().st_size
        file = log.open("ab")
    except OSError as error:
        raise storage_error(log, error) from None
    with file:
        # In its own process group Ctrl-C reaches the step once, through this process, and not twice.
        process = subprocess.Popen(
            supervised(command, _GRACE_SECONDS),
            env={name: text for name, text in os.environ.items() if not name.startswith(_STEP_OPTIONS)},
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        passed_on = False
        try:
            while process.poll() is None:
                if signals.received and not passed_on:
                    process.terminate()
                    passed_on = True
                try:
                    process.wait(_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    poll(last_line(log, start))
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    code = process.returncode
    if line := last_line(log, start):
        return code, line
    if code < 0:
        return code, f"killed by signal {-code}{'; out of memory?' if -code == signal.SIGKILL else ''}"
    return code, f"ended with exit code {code} and without output" if code else ""


def last_line(log: Path, start: int) -> str:
    """The last line of a log since `start` (bytes); an error line of `datacreate` takes precedence."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    errors = [line for line in lines if line.startswith("datacreate: ")]
    return (errors or lines or [""])[-1].removeprefix("datacreate: ")[:_MAX_LINE]
