"""Collects the evaluations and runs below some folders into a Report. What cannot be used is listed with the reason."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from sys import intern
from typing import Any

import yaml

from datacreate.benchmarks import load_registry
from datacreate.errors import DatacreateError, RunError, TrainingError, UsageError
from datacreate.files import shipped
from datacreate.finetuning.records import (
    EVALUATION,
    HUMAN,
    PAPER_METHOD,
    PREDICTIONS,
    SOFT_LABELS,
    TRAINING,
    TRIALS,
    ModelSelection,
    NameIndices,
    TrainingDirectory,
    read_evaluation,
    read_predictions,
)
from datacreate.messages import Notify, no_notify
from datacreate.reporting.pgr import mean_pgrs, with_pgr
from datacreate.reporting.results import (
    ConditionResult,
    Distribution,
    EvaluationRows,
    Report,
    ResultTable,
    compare_results,
    make_condition_models,
    make_condition_result,
)
from datacreate.runs.directory import RunDirectory
from datacreate.runs.stats import RunSummary
from datacreate.selection.strategies import STRATEGIES

_Setup = tuple[str, str, str, ModelSelection]
"""Encoder, its SHA-256, hyperparameters, model selection: what all models of a table share."""

_MAX_ROUNDING = 1e-6  # of a stored accuracy


def build_report(paths: Sequence[Path], notify: Notify = no_notify) -> Report:
    """The report of all evaluations and runs below `paths`; each model counts once on the same test rows.

    Damaged ones are skipped and listed. Raises UsageError if a path is not a folder, RunError if there is
    nothing to report.
    """
    evaluated: dict[tuple[object, ...], EvaluationRows] = {}
    runs: dict[str, RunSummary] = {}
    skipped: dict[str, str] = {}
    for folder, files in _folders(paths, skipped):
        try:
            if EVALUATION in files:
                model = _read(folder)
                condition = model.evaluation.condition.model_copy(update={"settings": None})
                key = (model.evaluation.digest, condition, _setup(model), model.evaluation.seed)
                if key in evaluated:
                    skipped[str(folder)] = f"same model and test rows as {evaluated[key].path}: counted once"
                evaluated.setdefault(key, model)
            elif PREDICTIONS in files:
                skipped[str(folder)] = f"unfinished: predictions but no {EVALUATION}; evaluate the model again"
            if "config.json" in files and "log.jsonl" in files:
                runs[str(folder)] = RunDirectory(folder).summary()
            if TRAINING in files and any((folder / TRIALS).glob("seed-*")):  # its finished seeds are used
                seeds = len(TrainingDirectory(folder).models())
                skipped[str(folder)] = f"unfinished training (finished seeds: {seeds}); run its `train` again"
        except (DatacreateError, OSError) as error:
            skipped[str(folder)] = str(error).removeprefix(f"{folder}{os.sep}")
    notify(f"{len(evaluated)} evaluations, {len(runs)} runs")
    names = tuple(map(str, paths))
    if not evaluated and not runs:
        reason = "no evaluations and no runs; run `datacreate evaluate` first"
        if skipped:
            path, why = next(iter(skipped.items()))
            reason = f"nothing usable; {path}: {why}"
        raise RunError(f"{', '.join(names)}: {reason}")
    return Report(
        version=metadata.version("datacreate"),
        paths=names,
        evaluations=len(evaluated),
        tables=tuple(_tables(list(evaluated.values()))),
        runs=runs,
        skipped=skipped,
        paper_citation=_paper()["citation"],
    )


def _folders(paths: Sequence[Path], skipped: dict[str, str]) -> Iterator[tuple[Path, set[str]]]:
    """Each folder below the paths, once and sorted, with the names of its files. Symbolic links are followed."""
    seen: set[str] = set()

    def unreadable(error: OSError) -> None:
        skipped[str(error.filename)] = f"cannot be read ({error.strerror})"

    for path in paths:
        if not path.is_dir():
            problem = "not a folder" if path.exists() else "no such folder"
            raise UsageError(f"{path}: {problem}; name folders with runs, trainings or evaluations")
        for name, folders, files in os.walk(path, onerror=unreadable, followlinks=True):
            real = os.path.realpath(name)
            folders.sort()
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            yield Path(name), set(files)


def _read(folder: Path) -> EvaluationRows:
    """The evaluation in a folder. Raises TrainingError if it is damaged or contradicts its predictions."""
    evaluation, predictions = read_evaluation(folder), read_predictions(folder)
    rows, accuracy = evaluation.scores.rows, evaluation.scores.accuracy
    correct = tuple(prediction.correct for prediction in predictions)
    in_order = [prediction.row for prediction in predictions] == list(range(rows))
    if not in_order or abs(sum(correct) / rows - accuracy) > _MAX_ROUNDING:
        raise TrainingError(f"{EVALUATION} and {PREDICTIONS} contradict each other; evaluate the model again")
    labels = tuple(intern(prediction.label) for prediction in predictions)  # many models answer the same rows
    if evaluation.head != "multiple_choice":
        names = NameIndices(evaluation.scores.predicted)
        scored = {names.find(label) for label in set(labels) if label or "" in names.names}
        if None in scored or len(scored) != evaluation.scores.classes:
            raise TrainingError(
                "scored by an older version over other labels; remove this folder, and evaluate the model again"
            )
    return EvaluationRows(str(folder), evaluation, labels, correct)


def _tables(evaluated: Sequence[EvaluationRows]) -> Iterator[ResultTable]:
    """One table per setup, generator and distribution: in distribution, out of it, own test files.

    Conditions without a generator (human rows) are in the tables of every generator. Untrained models are
    next to the trained ones on the same test rows; a test set without trained models has a table of its own.
    """
    trained = [model for model in evaluated if model.is_trained]
    untrained = [model for model in evaluated if not model.is_trained]
    groups: defaultdict[tuple[Distribution, _Setup], list[EvaluationRows]] = defaultdict(list)
    for model in trained:
        distribution: Distribution = "in" if model.trained_for == model.evaluation.benchmark else "out"
        if model.evaluation.benchmark not in load_registry():
            distribution = "own"
        groups[distribution, _setup(model)].append(model)
    for (tested, setup), in_setup in sorted(groups.items(), key=lambda group: group[0]):
        generators = {model.evaluation.condition.generator for model in in_setup} - {None}
        for generator in sorted(generators, key=str) or [None]:
            models = [m for m in in_setup if m.evaluation.condition.generator in (None, generator)]
            tests = {model.evaluation.digest for model in models}
            models += [model for model in untrained if model.evaluation.digest in tests]
            yield _table(tested, setup, generator, models)
    with_trained = {model.evaluation.digest for model in trained}
    alone = [model for model in untrained if model.evaluation.digest not in with_trained]
    if alone:
        yield _table("untrained", ("-", "-", "-", "none"), None, alone)


def _setup(model: EvaluationRows) -> _Setup:
    evaluation = model.evaluation
    return evaluation.encoder, evaluation.encoder_sha256, evaluation.hyperparameters, evaluation.selection


def _table(
    distribution: Distribution, setup: _Setup, generator: str | None, evaluated: Sequence[EvaluationRows]
) -> ResultTable:
    """The results of the models, and their comparisons."""
    groups: defaultdict[tuple[Any, ...], list[EvaluationRows]] = defaultdict(list)
    for model in evaluated:
        evaluation, condition = model.evaluation, model.evaluation.condition
        key: tuple[Any, ...] = (evaluation.encoder, evaluation.encoder_sha256)
        if model.is_trained:
            key = (condition.name, condition.count, condition.full)
        groups[evaluation.digest, model.trained_for, *key].append(model)
    results = {}
    for models in groups.values():
        group = make_condition_models(models)
        results[make_condition_result(models, group, _paper_accuracy(models[0]))] = group
    results = dict(sorted(with_pgr(results).items(), key=lambda item: _order(item[0])))
    return ResultTable(distribution, *setup, generator, tuple(results), compare_results(results), mean_pgrs(results))


def _order(result: ConditionResult) -> tuple[Any, ...]:
    """The sort key of results.

    Test sets: as in the registry, then others by name. Conditions: zero-shot, human, the strategies, then others by
    name.
    """
    tests, conditions = list(load_registry()), ["-", HUMAN, *STRATEGIES]
    condition = _strategy(result.condition) if result.count is not None else "-"
    return (
        tests.index(result.test) if result.test in tests else len(tests),
        result.test,
        result.split != "test",
        result.test_digest,
        result.trained_for,
        conditions.index(condition) if condition in conditions else len(conditions),
        result.condition,
        -(result.count or 0),
    )


def _strategy(condition: str) -> str:
    """The strategy in the name of a condition, without the suffixes for `--recipe paper` and for soft labels."""
    return condition.removesuffix(SOFT_LABELS).removesuffix(PAPER_METHOD)


@cache
def _paper() -> dict[str, Any]:
    return dict(yaml.safe_load(shipped("data", "paper_results.yaml").read_text(encoding="utf-8")))


def _paper_accuracy(model: EvaluationRows) -> float | None:
    """The accuracy that the paper reports for the condition and the test set of a model; None if there is none."""
    evaluation, paper = model.evaluation, _paper()
    by_test = {(name, name): accuracies for name, accuracies in paper["in_distribution"].items()}
    by_test |= {(row["train"], row["test"]): row["accuracy"] for row in paper["out_of_distribution"]}
    condition, accuracies = evaluation.condition, by_test.get((model.trained_for, evaluation.benchmark))
    name = _strategy(condition.name)
    is_sample_of_human_rows = name == HUMAN and not condition.full
    if accuracies is None or name not in paper["conditions"] or evaluation.split != "test" or is_sample_of_human_rows:
        return None
    return round(float(accuracies[paper["conditions"].index(name)]) / 100, 6)
