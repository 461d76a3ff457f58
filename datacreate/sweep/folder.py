"""The sweep's folder: what is finished, and what a changed plan has made stale.

A mark per step carries the exact command. A step is finished when its mark says so, the command is
still the same, and what it made is there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from datacreate.errors import PlanError, RunLocked
from datacreate.files import replace_file, storage_error
from datacreate.finetuning.directory import TRIALS, TrainingDirectory
from datacreate.locking import FolderLock, held_by
from datacreate.sweep.cells import Cell
from datacreate.sweep.plan import Plan
from datacreate.sweep.steps import Step

PLAN = "plan.json"

_WEIGHTS = ("*.safetensors", "*.bin")

_LOCK_SECONDS = 60.0
"""Longer than writing the plan takes, for all jobs of an array at once."""

_TURN_SECONDS = 0.1
"""Between two tries to be the one that writes it."""


class Mark(BaseModel):
    """What became of a step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Literal["begun", "finished", "failed"]
    command: tuple[str, ...]  # as `Step.told`
    decided_by: tuple[str, ...]  # as in Step
    grows: tuple[str, ...]
    said: str | None = None  # the last line of a failure
    seconds: float | None = None

    @classmethod
    def of(
        cls,
        step: Step,
        state: Literal["begun", "finished", "failed"],
        said: str | None = None,
        seconds: float | None = None,
    ) -> Mark:
        return cls(
            state=state,
            command=step.told,
            decided_by=step.decided_by,
            grows=step.grows,
            said=said,
            seconds=seconds,
        )

    def is_of(self, step: Step) -> bool:
        """Whether the step is still told the same."""
        return (self.decided_by, self.grows) == (step.decided_by, step.grows)

    def leads_to(self, step: Step) -> bool:
        """Whether the step can go on from what this one left."""
        if self.decided_by != step.decided_by:
            return False
        return step.kind != "create" or int(self.grows[-1]) <= int(step.grows[-1])


