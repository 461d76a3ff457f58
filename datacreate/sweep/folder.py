"""The folder of a sweep: locks of cells, the status and log of each step; and runs the process of a step."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Literal

from pydantic import ValidationError

from datacreate.child_process import supervised
from datacreate.errors import SWEEP_STEP
from datacreate.files import open_regular, refuse_links, replace_file, storage_error
from datacreate.finetuning.records import EVALUATION, MODEL
from datacreate.locking import FolderLock, is_held, locked
from datacreate.messages import Notify, no_notify
from datacreate.settings import FrozenModel
from datacreate.sweep.cells import Step, SweepCell

POLL_SECONDS = 0.2

_WEIGHTS = ("*.safetensors", "*.bin")
_STEP_OPTIONS = tuple(f"DATACREATE_{command}_" for command in ("CREATE", "IMPROVE", "TRAIN", "EVALUATE"))
"""Environment variables that steps do not get: the plan decides their options."""

_GRACE_SECONDS = 600.0  # after SIGTERM: training writes a checkpoint first
_TAIL_BYTES, _MAX_LINE = 8192, 500


State = Literal["started", "finished", "failed"]


class Status(FrozenModel):
    """The last status of a step; `identity` as in `Step`."""

    state: State
    identity: tuple[str, ...]
    message: str | None = None  # the last line of a failed step, and only of that


class SweepFolder:
    """The files of one sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def locked(self, cell: SweepCell, notify: Notify = no_notify) -> AbstractContextManager[FolderLock]:
        """Lock a cell; `notify` is called before a wait. Raises RunLocked, StorageError."""
        for folder in (PurePath("cells", cell.name), *(step.folder for step in cell.steps)):
            refuse_links(*(self.path / part for part in (folder, *folder.parents[:-1])))
        return locked(self.path / "cells" / cell.name, notify)

    def is_running(self, cell: SweepCell) -> bool:
        """Whether a process has locked the cell; does not wait."""
        with suppress(OSError):  # not started, or not readable
            return is_held(self.path / "cells" / cell.name)
        return False

    def log(self, step: Step) -> Path:
        return self.path / "cells" / step.cell / f"{step.name}.log"

    def status(self, step: Step) -> Status | None:
        """The status of a step; None if it did not run with these arguments."""
        try:
            status = Status.model_validate_json(self.log(step).with_suffix(".json").read_bytes())
        except (OSError, ValidationError):
            return None
        return status if status.identity == step.identity else None

    def write(self, step: Step, state: State, message: str | None = None) -> None:
        """Store the status of a step. Raises StorageError."""
        status = Status(state=state, identity=step.identity, message=message)
        replace_file(self.log(step).with_suffix(".json"), status.model_dump_json(indent=2) + "\n")

    def is_finished(self, step: Step) -> bool:
        """Whether a step finished and the folder of its results exists."""
        status = self.status(step)
        return status is not None and status.state == "finished" and (self.path / step.folder).is_dir()

    def lacks_weights(self, step: Step) -> bool:
        """Whether weights that an evaluation needs were deleted: those of a model that a test set is new for."""
        folder = self.path / step.folder
        tests = [name for flag, name in pairwise(step.command) if flag == "--benchmark"]
        return any(
            not (model.parent / "evaluations" / f"{test}-test" / EVALUATION).is_file()
            for model in folder.glob(f"seed-*/{MODEL}")
            if not any(file for pattern in _WEIGHTS for file in model.parent.glob(pattern))
            for test in tests
        )

    def delete_weights(self, step: Step) -> None:
        """Delete the weights of evaluated models; their evaluations stay. Raises StorageError."""
        folder = self.path / step.folder
        try:
            for file in [file for pattern in _WEIGHTS for file in folder.glob(f"seed-*/{pattern}")]:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from None


def run_process(
    command: Sequence[str], log: Path, poll: Callable[[str], bool], environment: Mapping[str, str]
) -> tuple[int, str]:
    """Run a command, its output appended to `log`; returns its exit code and its last line.

    The exit code is negative for a signal. `poll` gets the last line several times a second; if it returns True,
    the command is stopped. `environment` is added to that of this process. Raises StorageError if the log cannot be
    written.
    """
    try:
        file = os.fdopen(open_regular(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")
        file.write(f"$ {shlex.join(command)}\n".encode(errors="replace"))
        file.flush()
    except OSError as error:
        raise storage_error(log, error) from None
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(_STEP_OPTIONS)}
    with file:
        start = file.tell()
        process = subprocess.Popen(
            supervised(command, _GRACE_SECONDS),
            env={**inherited, SWEEP_STEP: "1", **environment},
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            process_group=0,  # so that Ctrl-C reaches the step once, through this process, and not twice
        )
        stopped = False
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS)
                if poll(last_line(log, start)) and not stopped:
                    process.terminate()
                    stopped = True
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    code = process.returncode
    if line := last_line(log, start):
        return code, line
    if code < 0:
        return code, f"killed by signal {-code}{'; out of memory?' if code == -signal.SIGKILL else ''}"
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
