"""Everything below some folders -> a Report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from datacreate.dataset_metrics import DatasetMetrics
from datacreate.errors import RunError
from datacreate.finetuning.records import SOFT_LABELS, Selection
from datacreate.messages import Notify, no_notify
from datacreate.paths import shipped
from datacreate.reporting.cells import (
    CONSTANT,
    HUMAN,
    ZERO_SHOT,
    cell_of,
    compare_cells,
    constant_cell,
    is_trained,
    trained_for,
)
from datacreate.reporting.collect import Evaluated, Found, collect, path_text
from datacreate.reporting.results import CreatedSet, Distribution, Report, ResultCell, ResultTable, Skipped
from datacreate.runs.directory import RunDirectory
from datacreate.selection.strategies import STRATEGIES

CONDITIONS = (CONSTANT, ZERO_SHOT, HUMAN, *STRATEGIES)
"""The order of conditions; mixes with human rows come next, then all others by name."""

SAMPLES = 5
"""Accepted examples that are shown of each creation run."""

_PAPER_METHOD = " (paper)"
"""Ends the name of a condition whose rows were created by `--method paper`."""

_Setup = tuple[str, str, str, Selection]
"""Encoder, its SHA-256, recipe, model selection: what all models of a table share."""


def build_report(
    paths: Sequence[Path],
    *,
    metrics: DatasetMetrics | None = None,
    notify: Notify = no_notify,
) -> Report:
    """The report of all evaluations and creation runs below `paths`.

    Damaged ones are skipped and listed. Raises UsageError if a path is not a folder, RunError if there is
    nothing to report.
    """
    found = collect(paths)
    notify(f"{len(found.evaluated)} evaluations, {len(found.runs)} creation runs")
    created, damaged = _created_sets(found, metrics or DatasetMetrics())
    skipped = (*found.skipped, *damaged)
    if not found.evaluated and not created:
        raise RunError(_nothing_found(paths, skipped))
    return Report(
        version=metadata.version("datacreate"),
        paths=tuple(map(path_text, paths)),
        evaluations=len(found.evaluated),
        tables=tuple(result_tables(found.evaluated)),
        created=created,
        skipped=skipped,
        paper_citation=_paper()["citation"],
        paper_note=_paper()["swapped_note"],
    )


def result_tables(evaluated: Sequence[Evaluated]) -> list[ResultTable]:
    """One table per setup, generator and distribution, in distribution first.

    Conditions without a generator (human rows) are in the tables of every generator. Untrained models are
    beside the trained ones on the same test rows; a test set without trained models has a table of its own.
    """
    trained = [model for model in evaluated if is_trained(model)]
    untrained = [model for model in evaluated if not is_trained(model)]
    generators = _generators(trained)
    tables: list[ResultTable] = []
    for setup in sorted({_setup(model) for model in trained}):
        of_setup = [model for model in trained if _setup(model) == setup]
        names: list[str | None] = [*sorted(_generators(of_setup))]
        for generator in names or [None]:
            # The zero-shot answers of another generator belong to that generator's tables.
            untrained_here = [m for m in untrained if m.evaluation.encoder not in generators - {generator}]
            trained_here = [m for m in of_setup if m.evaluation.condition.generator in (None, generator)]
            for in_distribution in (True, False):
                models = [
                    model
                    for model in trained_here
                    if (trained_for(model) == model.evaluation.benchmark) == in_distribution
                ]
                if models:
                    tests = {model.evaluation.digest for model in models}
                    models += [model for model in untrained_here if model.evaluation.digest in tests]
                    tables.append(_table("in" if in_distribution else "out", setup, generator, models))
    tested = {model.evaluation.digest for model in trained}
    if untested := [model for model in untrained if model.evaluation.digest not in tested]:
        tables.append(_table("untrained", ("-", "-", "-", "none"), None, untested))
    return sorted(tables, key=lambda table: ("in", "out", "untrained").index(table.distribution))


def _generators(evaluated: Sequence[Evaluated]) -> set[str]:
    return {name for model in evaluated if (name := model.evaluation.condition.generator) is not None}


def _setup(model: Evaluated) -> _Setup:
    e = model.evaluation
    return e.encoder, e.encoder_sha256, e.recipe, e.selection


def _table(
    distribution: Distribution, setup: _Setup, generator: str | None, evaluated: Sequence[Evaluated]
) -> ResultTable:
    groups: defaultdict[tuple[Any, ...], list[Evaluated]] = defaultdict(list)
    for model in evaluated:
        e, condition = model.evaluation, model.evaluation.condition
        if condition.name != CONSTANT:
            key: tuple[Any, ...] = (condition.name, condition.count, condition.full)
            if not is_trained(model):
                key = (e.encoder, e.encoder_sha256)
            groups[e.digest, trained_for(model), *key].append(model)
    rows = [(cell_of(models, _paper_accuracy(models[0])), models) for models in groups.values()]
    tests = {model.evaluation.digest: model for model in evaluated}
    rows += [(constant_cell(model), []) for model in tests.values()]
    order = _order([cell for cell, _ in rows])
    rows.sort(key=lambda row: order(row[0]))
    return ResultTable(
        distribution,
        *setup,
        generator=generator,
        cells=tuple(cell for cell, _ in rows),
        comparisons=compare_cells([row for row in rows if row[1]]),
    )


def _order(cells: Sequence[ResultCell]) -> Callable[[ResultCell], tuple[Any, ...]]:
    """The sort key of cells: test sets as in the paper and then by name, conditions as in CONDITIONS.

    An untrained cell is placed with the first trained ones on the same test rows.
    """
    pairs = [(name, name) for name in _paper()["in_distribution"]]
    pairs += [(pair["train"], pair["test"]) for pair in _paper()["out_of_distribution"]]

    def key(cell: ResultCell) -> tuple[Any, ...]:
        trained = cell.trained_for != "-"
        same = [cell] if trained else [c for c in cells if c.test_digest == cell.test_digest]
        ranked = [(c.trained_for, c.test) for c in same if c.trained_for != "-"] or [(cell.test, cell.test)]
        place = min((pairs.index(pair) if pair in pairs else len(pairs), *pair) for pair in ranked)
        base = _strategy(cell.condition) if trained or cell.condition == CONSTANT else ZERO_SHOT
        mixed = base.startswith(f"{HUMAN}+")
        rank = CONDITIONS.index(base) if base in CONDITIONS else len(CONDITIONS) + (not mixed)
        count = -(cell.count or 0)
        return *place, cell.split != "test", cell.split, cell.test_digest, rank, cell.condition, count

    return key


def _strategy(condition: str) -> str:
    """The strategy of a condition, without its method and label type."""
    return condition.removesuffix(SOFT_LABELS).removesuffix(_PAPER_METHOD)


@cache
def _paper() -> dict[str, Any]:
    """data/paper_results.yaml."""
    import yaml

    return dict(yaml.safe_load(shipped("data", "paper_results.yaml").read_text(encoding="utf-8")))


def _paper_accuracy(model: Evaluated) -> tuple[float | None, bool]:
    """The paper's accuracy for a condition and test set, and whether the paper seems to print it swapped."""
    paper, e = _paper(), model.evaluation
    name, train = _strategy(e.condition.name), trained_for(model)
    if e.split != "test" or name not in paper["conditions"] or not (e.condition.full or name != HUMAN):
        return None, False
    column = paper["conditions"].index(name)
    if train == e.benchmark:
        row = paper["in_distribution"].get(train)
        return (round(row[column] / 100, 6), False) if row else (None, False)
    for pair in paper["out_of_distribution"]:
        if (pair["train"], pair["test"]) == (train, e.benchmark):
            return round(pair["accuracy"][column] / 100, 6), pair.get("printed_swapped", False)
    return None, False


