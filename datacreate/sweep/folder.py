"""The folder of a sweep: which steps are finished, and which results a changed plan invalidates."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from datacreate.errors import SweepPlanError
from datacreate.files import replace_file, storage_error
from datacreate.locking import FolderLock, held_by
from datacreate.messages import Notify, no_notify
from datacreate.sweep.cells import Step, SweepCell
from datacreate.sweep.plan import SweepPlan

State = Literal["started", "finished", "failed"]

_WEIGHTS = ("*.safetensors", "*.bin")


class Status(BaseModel):
    """The last status of a step, with its arguments then. `identity` and `growable_arguments` as in `Step`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: State
    identity: tuple[str, ...]
    growable_arguments: tuple[str, ...]
    message: str | None = None  # the last line of a failed step

    def is_current(self, step: Step) -> bool:
        """Whether the arguments of the step are still the same."""
        return (self.identity, self.growable_arguments) == (step.identity, step.growable_arguments)

    def can_resume(self, step: Step) -> bool:
        """Whether the step can continue from the results of its earlier arguments."""
        grows = step.kind != "create" or int(self.growable_arguments[-1]) <= int(step.growable_arguments[-1])
        return grows and self.identity == step.identity


class SweepFolder:
    """The files of one sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._plan = path / "plan.json"

    def create(self, plan: SweepPlan) -> None:
        """Create the folder and store the plan. SweepPlanError if it belongs to another plan; StorageError."""
        self.check_plan(plan)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(self.path, error) from None
        replace_file(self._plan, plan.model_dump_json(indent=2) + "\n")

    def check_plan(self, plan: SweepPlan) -> None:
        """Raise SweepPlanError if the folder belongs to a plan of another name."""
        try:
            name = SweepPlan.model_validate_json(self._plan.read_bytes()).name
        except (OSError, ValidationError):  # no plan yet, or one of another version
            return
        if name != plan.name:
            raise SweepPlanError(
                f"{self.path} is the folder of the plan {name}, not {plan.name}; use another --out"
            )

    @contextmanager
    def locked(self, cell: SweepCell, notify: Notify = no_notify) -> Iterator[FolderLock]:
        """Lock a cell; `notify` gets a line before a wait. RunLocked if another process has it."""
        folder = self._cell(cell)
        lock = FolderLock(folder, notify)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise storage_error(folder, error) from None
        try:
            yield lock
        finally:
            lock.release()

    def is_running(self, cell: SweepCell) -> bool:
        """Whether a process has locked the cell; does not wait."""
        try:
            return held_by(self._cell(cell)) is not None
        except OSError:  # not started, or not readable
            return False

    def _cell(self, cell: SweepCell) -> Path:
        return self.path / "cells" / cell.name

    def log(self, cell: SweepCell, step: Step) -> Path:
        return self._cell(cell) / f"{step.name}.log"

    def status(self, cell: SweepCell, step: Step) -> Status | None:
        """The status of a step, also of earlier arguments; None without a readable file."""
        try:
            return Status.model_validate_json(self.log(cell, step).with_suffix(".json").read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, cell: SweepCell, step: Step, state: State, message: str | None = None) -> None:
        """Store the status of a step. StorageError."""
        status = Status(
            state=state, identity=step.identity, growable_arguments=step.growable_arguments, message=message
        )
        replace_file(self.log(cell, step).with_suffix(".json"), status.model_dump_json(indent=2) + "\n")

    def is_finished(self, cell: SweepCell, step: Step) -> bool:
        """Whether a step finished with its current arguments and its results exist."""
        status, folder = self.status(cell, step), self.path / step.folder
        if status is None or status.state != "finished" or not status.is_current(step):
            return False
        if step.kind in ("create", "zero-shot"):
            return folder.is_dir()
        train = step if step.kind == "train" else step.depends_on
        assert train is not None, "an evaluation depends on a training"
        models = [folder / f"seed-{seed}" for seed in train.growable_arguments[-1].split(",")]
        return all((_is_usable if step is train else _is_evaluated)(model, step) for model in models)

    def failure(self, cell: SweepCell, step: Step) -> str | None:
        """The message of the step if it failed with its current arguments."""
        status = self.status(cell, step)
        return status.message if status and status.state == "failed" and status.is_current(step) else None

    def prepare(self, cell: SweepCell, step: Step) -> str | None:
        """Clear away results that the step cannot continue from; returns a message if that loses work.

        Created sets move to `replaced/`. Trainings are deleted, and so are models without weights that need
        another evaluation. Raises StorageError.
        """
        status, folder = self.status(cell, step), self.path / step.folder
        try:
            if status and not status.can_resume(step) and step.kind != "evaluate" and folder.exists():
                if step.kind != "create":
                    shutil.rmtree(folder)
                    return f"{step.folder}: the plan has changed; it is run again"
                replaced = self.path / "replaced"
                replaced.mkdir(exist_ok=True)
                numbered = (f"{folder.name}-{number}" for number in itertools.count(1))
                target = replaced / next(name for name in numbered if not (replaced / name).exists())
                folder.rename(target)
                return f"{step.folder}: the plan has changed; the old set is now in replaced/{target.name}"
            models = _models(folder) if step.kind == "train" else []
            if lost := [model for model in models if not _is_usable(model, step)]:
                for model in lost:
                    shutil.rmtree(model)
                names = ", ".join(model.name for model in lost)
                return f"{step.folder}: retraining {names}: a new evaluation needs weights that were deleted"
        except OSError as error:
            raise storage_error(folder, error) from None
        return None

    def delete_weights(self, step: Step) -> None:
        """Delete the weights of evaluated models; their evaluations stay. StorageError."""
        try:
            for file in [file for model in _models(self.path / step.folder) for file in _weights(model)]:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(self.path / step.folder, error) from None


def _models(training: Path) -> list[Path]:
    """The finished models of a training."""
    return sorted(path for path in training.glob("seed-*") if path.is_dir())


def _weights(model: Path) -> list[Path]:
    return [file for pattern in _WEIGHTS for file in model.glob(pattern)]


def _is_evaluated(model: Path, step: Step) -> bool:
    return all((model / file).is_file() for file in step.evaluations)


def _is_usable(model: Path, step: Step) -> bool:
    """Whether a model has its weights, or needs them no more."""
    return bool(_weights(model)) or (model.is_dir() and _is_evaluated(model, step))
