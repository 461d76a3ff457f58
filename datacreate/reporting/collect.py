"""Folders -> the evaluations and creation runs in them. What cannot be used is listed with a reason."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern

from pydantic import ValidationError

from datacreate.errors import UsageError
from datacreate.finetuning.records import (
    EVALUATION,
    PREDICTIONS,
    TRAINING,
    TRIALS,
    Evaluation,
    Prediction,
    TrainingDirectory,
    read_evaluation,
    read_predictions,
)
from datacreate.reporting.results import Skipped
from datacreate.settings import SettingsError


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


class Unusable(ValueError):
    """An evaluation that cannot be used; the message is one line."""


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
                raise Unusable(f"unfinished: predictions but no {EVALUATION}; evaluate the model again")
            if "config.json" in files and "log.jsonl" in files:
                runs.append(folder)
            if TRAINING in files:
                _check_finished(folder)
        except Unusable as error:
            skipped.append(Skipped(path_text(folder), str(error)))
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
    name = EVALUATION
    try:
        evaluation = read_evaluation(folder)
        name = PREDICTIONS
        predictions = read_predictions(folder)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise Unusable(f"{name} is damaged ({_reason(error)}); evaluate the model again") from None
    if problem := _contradiction(evaluation, predictions):
        raise Unusable(f"{problem}; evaluate the model again")
    return Evaluated(
        path_text(folder),
        evaluation,
        tuple(intern(prediction.label) for prediction in predictions),  # many models answer the same rows
        tuple(prediction.correct for prediction in predictions),
    )


def _contradiction(evaluation: Evaluation, predictions: Sequence[Prediction]) -> str | None:
    """How scores and predictions contradict each other; None if they agree."""
    scores = evaluation.scores
    if len(predictions) != scores.rows:
        return f"{len(predictions)} predictions for {scores.rows} test rows"
    if [prediction.row for prediction in predictions] != list(range(len(predictions))):
        return "the predictions are not in the order of the test rows"
    share = sum(prediction.correct for prediction in predictions) / len(predictions)
    if abs(share - scores.accuracy) > 1e-6:
        return f"{EVALUATION} has accuracy {scores.accuracy:.4f}, its predictions {share:.4f}"
    return None


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
    """Raise Unusable if a training has unfinished seeds. Its finished seeds are used all the same."""
    if any((folder / TRIALS).glob("seed-*")):
        finished = len(TrainingDirectory(folder).models())
        raise Unusable(f"unfinished training ({finished} seeds finished); run its `datacreate train` again")


def _reason(error: Exception) -> str:
    """An error in a few words, on one line."""
    if isinstance(error, ValidationError):
        first = SettingsError.first(error)
        return ": ".join(filter(None, (first.key, first.why)))[:160]
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