class SweepFolder:
    """The files of one sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def adopt(self, plan: Plan) -> None:
        """Make the folder, and keep the plan in it. PlanError if it is another plan's; StorageError."""
        text = plan.model_dump_json(indent=2) + "\n"
        until = time.monotonic() + _LOCK_SECONDS
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            while not self._keeps(text):
                self.refuse_other(plan)
                try:
                    self._keep(plan, text)
                except RunLocked:
                    if time.monotonic() > until:
                        raise
                    time.sleep(_TURN_SECONDS)
        except OSError as error:
            raise storage_error(self.path, error) from None

    def _keeps(self, text: str) -> bool:
        kept = self.path / PLAN
        return kept.is_file() and kept.read_bytes() == text.encode("utf-8")

    def _keep(self, plan: Plan, text: str) -> None:
        lock = FolderLock(self.path)
        lock.acquire()
        try:
            self.refuse_other(plan)
            if not self._keeps(text):
                replace_file(self.path / PLAN, text)
        finally:
            lock.release()

    def refuse_other(self, plan: Plan) -> None:
        """Raise PlanError if the folder is that of a plan of another name."""
        try:
            name = Plan.model_validate_json((self.path / PLAN).read_bytes()).name
        except (OSError, ValidationError):  # none yet, or one of another version
            return
        if name != plan.name:
            raise PlanError(
                f"{self.path} holds the sweep of the plan {name}, not {plan.name}; choose another --out"
            )

    @contextmanager
    def locked(self, cell: Cell, notify: Callable[[str], None] = lambda _: None) -> Iterator[FolderLock]:
        """Hold a cell; `notify` is called before a wait. RunLocked if another process has it; StorageError."""
        lock = FolderLock(self._of(cell), notify)
        try:
            self._of(cell).mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise storage_error(self._of(cell), error) from None
        try:
            yield lock
        finally:
            lock.release()

    def is_running(self, cell: Cell) -> bool:
        """Whether a process holds the cell, as far as can be seen without waiting."""
        try:
            return held_by(self._of(cell)) is not None
        except OSError:  # not begun, or a folder of somebody else's
            return False

    def log(self, cell: Cell, step: Step) -> Path:
        return self._of(cell) / f"{step.name}.log"

    def mark(self, cell: Cell, step: Step) -> Mark | None:
        """The mark of a step, whatever it was told; None if there is none that can be read."""
        try:
            return Mark.model_validate_json((self._of(cell) / f"{step.name}.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, cell: Cell, step: Step, mark: Mark) -> None:
        replace_file(self._of(cell) / f"{step.name}.json", mark.model_dump_json(indent=2) + "\n")

    def finished(self, cell: Cell, step: Step) -> bool:
        """Whether there is nothing left to do."""
        mark = self.mark(cell, step)
        return mark is not None and mark.state == "finished" and mark.is_of(step) and self._made(step)

    def failure(self, cell: Cell, step: Step) -> str | None:
        """Why the step failed when it was last run as it is told now."""
        mark = self.mark(cell, step)
        return mark.said if mark and mark.state == "failed" and mark.is_of(step) else None

    def make_room(self, cell: Cell, step: Step) -> str | None:
        """Clear away what the step cannot go on from; a line on that, if it cost something.

        Created sets are moved to `replaced/`, trainings are removed. Raises StorageError.
        """
        mark, place = self.mark(cell, step), self.path / step.folder
        try:
            if mark is not None and not mark.leads_to(step) and step.kind != "evaluate" and place.exists():
                return self._put_aside(step, place)
            if step.kind == "train" and (lost := [one for one in _seeds(place) if not _usable(one, step)]):
                for one in lost:
                    shutil.rmtree(one)
                names = ", ".join(one.name for one in lost)
                return f"{step.folder}: {names} is trained again, to be measured: its weights were not kept"
        except OSError as error:
            raise storage_error(place, error) from None
        return None

    def discard_weights(self, step: Step) -> None:
        """Remove the weights of measured models; their evaluations stay. StorageError."""
        try:
            for seed in _seeds(self.path / step.folder):
                for pattern in _WEIGHTS:
                    for file in seed.glob(pattern):
                        file.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(self.path / step.folder, error) from None

    def _of(self, cell: Cell) -> Path:
        return self.path / "cells" / cell.name

    def _put_aside(self, step: Step, place: Path) -> str:
        if step.kind != "create":
            shutil.rmtree(place)
            return f"{step.folder}: the plan has changed; made anew"
        aside = self.path / "replaced"
        aside.mkdir(exist_ok=True)
        number = 1
        while (target := aside / f"{place.name}-{number}").exists():
            number += 1
        place.rename(target)
        return f"{step.folder}: the plan has changed; moved to {target.relative_to(self.path)}, and made anew"

    def _made(self, step: Step) -> bool:
        """Whether what the step makes is there."""
        place = self.path / step.folder
        if step.kind in ("create", "zero-shot"):
            return place.is_dir()
        train = step if step.kind == "train" else step.follows
        assert train is not None, "an evaluation follows a training"
        models = [TrainingDirectory(place).model(int(seed)) for seed in train.grows[-1].split(",")]
        if step.kind == "train":
            return all(_usable(model, step) for model in models)
        return all(_measured(model, step) for model in models)


def _seeds(training: Path) -> list[Path]:
    """The models of a training; one that is being trained is not among them."""
    return [path for path in sorted(training.glob("seed-*")) if path.is_dir() and path.parent.name != TRIALS]


def _measured(model: Path, step: Step) -> bool:
    return all((model / one).is_file() for one in step.measures)


def _usable(model: Path, step: Step) -> bool:
    """Whether a model has its weights, or none are needed any more."""
    return any(any(model.glob(pattern)) for pattern in _WEIGHTS) or (
        model.is_dir() and _measured(model, step)
    )
