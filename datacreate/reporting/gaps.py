"""Created rows beside human rows: the performance gap recovered (PGR), and learning curves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from datacreate.finetuning.statistics import combined_interval, ratio
from datacreate.reporting.cells import (
    HUMAN,
    CellOfModels,
    Evaluated,
    MeanGap,
    ResultCell,
    RowsToMatch,
    as_models,
    labels_of,
)

Curves = Mapping[str, Mapping[int, ResultCell]]
"""The cells on one test set, by condition and number of training rows."""


def with_gaps(rows: Sequence[CellOfModels]) -> list[CellOfModels]:
    """Cells of created rows with the performance gap recovered, against human rows of the same number."""
    human: dict[tuple[str, str, int | None], Sequence[Evaluated]] = {}
    for cell, models in sorted(rows, key=lambda row: row[0].sets):  # of several, that with most training sets
        if cell.condition == HUMAN:
            human[cell.test_digest, cell.trained_for, cell.count] = models
    result = []
    for cell, models in rows:
        if cell.count is not None and cell.condition.partition("+")[0] != HUMAN:
            others = human.get((cell.test_digest, cell.trained_for, cell.count))
            labels = labels_of(models[0])
            if not others:
                cell = replace(cell, pgr_missing="no human rows of this number")
            elif found := ratio(as_models(models), as_models(others), labels, cell.classes):
                pgr, (low, high) = found
                cell = replace(cell, pgr=pgr, pgr_low=low, pgr_high=high)
            else:
                cell = replace(cell, pgr_missing="human score not significantly above chance")
        result.append((cell, models))
    return result


def mean_gaps(cells: Sequence[ResultCell]) -> tuple[MeanGap, ...]:
    """The mean PGR of each condition that has one on two test sets or more.

    Models of one training are tested on several sets: the ends of these intervals are averaged, as if they depended
    on each other completely. Trainings for different benchmarks are independent.
    """
    sizes = Counter((cell.condition, cell.trained_for, cell.test_digest) for cell in cells if cell.full)
    groups: defaultdict[tuple[str, int | None], list[ResultCell]] = defaultdict(list)
    for cell in cells:
        if cell.pgr is not None or cell.pgr_missing:
            whole = cell.full and sizes[cell.condition, cell.trained_for, cell.test_digest] == 1
            groups[cell.condition, None if whole else cell.count].append(cell)
    result = []
    for (condition, _), group in groups.items():
        by_training: defaultdict[str, list[Any]] = defaultdict(list)
        for cell in group:
            if cell.pgr is not None:
                by_training[cell.trained_for].append((cell.pgr, cell.pgr_low, cell.pgr_high))
        if (tests := sum(map(len, by_training.values()))) > 1:
            means = [np.mean(ends, axis=0).tolist() for ends in by_training.values()]
            low, high = combined_interval([pgr for pgr, *_ in means], [(low, high) for _, low, high in means])
            counts = {cell.count for cell in group}
            mean = MeanGap(
                condition=condition,
                count=counts.pop() if len(counts) == 1 else None,
                tests=tests,
                missing=tuple(cell.test for cell in group if cell.pgr is None),
                pgr=sum(pgr for pgr, *_ in means) / len(means),
                pgr_low=low,
                pgr_high=high,
            )
            result.append(mean)
    return tuple(result)


def learning_curves(cells: Sequence[ResultCell]) -> list[Curves]:
    """The curves on each test set where a condition has several numbers of training rows.

    Mixes with human rows are left out. Of two cells of one number, that with more training sets counts.
    """
    found: defaultdict[tuple[str, str], dict[str, dict[int, ResultCell]]] = defaultdict(dict)
    for cell in cells:
        if cell.count is not None and not cell.condition.startswith(f"{HUMAN}+"):
            points = found[cell.test_digest, cell.trained_for].setdefault(cell.condition, {})
            points[cell.count] = max(points.get(cell.count, cell), cell, key=lambda each: each.sets)
    several = (curves for curves in found.values() if max(map(len, curves.values())) > 1)
    return [{name: dict(sorted(points.items())) for name, points in curves.items()} for curves in several]


def rows_to_match(cells: Sequence[ResultCell]) -> tuple[RowsToMatch, ...]:
    """For each condition, and each number of human rows whose score is significantly above chance."""
    return tuple(
        RowsToMatch(
            trained_for=human.trained_for,
            test=human.test,
            split=human.split,
            test_digest=human.test_digest,
            condition=condition,
            human_count=human_count,
            human_score=human.score,
            count=next((count for count, cell in points.items() if cell.score >= human.score), None),
            largest=max(points),
        )
        for curves in learning_curves(cells)
        for human_count, human in curves.get(HUMAN, {}).items()
        for condition, points in curves.items()
        if condition != HUMAN and human.score_low > 0
    )
