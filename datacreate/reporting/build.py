"""Everything below some folders -> a Report. What cannot be used is listed with a reason."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from sys import intern
from typing import Any

from datacreate.benchmarks import load_registry
from datacreate.dataset_metrics import DatasetMetrics
from datacreate.errors import DatacreateError, RunError, TrainingError, UsageError
from datacreate.finetuning.records import (
    EVALUATION,
    PAPER_METHOD,
    PREDICTIONS,
    SOFT_LABELS,
    TRAINING,
    TRIALS,
    SelectionKind,
    TrainingDirectory,
    read_evaluation,
    read_predictions,
)
from datacreate.messages import Notify, no_notify
from datacreate.paths import shipped
from datacreate.reporting.gaps import mean_gaps, rows_to_match, with_gaps
from datacreate.reporting.results import (
    CONSTANT,
    HUMAN,
    OWN_ROWS,
    ZERO_SHOT,
    ConditionResult,
    CreatedSet,
    Distribution,
    EvaluationRows,
    Report,
    ResultTable,
    Skipped,
    compare_results,
    condition_models,
    condition_result,
    constant_result,
    is_trained,
    trained_for,
)
from datacreate.runs.directory import RunDirectory
from datacreate.selection.strategies import STRATEGIES

CONDITIONS = (CONSTANT, ZERO_SHOT, HUMAN, *STRATEGIES)
"""The order of conditions; mixes with human rows come next, then all others by name."""

SAMPLES = 5  # accepted examples that are shown of each run

_Setup = tuple[str, str, str, SelectionKind]
"""Encoder, its SHA-256, recipe, model selection: what all models of a table share."""


def build_report(paths: Sequence[Path], notify: Notify = no_notify) -> Report:
    """The report of all evaluations and runs below `paths`.

    Damaged ones are skipped and listed. Raises UsageError if a path is not a folder, RunError if there is
    nothing to report.
    """
    found = collect(paths)
    notify(f"{len(found.evaluated)} evaluations, {len(found.runs)} runs")
    created, skipped, metrics = [], [*found.skipped], DatasetMetrics()
    for path in found.runs:
        try:
            created.append(created_set(path, metrics))
        except (DatacreateError, OSError, ValueError, KeyError, TypeError) as error:
            unexpected = "" if isinstance(error, DatacreateError) else f"damaged, {type(error).__name__}: "
            skipped.append(Skipped(path_text(path), " ".join(f"{unexpected}{error}".split())[:300]))
    if not found.evaluated and not created:
        what = "no evaluations and no runs; run `datacreate evaluate` first"
        if skipped:
            more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
            what = f"nothing usable; {skipped[0].path}: {skipped[0].reason}{more}"
        raise RunError(f"{', '.join(map(path_text, paths))}: {what}")
    return Report(
        version=metadata.version("datacreate"),
        paths=tuple(map(path_text, paths)),
        evaluations=len(found.evaluated),
        tables=tuple(result_tables(found.evaluated)),
        created=tuple(created),
        skipped=tuple(skipped),
        paper_citation=_paper()["citation"],
    )


def result_tables(evaluated: Sequence[EvaluationRows]) -> list[ResultTable]:
    """One table per setup, generator and distribution, in distribution first.

    Conditions without a generator (human rows) are in the tables of every generator. Untrained models are
    beside the trained ones on the same test rows; a test set without trained models has a table of its own.
    """
    trained = [model for model in evaluated if is_trained(model)]
    untrained = [model for model in evaluated if not is_trained(model)]
    generators, tested = _generators(trained), {model.evaluation.digest for model in trained}
    groups: defaultdict[tuple[Distribution, _Setup], list[EvaluationRows]] = defaultdict(list)
    for model in trained:
        e = model.evaluation
        setup: _Setup = (e.encoder, e.encoder_sha256, e.recipe, e.selection)
        own_file = trained_for(model) == OWN_ROWS and e.benchmark not in load_registry()
        is_in = own_file or trained_for(model) == e.benchmark
        groups["in" if is_in else "out", setup].append(model)
    tables: list[ResultTable] = []
    for (distribution, setup), of_setup in sorted(groups.items(), key=lambda item: item[0]):
        names: list[str | None] = [*sorted(_generators(of_setup))]
        for generator in names or [None]:
            models = [m for m in of_setup if m.evaluation.condition.generator in (None, generator)]
            tests = {model.evaluation.digest for model in models}
            # The zero-shot answers of another generator belong to that generator's tables.
            others = generators - {generator}
            same = (m for m in untrained if m.evaluation.digest in tests)
            models += [m for m in same if m.evaluation.encoder not in others]
            tables.append(_table(distribution, setup, generator, models))
    if untested := [model for model in untrained if model.evaluation.digest not in tested]:
        tables.append(_table("untrained", ("-", "-", "-", "none"), None, untested))
    return tables


def _generators(evaluated: Sequence[EvaluationRows]) -> set[str]:
    return {name for model in evaluated if (name := model.evaluation.condition.generator) is not None}


def _table(
    distribution: Distribution, setup: _Setup, generator: str | None, evaluated: Sequence[EvaluationRows]
) -> ResultTable:
    groups: defaultdict[tuple[Any, ...], list[EvaluationRows]] = defaultdict(list)
    for model in evaluated:
        e, condition = model.evaluation, model.evaluation.condition
        trained = condition.name, condition.count, condition.full
        key = trained if is_trained(model) else (e.encoder, e.encoder_sha256)
        groups[e.digest, trained_for(model), *key].append(model)
    rows = with_gaps(
        [
            (condition_result(models, _paper_accuracy(models[0])), condition_models(models))
            for models in groups.values()
        ]
    )
    tests = {model.evaluation.digest: model for model in evaluated}
    results = [result for result, _ in rows] + list(map(constant_result, tests.values()))
    order = _order(results)
    cells = tuple(sorted(results, key=order))
    return ResultTable(
        distribution,
        *setup,
        generator=generator,
        cells=cells,
        comparisons=compare_results(sorted(rows, key=lambda row: order(row[0]))),
        gaps=mean_gaps(cells),
        matches=rows_to_match(cells),
    )


def _order(results: Sequence[ConditionResult]) -> Callable[[ConditionResult], tuple[Any, ...]]:
    """The sort key of results: test sets as in the paper and then by name, conditions as in CONDITIONS.

    An untrained result is placed with the first trained ones on the same test rows.
    """
    paper = list(_paper_rows())

    def key(result: ConditionResult) -> tuple[Any, ...]:
        trained = result.trained_for != "-"
        same = [result] if trained else [r for r in results if r.test_digest == result.test_digest]
        pairs = [(r.trained_for, r.test) for r in same if r.trained_for != "-"]
        pairs = pairs or [(result.test, result.test)]
        position = min((paper.index(pair) if pair in paper else len(paper), *pair) for pair in pairs)
        base = _strategy(result.condition) if trained or result.condition == CONSTANT else ZERO_SHOT
        mixed = base.startswith(f"{HUMAN}+")
        rank = CONDITIONS.index(base) if base in CONDITIONS else len(CONDITIONS) + (not mixed)
        split = result.split != "test", result.split
        return *position, *split, result.test_digest, rank, result.condition, -(result.count or 0)

    return key


def _strategy(condition: str) -> str:
    """The strategy of a condition, without its method and label type."""
    return condition.removesuffix(SOFT_LABELS).removesuffix(PAPER_METHOD)


@cache
def _paper() -> dict[str, Any]:
    """data/paper_results.yaml."""
    import yaml

    return dict(yaml.safe_load(shipped("data", "paper_results.yaml").read_text(encoding="utf-8")))


@cache
def _paper_rows() -> dict[tuple[str, str], Sequence[float]]:
    """(trained for, test set) -> accuracies in percent, one for each condition of the paper."""
    rows = {(name, name): accuracies for name, accuracies in _paper()["in_distribution"].items()}
    return rows | {(row["train"], row["test"]): row["accuracy"] for row in _paper()["out_of_distribution"]}


def _paper_accuracy(model: EvaluationRows) -> float | None:
    """The paper's accuracy for the model's condition and test set."""
    e, conditions = model.evaluation, _paper()["conditions"]
    name, accuracies = _strategy(e.condition.name), _paper_rows().get((trained_for(model), e.benchmark))
    sampled = name == HUMAN and not e.condition.full
    if accuracies is None or e.split != "test" or name not in conditions or sampled:
        return None
    position: int = conditions.index(name)
    return round(accuracies[position] / 100, 6)


def created_set(path: Path, metrics: DatasetMetrics) -> CreatedSet:
    """What a report shows of a run. Raises RunError or another error if it cannot be read."""
    directory = RunDirectory(path)
    summary = directory.summary()
    accepted = summary["accepted"]
    chosen = {index * accepted // SAMPLES for index in range(SAMPLES)}
    return CreatedSet(
        path=path_text(path),
        examples=directory.read_config().spec.examples[:SAMPLES],
        summary=summary,
        metrics=metrics.measure_run(directory) if accepted else None,
        samples=tuple(values for index, values in enumerate(directory.examples()) if index in chosen),
    )


@dataclass(frozen=True)
class Collected:
    """What is below some folders."""

    evaluated: tuple[EvaluationRows, ...]
    runs: tuple[Path, ...]  # finished or not
    skipped: tuple[Skipped, ...]


def collect(paths: Sequence[Path]) -> Collected:
    """Everything below `paths`, sorted by folder name.

    A second evaluation of the same model on the same rows (a copy, or a path given twice) is skipped.
    Raises UsageError if a path is not a folder.
    """
    evaluated: list[EvaluationRows] = []
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
    return Collected(tuple(_each_once(evaluated, skipped)), tuple(runs), tuple(skipped))


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


def _read(folder: Path) -> EvaluationRows:
    """An evaluation; TrainingError if it is damaged or contradicts its predictions."""
    evaluation, predictions = read_evaluation(folder), read_predictions(folder)
    rows, accuracy = evaluation.scores.rows, evaluation.scores.accuracy
    correct = tuple(prediction.correct for prediction in predictions)
    in_order = [prediction.row for prediction in predictions] == list(range(rows))
    if not in_order or abs(sum(correct) / rows - accuracy) > 1e-6:
        raise TrainingError(f"{EVALUATION} and {PREDICTIONS} contradict each other; evaluate the model again")
    labels = tuple(intern(prediction.label) for prediction in predictions)  # many models answer the same rows
    return EvaluationRows(path_text(folder), evaluation, labels, correct)


def _each_once(evaluated: Sequence[EvaluationRows], skipped: list[Skipped]) -> Iterator[EvaluationRows]:
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
        raise TrainingError(f"unfinished training (finished seeds: {finished}); run its `train` again")
