"""The files of a training and of its evaluations. Reporting reads nothing else.

OUT/                              one `datacreate train`
  training.json                   TrainingSpec: rows, encoder, hyperparameters; a folder has only one
  .trials/                        unfinished models, one folder per seed and learning rate
  seed-1/                         one model
    config.json, model.safetensors, tokenizer.json, ...
    model.json                    TrainedModel: its seed, learning rate, best step and validation score
    evaluations/csqa-test/
      evaluation.json             Evaluation: the scores
      predictions.jsonl           one Prediction per test row, in the order of the split
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, BaseModel, Field, ValidationError

from datacreate.errors import RunMismatch, TrainingError, UsageError
from datacreate.files import TEMPORARY_PATTERN, replace_file, storage_error
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.formats.example import Json
from datacreate.formats.task_format import Head
from datacreate.locking import LOCK_FILE, FolderLock, locked
from datacreate.messages import Notify, no_notify
from datacreate.settings import FrozenModel, SettingsProblem

ModelSelection = Literal["held-out", "human", "file", "none"]
"""Which rows choose the best checkpoint: a tenth of the training rows, the human dev split, a file's, or none."""

PAPER_METHOD = " (paper)"  # suffix of a condition's name when its rows were created by `--recipe paper`
IMPROVED = "improved"  # a condition's name for rows that `datacreate improve` created
HUMAN, ZERO_SHOT = "human", "zero-shot"  # the names of conditions without created rows
MIXED = f"{HUMAN}+"  # prefix of the condition of a mixed set: human rows together with created ones

SOFT_LABELS = " (soft labels)"
"""Suffix of a condition's name when it was trained on the verifier's probabilities."""

TRAINING, MODEL, TRIALS = "training.json", "model.json", ".trials"
EVALUATION, PREDICTIONS = "evaluation.json", "predictions.jsonl"


class Record(FrozenModel, allow_inf_nan=False, populate_by_name=True, serialize_by_alias=True):
    """The content of a JSON file, or of a part of it; a field with an alias has that name in the file."""


class Condition(Record):
    """What a model was trained on. Models of one condition differ only in their training seed."""

    name: str  # human, human+tree, tree, tree (soft labels), ...; zero-shot is not trained
    benchmark: str | None  # that the rows are for, by its name in the registry
    count: int  # rows in total, validation rows included
    full: bool  # whether all rows of the sources were used, not a sample of --count or --human-count
    generator: str | None = None  # the model that wrote the created rows
    example: str | None = None  # id of the formatting example
    digest: str  # SHA-256 of the rows
    settings: tuple[str, ...] | None = None  # `RunSpec.compared_settings`; the digest decides

    def is_same(self, requested: Condition) -> bool:
        """Whether this stored condition is the requested one, even if an older version stored it.

        Those stored before December 2026 have no settings, and no hash of a file in the name.
        """
        names = (requested.name, re.sub(r" \([0-9a-f]{8}\)", "", requested.name))
        return any(self == requested.model_copy(update={"name": name, "settings": self.settings}) for name in names)


class Scores(Record, extra="ignore"):  # files from before December 2026 also have Matthews' coefficient
    """Scores of one model on one test set; shares are in [0, 1], intervals are 95 % over test rows."""

    rows: int = Field(ge=1)
    classes: int = Field(ge=1)  # labels that occur in the set, or options per question
    accuracy: float
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float | None  # mean recall over labels; None for multiple choice
    macro_f1: float
    constant: float  # accuracy of the best constant prediction (one label, or one option position)
    score: float  # chance-corrected balanced accuracy (labels) or accuracy (options): 0 chance, 1 perfect
    score_interval: tuple[float, float]
    degenerate: bool  # (nearly) all predictions are one label or option position
    above_chance: bool  # the interval of the score lies above 0
    predicted: dict[str, int]  # label (of the model or the set) or option position (0 is the first) -> rows
    unanswered: int = 0  # rows without a prediction or a right answer; they count as wrong
    unlearned: int = 0  # rows whose label the model has not learned; they count as wrong
    truncated: int = 0  # rows cut to the model's input length


class Evaluation(Record):
    """The scores of one model on one split of one benchmark."""

    condition: Condition
    encoder: str  # for zero-shot, the generator
    encoder_sha256: str
    # `Hyperparameters.description`, or ZERO_SHOT.
    hyperparameters: str = Field(validation_alias="recipe", serialization_alias="recipe")
    selection: ModelSelection
    seed: int  # of the training
    benchmark: str
    split: str
    head: Head
    digest: str  # SHA-256 of the test rows
    scores: Scores


