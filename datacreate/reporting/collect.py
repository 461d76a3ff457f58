"""Folders -> the evaluations and creation runs in them. What cannot be used is listed with a reason."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern

from datacreate.errors import TrainingError, UsageError
from datacreate.finetuning.records import (
    EVALUATION,
    PREDICTIONS,
    TRAINING,
    TRIALS,
    Evaluation,
    TrainingDirectory,
    read_evaluation,
    read_predictions,
)
from datacreate.reporting.results import Skipped


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One model on one test set. `truth` and `correct` have shape (rows,)."""

    path: str
    evaluation: Evaluation
    truth: tuple[str, ...]
    correct: tuple[bool, ...]


@dataclass(frozen=True)
class Found:
    """What is below some folders."""

    evaluated: tuple[Evaluated, ...]
    runs: tuple[Path, ...]  # creation runs, finished or not
    skipped: tuple[Skipped, ...]


def collect(paths: Sequence[Path]) -> Found:
    """Everything below `paths`, sorted by folder name.

    A second evaluation of the same model on the same rows (a copy, or a path given twice) is skipped.
    Raises UsageError if a path is not a folder.
    """
    evaluated: list[Evaluated] = []
    runs: list[Path] = []
    skipped: list[Skipped] = []
    for folder, files in _folders(paths, skipped):
        try:
            if EVALUATION in files:
                evaluated.append(_read(folder))
            elif PREDICTIONS in files:
                raise TrainingError(f"unfinished: predictions but no {EVALUATION}; evaluate the model again")
            if "config.json" in files and "log.jsonl" in files:
                runs.append(folder)
            if TRAINING in files:
                _check_finished(folder)
        except TrainingError as error:
            skipped.append(Skipped(path_text(folder), str(error).removeprefix(f"{folder}{os.sep}")))
    return Found(tuple(_each_once(evaluated, skipped)), tuple(runs), tuple(skipped))


def path_text(path: Path) -> str:
    """A path as valid text, whatever bytes its name has."""
    return os.fsencode(path).decode("utf-8", "replace")


def _folders(paths: Sequence[Path], skipped: list[Skipped]) -> Iterator[tuple[Path, set[str]]]:
    """Each folder once with the names of its files. Symbolic links are followed; cycles end."""
    seen: set[str] = set()

    def unreadable(error: OSError) -> None:
        skipped.append(Skipped(path_text(Path(error.filename or ".")), f"cannot be read ({error.strerror})"))

    for path in paths:
        if not path.is_dir():
            what = "not a folder" if path.exists() else "no such folder"
            raise UsageError(f"{path}: {what}; name folders with runs, trainings or evaluations")
        for name, folders, files in os.walk(path, onerror=unreadable, followlinks=True):
            real = os.path.realpath(name)
            folders.sort()
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            yield Path(name), set(files)


def _read(folder: Path) -> Evaluated:
    """An evaluation; TrainingError if it is damaged or contradicts its predictions."""
    evaluation, predictions = read_evaluation(folder), read_predictions(folder)
    rows, accuracy = evaluation.scores.rows, evaluation.scores.accuracy
    correct = tuple(prediction.correct for prediction in predictions)
    problem = None
    if [prediction.row for prediction in predictions] != list(range(rows)):
        problem = f"{len(predictions)} predictions for {rows} test rows, or not in their order"
    elif abs(sum(correct) / rows - accuracy) > 1e-6:
        problem = f"{EVALUATION} has accuracy {accuracy:.4f}, its predictions {sum(correct) / rows:.4f}"
    if problem:
        raise TrainingError(f"{problem}; evaluate the model again")
    labels = tuple(intern(prediction.label) for prediction in predictions)  # many models answer the same rows
    return Evaluated(path_text(folder), evaluation, labels, correct)


def _each_once(evaluated: Sequence[Evaluated], skipped: list[Skipped]) -> Iterator[Evaluated]:
    """Each model on each test set once."""
    models: dict[tuple[object, ...], str] = {}
    for model in evaluated:
        e = model.evaluation
        key = (e.digest, e.condition, e.encoder, e.encoder_sha256, e.recipe, e.selection, e.seed)
        if key in models:
            skipped.append(Skipped(model.path, f"same model and test rows as {models[key]}: counted once"))
        else:
            models[key] = model.path
            yield model


def _check_finished(folder: Path) -> None:
    """Raise TrainingError if a training has unfinished seeds. Its finished seeds are used all the same."""
    if any((folder / TRIALS).glob("seed-*")):
        finished = len(TrainingDirectory(folder).models())
        raise TrainingError(
            f"unfinished training ({finished} seeds finished); run its `datacreate train` again"
        )