def _created_sets(
    found: Found, metrics: DatasetMetrics
) -> tuple[tuple[CreatedSet, ...], tuple[Skipped, ...]]:
    """The creation runs, and those that cannot be read."""
    created: list[CreatedSet] = []
    skipped: list[Skipped] = []
    for path in found.runs:
        try:
            created.append(created_set(path, metrics))
        except RunError as error:
            skipped.append(Skipped(path_text(path), str(error)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"cannot be read as a creation run ({type(error).__name__}: {error})"
            skipped.append(Skipped(path_text(path), " ".join(reason.split())[:300]))
    return tuple(created), tuple(skipped)


def created_set(path: Path, metrics: DatasetMetrics) -> CreatedSet:
    """A creation run. Raises RunError for a damaged config.json or log, OSError if they cannot be read."""
    directory = RunDirectory(path)
    spec, summary = directory.read_config().spec, directory.summary()
    accepted = summary["accepted"]
    chosen = {index * accepted // SAMPLES for index in range(SAMPLES)}
    return CreatedSet(
        path=path_text(path),
        method=spec.method,
        seed=spec.seed,
        example=spec.example,
        summary=summary,
        metrics=metrics.run(directory) if accepted else None,
        samples=tuple(values for index, values in enumerate(directory.examples()) if index in chosen),
    )


def _nothing_found(paths: Sequence[Path], skipped: Sequence[Skipped]) -> str:
    where = ", ".join(map(path_text, paths))
    if not skipped:
        return f"{where}: no evaluations and no creation runs; run `datacreate evaluate` first"
    first, more = skipped[0], f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
    return f"{where}: nothing usable; {first.path}: {first.reason}{more}"