class Prediction(Record):
    """The prediction for one test row. `label` and `predicted` are texts."""

    row: int  # from 0
    label: str
    predicted: str | None  # None: the row could not be encoded
    correct: bool
    scores: list[float] = Field(default_factory=list)  # a probability per option or label


class NameIndices:
    """Finds the index of the name that an answer spells: exactly, or but for case, outer spaces and `.0`.

    CSV files have texts such as `1.0`, where other files have numbers.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names: list[str] = []
        self._exact: dict[str, int] = {}
        self._folded: dict[str, int] = {}
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """Add a name; of equal ones the first is found."""
        self._exact.setdefault(name, len(self.names))
        self._folded.setdefault(self._fold(name), len(self.names))
        self.names.append(name)

    def find(self, answer: str) -> int | None:
        """The index of the name that the answer spells; None if there is none."""
        return self._exact.get(answer, self._folded.get(self._fold(answer)))

    @staticmethod
    def _fold(name: str) -> str:
        return re.sub(r"^([+-]?\d+)\.0+$", r"\1", name.casefold().strip())


_name_indices = cache(NameIndices)


class HeadSpec(Record):
    """The classification head of an encoder, which chooses one of several options, or one of fixed labels."""

    head: Head
    names: tuple[str, ...]  # labels in the order of the head's outputs, or option positions

    @property
    def is_multiple_choice(self) -> bool:
        return self.head == "multiple_choice"

    @property
    def classes(self) -> int:
        return len(self.names)

    def index(self, answer: str) -> int | None:
        """The index of the name that the answer spells (see `NameIndices`); None if there is none."""
        return _name_indices(self.names).find(answer)

    @property
    def description(self) -> str:
        """The head in words: `questions with 5 options`, or `the labels True, False`."""
        if self.is_multiple_choice:
            return f"questions with {self.classes} options"
        return f"the labels {', '.join(self.names)}"

    def is_same(self, other: HeadSpec) -> bool:
        """Whether the two are equal except for the order of labels."""
        return self.head == other.head and sorted(self.names) == sorted(other.names)

    def check_same(self, other: HeadSpec, name: str, other_name: str) -> None:
        """Raise UsageError, with these names, unless the two are equal except for the order of labels."""
        if not self.is_same(other):
            difference = f"{name} has {self.description}, {other_name} has {other.description}"
            raise UsageError(f"{difference}; give rows with the same labels or number of options")


class TrainingSpec(Record):
    """Everything that decides the models of a training, except their seeds."""

    condition: Condition
    head: HeadSpec = Field(validation_alias="task", serialization_alias="task")
    encoder: str
    encoder_sha256: str
    hyperparameters: Hyperparameters = Field(validation_alias="recipe", serialization_alias="recipe")
    selection: ModelSelection
    # Of the rows of the human dev split or the file, where they are used.
    validation_digest: str | None = Field(validation_alias=AliasChoices("validation_digest", "selection_digest"))
    probabilities_digest: str | None = None  # of the verifier's probabilities, where labels are soft
    formats: tuple[dict[str, Json], ...] = ()  # files of the rows' formats, with the inputs that are learned

    def check_same(self, other: TrainingSpec, folder: Path) -> None:
        """Raise RunMismatch, naming the first difference, unless `other` is the training that is stored in `folder`."""
        for name, stored in self:
            requested = getattr(other, name)
            if stored == requested or name == "formats":  # the digest of the rows has their texts
                continue
            if isinstance(stored, Condition) and stored.is_same(requested):
                continue
            if isinstance(stored, BaseModel):
                keys = [key for key, value in stored if value != getattr(requested, key)]
                # The default learning rate follows from other settings.
                key = next((key for key in keys if key != "learning_rates"), keys[0])
                stored, requested = (f"{key}={getattr(model, key)}" for model in (stored, requested))
            difference = f"{name}: {str(stored)[:80]} there, {str(requested)[:80]} requested"
            raise RunMismatch(
                f"{folder} holds another training ({difference}); repeat its settings, or choose another folder"
            )


class TrainedModel(Record):
    """The record of one trained model."""

    training: TrainingSpec
    seed: int
    learning_rate: float
    step: int  # the best one
    steps: int  # of the schedule
    # Chance-corrected, on the validation rows; None without them.
    validation_score: float | None = Field(validation_alias=AliasChoices("validation_score", "selection_score"))
    trained_rows: int
    validation_rows: int = Field(validation_alias=AliasChoices("validation_rows", "selection_rows"))
    max_length: int  # tokens
    seconds: float
    versions: dict[str, str]


class TrainingDirectory:
    """The files of one training, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def model(self, seed: int) -> Path:
        return self.path / f"seed-{seed}"

    def trial(self, seed: int, learning_rate: float) -> Path:
        """The folder in which a trial trains its model."""
        return self.path / TRIALS / f"seed-{seed}-lr-{learning_rate:g}"

    def models(self) -> list[Path]:
        """The finished models, by seed."""
        seeds = (path.parent.name.removeprefix("seed-") for path in self.path.glob(f"seed-*/{MODEL}"))
        return [self.model(seed) for seed in sorted(map(int, filter(str.isdecimal, seeds)))]

    def check(self, training: TrainingSpec) -> None:
        """Raise UsageError if the folder holds other files, RunMismatch if another training."""
        if (self.path / TRAINING).is_file():
            read_training(self.path).check_same(training, self.path)
        elif any(path.name != LOCK_FILE and not path.match(TEMPORARY_PATTERN) for path in self.path.glob("*")):
            raise UsageError(f"{self.path} holds other files, no training; choose an empty or new --out")

    @contextmanager
    def locked(self, training: TrainingSpec, notify: Notify = no_notify) -> Iterator[FolderLock]:
        """Lock the folder for writing in this block; it is created if needed, and its trials are removed at the end.

        Raises RunLocked if another process writes there, StorageError, and what `check` raises.
        """
        with locked(self.path, notify) as lock:
            self.check(training)
            if not (self.path / TRAINING).is_file():
                replace_file(self.path / TRAINING, training.model_dump_json(indent=2) + "\n")
            yield lock
            lock.check()
            shutil.rmtree(self.path / TRIALS, ignore_errors=True)

    def keep(self, model: TrainedModel) -> None:
        """Move the model of a trial to the folder of its seed, and remove all trials of the seed."""
        target = self.model(model.seed)
        try:
            (self.trial(model.seed, model.learning_rate) / "model").replace(target)
        except OSError as error:
            raise storage_error(target, error) from None
        for trial in self.path.glob(f"{TRIALS}/{target.name}-lr-*"):
            shutil.rmtree(trial, ignore_errors=True)


