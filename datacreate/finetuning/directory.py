"""What `train` leaves: a folder with a model per seed (record.py draws it)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from datacreate.errors import RunMismatch, TrainingError
from datacreate.files import replace_file, storage_error
from datacreate.finetuning.hardware import is_first_process
from datacreate.finetuning.record import Arm, Record, Selection
from datacreate.finetuning.settings import Settings
from datacreate.finetuning.task import Task
from datacreate.locking import LOCK_FILE, FolderLock

TRAINING = "training.json"
MODEL = "model.json"
TRIALS = ".trials"


class Training(Record):
    """The identity of a training: everything that decides its models, but for their seeds."""

    condition: Arm
    task: Task
    encoder: str
    encoder_sha256: str
    settings: Settings
    selection: Selection
    selection_digest: str | None  # of the human dev rows, where they choose
    verdicts_digest: str | None = None  # of the verifier's probabilities, where labels are soft

    def refuse_other(self, asked: Training, where: Path) -> None:
        """Raise RunMismatch, naming what differs, unless `asked` is the same training."""
        for name in Training.model_fields:
            had, wants = getattr(self, name), getattr(asked, name)
            if had != wants:
                pairs = [(had, wants)]
                if isinstance(had, Record) and isinstance(wants, Record):
                    pairs = [
                        (f"{key}={getattr(had, key)}", f"{key}={getattr(wants, key)}")
                        for key in type(had).model_fields
                        if getattr(had, key) != getattr(wants, key)
                    ]
                there, here = (str(value)[:80] for value in pairs[0])
                raise RunMismatch(
                    f"{where} holds another training ({name}: {there} there, {here} asked); "
                    "ask for the same, or take another --out"
                )


class Model(Record):
    """One trained model: the training it is of, and how it came out."""

    training: Training
    seed: int
    learning_rate: float
    step: int  # at which it was best
    steps: int  # that the schedule has
    selection_score: float | None  # centred, on the rows that chose; None if nothing was chosen
    trained_rows: int
    selection_rows: int
    longest: int  # tokens of the longest input it was trained with
    seconds: float
    versions: dict[str, str]


class TrainingDirectory:
    """The files of one training, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def model(self, seed: int) -> Path:
        return self.path / f"seed-{seed}"

    def trial(self, seed: int, learning_rate: float) -> Path:
        """Where a model is trained before it is known whether its learning rate is the best."""
        return self.path / TRIALS / f"seed-{seed}-lr-{learning_rate:g}"

    @contextmanager
    def locked(
        self, training: Training, notify: Callable[[str], None] = lambda _: None
    ) -> Iterator[FolderLock | None]:
        """Hold the folder for writing, and create it if needed; under torchrun the first process does.

        `notify` is called before a wait; call `check` of the lock before each write. Raises RunLocked,
        RunMismatch, TrainingError if it holds other files, StorageError.
        """
        if not is_first_process():
            yield None
            return
        lock = FolderLock(self.path, notify)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            there = {path.name for path in self.path.iterdir()} - {LOCK_FILE}
            if there - {f"{TRAINING}.part"} and TRAINING not in there:
                raise TrainingError(
                    f"{self.path} holds other files and no training; choose an empty or new --out"
                )
            lock.acquire()
        except (FileExistsError, NotADirectoryError):
            raise TrainingError(
                f"{self.path}: there is a file where a folder should be; choose another --out"
            ) from None
        except OSError as error:
            raise storage_error(self.path, error) from None
        try:
            path = self.path / TRAINING
            if path.is_file():
                read_training(self.path).refuse_other(training, self.path)
            else:
                replace_file(path, training.model_dump_json(indent=2) + "\n")
            yield lock
        finally:
            if not lock.is_lost:
                with suppress(OSError):
                    for folder in self.models():  # a kill may have left what a finished one came from
                        self._forget_trials(folder.name)
                    (self.path / TRIALS).rmdir()  # empty when all is done
            lock.release()

    def keep(self, trial: Path, model: Model) -> None:
        """Make the model of a trial the one of its seed, and forget the other trials of it."""
        try:
            replace_file(trial / "model" / MODEL, model.model_dump_json(indent=2) + "\n")
            (trial / "model").replace(self.model(model.seed))
        except OSError as error:
            raise storage_error(self.model(model.seed), error) from None
        self._forget_trials(self.model(model.seed).name)

    def _forget_trials(self, name: str) -> None:
        for trial in self.path.glob(f"{TRIALS}/{name}-lr-*"):
            shutil.rmtree(trial, ignore_errors=True)

    def models(self) -> list[Path]:
        """The finished models, by seed."""
        folders = [path for path in self.path.glob("seed-*") if (path / MODEL).is_file()]
        return sorted(folders, key=lambda path: int(path.name.removeprefix("seed-")))


def read_training(path: Path) -> Training:
    """training.json of a folder; TrainingError if it is not there or damaged."""
    try:
        return Training.model_validate_json((path / TRAINING).read_bytes())
    except FileNotFoundError:
        raise TrainingError(
            f"{path} holds no training (no {TRAINING} in it); give the --out of a `train`"
        ) from None
    except (OSError, ValidationError) as error:
        raise TrainingError(
            f"{path / TRAINING}: damaged ({_first(error)}); train again into a new --out"
        ) from None


def read_model(path: Path) -> Model:
    """model.json of a trained model; TrainingError if it is not there or damaged."""
    try:
        return Model.model_validate_json((path / MODEL).read_bytes())
    except FileNotFoundError:
        raise TrainingError(
            f"{path} holds no trained model (no {MODEL} in it); give the --out of a `train`"
        ) from None
    except (OSError, ValidationError) as error:
        raise TrainingError(f"{path / MODEL}: damaged ({_first(error)}); train this seed again") from None


def models_at(path: Path) -> list[Path]:
    """The models of a path: itself, or those of the training in it. TrainingError if there are none."""
    if (path / MODEL).is_file():
        return [path]
    if found := TrainingDirectory(path).models():
        return found
    raise TrainingError(f"{path}: no trained model in it; give the --out of a finished `datacreate train`")


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
