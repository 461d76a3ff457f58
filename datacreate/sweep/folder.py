"""The folder of a sweep: locks of cells, and the status and log of each step."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from datacreate.errors import SweepPlanError
from datacreate.files import refuse_links, replace_file, storage_error
from datacreate.locking import FolderLock, held_by, locked
from datacreate.messages import Notify, no_notify
from datacreate.settings import FrozenModel
from datacreate.sweep.cells import Step, SweepCell
from datacreate.sweep.plan import SweepPlan

_WEIGHTS = ("*.safetensors", "*.bin")


class Status(FrozenModel):
    """The last status of a step; `identity` as in `Step`."""

    state: Literal["started", "finished", "failed"]
    identity: tuple[str, ...]
    message: str | None = None  # the last line of a failed step


class SweepFolder:
    """The files of one sweep."""

    def __init__(self, path: Path, plan: SweepPlan) -> None:
        self.path = path
        self._plan, self._plan_path = plan, path / "plan.json"

    def check_plan(self) -> None:
        """Raise SweepPlanError if the folder belongs to a plan of another name."""
        try:
            name = SweepPlan.model_validate_json(self._plan_path.read_bytes()).name
        except (OSError, ValidationError):  # no plan yet, or one of another version
            return
        if name != self._plan.name:
            raise SweepPlanError(
                f"{self.path} is the folder of the plan {name}, not {self._plan.name}; use another --out"
            )

    def create(self) -> None:
        """Create the folder. StorageError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(self.path, error) from None

    @contextmanager
    def locked(self, cell: SweepCell, notify: Notify = no_notify) -> Iterator[FolderLock]:
        """Lock a cell, and store the plan; `notify` is called before a wait. RunLocked, StorageError."""
        folder = self._cell(cell)
        for place in (folder.relative_to(self.path), *(step.folder for step in cell.steps)):
            refuse_links(*(self.path / part for part in (place, *place.parents[:-1])))
        with locked(folder, notify) as lock:
            text = self._plan.model_dump_json(indent=2) + "\n"
            if not (self._plan_path.is_file() and self._plan_path.read_bytes() == text.encode()):
                replace_file(self._plan_path, text, folder)
            yield lock

    def is_running(self, cell: SweepCell) -> bool:
        """Whether a process has locked the cell; does not wait."""
        with suppress(OSError):  # not started, or not readable
            return held_by(self._cell(cell)) is not None
        return False

    def _cell(self, cell: SweepCell) -> Path:
        return self.path / "cells" / cell.name

    def log(self, cell: SweepCell, step: Step) -> Path:
        return self._cell(cell) / f"{step.name}.log"

    def status(self, cell: SweepCell, step: Step) -> Status | None:
        """The status of a step; None if it did not run with these arguments."""
        try:
            status = Status.model_validate_json(self.log(cell, step).with_suffix(".json").read_bytes())
        except (OSError, ValidationError):
            return None
        return status if status.identity == step.identity else None

    def write(self, cell: SweepCell, step: Step, status: Status) -> None:
        """Store the status of a step. StorageError."""
        replace_file(self.log(cell, step).with_suffix(".json"), status.model_dump_json(indent=2) + "\n")

    def is_finished(self, cell: SweepCell, step: Step) -> bool:
        """Whether a step finished and its results exist."""
        status, folder = self.status(cell, step), self.path / step.folder
        if status is None or status.state != "finished":
            return False
        is_complete = _is_usable if step.kind == "train" else _is_evaluated
        return folder.is_dir() and all(is_complete(folder / model, step) for model in step.models)

    def failure(self, cell: SweepCell, step: Step) -> str | None:
        """The message of the step if it failed."""
        status = self.status(cell, step)
        return status.message if status and status.state == "failed" else None

    def remove_unusable(self, step: Step) -> str | None:
        """Remove models that need another evaluation but have no weights; returns a message if there are any."""
        folder = self.path / step.folder
        models = _models(folder) if step.kind == "train" else []
        if not (lost := [model for model in models if not _is_usable(model, step)]):
            return None
        try:
            for model in lost:
                shutil.rmtree(model)
        except OSError as error:
            raise storage_error(folder, error) from None
        names = ", ".join(model.name for model in lost)
        return f"{step.folder}: retraining {names}: a new evaluation needs weights that were deleted"

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