@contextmanager
def _reading(path: Path, remedy: str) -> Iterator[None]:
    """Raise TrainingError, which says what to do (`remedy`), if the file is missing or damaged."""
    try:
        yield
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    except ValidationError as error:
        problem = SettingsProblem.first(error)
        reason = ": ".join(filter(None, (problem.key, problem.why)))[:160]
        raise TrainingError(f"{path} is damaged ({reason}); {remedy}") from None


def read_training(path: Path) -> TrainingSpec:
    """training.json of a folder. Raises TrainingError if it is missing or damaged."""
    with _reading(file := path / TRAINING, "give the --out of a `train`, or train again into a new one"):
        return TrainingSpec.model_validate_json(file.read_bytes())


def read_model(path: Path) -> TrainedModel:
    """model.json of a trained model. Raises TrainingError if it is missing or damaged."""
    with _reading(file := path / MODEL, "give the --out of a `train`, or train this seed again"):
        return TrainedModel.model_validate_json(file.read_bytes())


def find_models(path: Path) -> list[Path]:
    """The path itself if it is a model, else the models of the training there. Raises UsageError if there are none."""
    models = [path] if (path / MODEL).is_file() else TrainingDirectory(path).models()
    if models:
        return models
    raise UsageError(f"{path}: no trained model here; give the --out of a finished `datacreate train`")


def read_evaluation(folder: Path) -> Evaluation:
    """evaluation.json of a folder. Raises TrainingError if it is missing or damaged."""
    with _reading(file := folder / EVALUATION, "evaluate the model again"):
        return Evaluation.model_validate_json(file.read_bytes())


def read_predictions(folder: Path) -> list[Prediction]:
    """predictions.jsonl of a folder, one per test row. Raises TrainingError if it is missing or damaged."""
    with _reading(file := folder / PREDICTIONS, "evaluate the model again"):
        return [Prediction.model_validate_json(line) for line in file.read_bytes().split(b"\n") if line]
