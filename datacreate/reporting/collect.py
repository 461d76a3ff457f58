"""Folders -> the evaluations and creation runs in them. What cannot be used is named, never guessed at."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern

from pydantic import ValidationError

from datacreate.errors import UsageError
from datacreate.finetuning.directory import TRAINING, TRIALS, TrainingDirectory
from datacreate.finetuning.record import (
    EVALUATION,
    PREDICTIONS,
    Evaluation,
    Prediction,
    read_evaluation,
    read_predictions,
)
from datacreate.reporting.tables import Skipped
from datacreate.settings import SettingsError


@dataclass(frozen=True, eq=False)
class Measured:
    """One model on one test set, row by row. `truth`, `answers` and `right` have shape (rows,)."""

    path: str
    evaluation: Evaluation
    truth: tuple[str, ...]
    answers: tuple[str | None, ...]
    right: tuple[bool, ...]


@dataclass(frozen=True)
class Found:
    """What lies below some folders."""

    measured: tuple[Measured, ...]
    runs: tuple[Path, ...]  # creation runs, finished or not
    skipped: tuple[Skipped, ...]


class Unusable(ValueError):
    """An evaluation that cannot be used; the message says why, in one line."""


def collect(paths: Sequence[Path]) -> Found:
    """Everything below `paths`, in the order of the folders' names.

    Raises UsageError if one of them is no folder. An evaluation of a model that was already found (a
    copy, or a path given twice) counts once.
    """
    measured: list[Measured] = []
    runs: list[Path] = []
    skipped: list[Skipped] = []
    for folder, files in _folders(paths, skipped):
        try:
            if EVALUATION in files:
                measured.append(_read(folder))
            elif PREDICTIONS in files:
                raise Unusable(
                    f"unfinished: no {EVALUATION} beside its predictions; evaluate the model again"
                )
            if "config.json" in files and "log.jsonl" in files:
                runs.append(folder)
            if TRAINING in files:
                _refuse_unfinished(folder)
        except Unusable as error:
            skipped.append(Skipped(spelled(folder), str(error)))
    return Found(tuple(_consistent(measured, skipped)), tuple(runs), tuple(skipped))


def spelled(path: Path) -> str:
    """A path as text, whatever bytes the file system has in it."""
    return os.fsencode(path).decode("utf-8", "replace")


def _folders(paths: Sequence[Path], skipped: list[Skipped]) -> Iterator[tuple[Path, set[str]]]:
    """Each folder once, with the names of its files; links are followed, but not in circles."""
    seen: set[str] = set()

    def unreadable(error: OSError) -> None:
        where = spelled(Path(error.filename or "."))
        skipped.append(Skipped(where, f"cannot be read ({error.strerror}); its content is not in the report"))

    for path in paths:
        if not path.is_dir():
            what = "not a folder" if path.exists() else "no such folder"
            raise UsageError(f"{path}: {what}; give folders that hold runs, trainings or evaluations")
        for name, folders, files in os.walk(path, onerror=unreadable, followlinks=True):
            real = os.path.realpath(name)
            folders.sort()
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            yield Path(name), set(files)


def _read(folder: Path) -> Measured:
    try:
        evaluation = read_evaluation(folder)
    except (OSError, ValueError, RecursionError) as error:
        raise Unusable(f"{EVALUATION} is damaged ({_reason(error)}); evaluate the model again") from None
    try:
        predictions = read_predictions(folder)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise Unusable(f"{PREDICTIONS} is damaged ({_reason(error)}); evaluate the model again") from None
    if flaw := _contradiction(evaluation, predictions):
        raise Unusable(f"{flaw}; evaluate the model again")
    return Measured(
        spelled(folder),
        evaluation,
        tuple(intern(one.label) for one in predictions),  # many models answer the same rows
        tuple(one.predicted and intern(one.predicted) for one in predictions),
        tuple(one.correct for one in predictions),
    )


def _contradiction(evaluation: Evaluation, predictions: Sequence[Prediction]) -> str | None:
    """Why the two files cannot belong together, or say what nothing can be; None if all is well."""
    scores = evaluation.scores
    if len(predictions) != scores.rows:
        return f"{len(predictions)} predictions for {scores.rows} test rows"
    if not predictions or scores.classes < 2:
        return f"{scores.rows} test rows with {scores.classes} answers to choose from: nothing to score"
    if [one.row for one in predictions] != list(range(len(predictions))):
        return "the predictions are not in the order of the test rows"
    figures = (
        scores.accuracy,
        scores.primary,
        scores.constant,
        *scores.accuracy_interval,
        *scores.primary_interval,
    )
    if not all(map(math.isfinite, figures)):
        return "a figure is no number"
    share = sum(one.correct for one in predictions) / len(predictions)
    if abs(share - scores.accuracy) > 1e-6:
        return f"accuracy is given as {scores.accuracy:.4f}, and the predictions say {share:.4f}"
    return None


def _consistent(measured: Sequence[Measured], skipped: list[Skipped]) -> Iterator[Measured]:
    """Each model on each test set once, and test sets of one digest with the same labels."""
    models: dict[tuple[object, ...], str] = {}
    tests: dict[str, Measured] = {}
    for one in measured:
        e = one.evaluation
        first = tests.setdefault(e.digest, one)
        if (first.truth, first.evaluation.head) != (one.truth, e.head):
            why = f"claims the same test rows as {first.path}, and has other labels; evaluate both again"
            skipped.append(Skipped(one.path, why))
            continue
        key = (e.digest, e.condition, e.encoder, e.encoder_sha256, e.settings, e.selection, e.seed)
        if key in models:
            skipped.append(
                Skipped(one.path, f"the same model on the same test rows as {models[key]}: counted once")
            )
            continue
        models[key] = one.path
        yield one


def _refuse_unfinished(folder: Path) -> None:
    """Raise Unusable if a training has seeds that are not done; those that are count all the same."""
    training = TrainingDirectory(folder)
    if any((folder / TRIALS).glob("seed-*")):
        done = f"{len(models)} of its seeds are done" if (models := training.models()) else "no seed is done"
        raise Unusable(f"unfinished training: {done}; run its `datacreate train` again")


def _reason(error: Exception) -> str:
    """An error in a few words, on one line."""
    if isinstance(error, ValidationError):
        flaw = SettingsError.first(error)
        return ": ".join(filter(None, (flaw.key, flaw.why)))[:160]
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
