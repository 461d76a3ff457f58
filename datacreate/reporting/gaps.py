"""Created rows beside human rows: the performance gap recovered (PGR), and learning curves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace

import numpy as np

from datacreate.finetuning.statistics import ConditionModels, combined_interval, ratio
from datacreate.reporting.results import HUMAN, ConditionResult, MeanGap, Measured, ResultWithModels

Curves = Mapping[str, Mapping[int, ConditionResult]]
"""The results on one test set, by condition and number of training rows."""


def with_gaps(rows: Sequence[ResultWithModels]) -> list[ResultWithModels]:
    """The results; those of created rows with the performance gap recovered, against as many human rows."""
    human: dict[tuple[str, str, int | None], ConditionModels] = {}
    for result, models in sorted(rows, key=lambda row: row[0].sets):  # that with most training sets counts
        if result.condition == HUMAN:
            human[result.test_digest, result.trained_for, result.count] = models

    def gap(result: ConditionResult, models: ConditionModels) -> Measured | str:
        if result.count is None or result.condition.partition("+")[0] == HUMAN:
            return ""
        others = human.get((result.test_digest, result.trained_for, result.count))
        if others is None:
            return "no human rows of this number"
        if (found := ratio(models, others)) is None:
            return "human score not significantly above chance"
        return Measured(found[0], *found[1])

    return [(replace(result, pgr=gap(result, models)), models) for result, models in rows]


def mean_gaps(results: Sequence[ConditionResult]) -> tuple[MeanGap, ...]:
    """The mean PGR of each condition that has one on two test sets or more.

    Models of one training are tested on several sets: the ends of these intervals are averaged, as if they depended
    on each other completely. Trainings for different benchmarks are independent.
    """
    sizes = Counter(
        (result.condition, result.trained_for, result.test_digest) for result in results if result.full
    )
    groups: defaultdict[tuple[str, int | None], list[ConditionResult]] = defaultdict(list)
    for result in results:
        if result.pgr:
            whole = result.full and sizes[result.condition, result.trained_for, result.test_digest] == 1
            groups[result.condition, None if whole else result.count].append(result)
    means = []
    for (condition, _), group in groups.items():
        by_training: defaultdict[str, list[tuple[float, ...]]] = defaultdict(list)
        for result in group:
            if isinstance(result.pgr, Measured):
                by_training[result.trained_for].append(astuple(result.pgr))
        if (tests := sum(map(len, by_training.values()))) > 1:
            values, lows, highs = np.transpose([np.mean(found, axis=0) for found in by_training.values()])
            interval = combined_interval(
                values.tolist(), list(zip(lows.tolist(), highs.tolist(), strict=True))
            )
            counts = {result.count for result in group}
            mean = MeanGap(
                condition=condition,
                count=counts.pop() if len(counts) == 1 else None,
                tests=tests,
                missing=tuple(result.test for result in group if isinstance(result.pgr, str)),
                pgr=Measured(float(values.mean()), *interval),
            )
            means.append(mean)
    return tuple(means)


def learning_curves(results: Sequence[ConditionResult]) -> list[Curves]:
    """The curves on each test set where a condition has several numbers of training rows.

    Mixes with human rows are left out. Of two results of one number, that with more training sets counts.
    """
    found: defaultdict[tuple[str, str], dict[str, dict[int, ConditionResult]]] = defaultdict(dict)
    for result in results:
        if result.count is not None and not result.condition.startswith(f"{HUMAN}+"):
            points = found[result.test_digest, result.trained_for].setdefault(result.condition, {})
            points[result.count] = max(points.get(result.count, result), result, key=lambda each: each.sets)
    several = (curves for curves in found.values() if max(map(len, curves.values())) > 1)
    return [{name: dict(sorted(points.items())) for name, points in curves.items()} for curves in several]


def rows_to_match(curves: Curves, condition: str) -> dict[int, int | None]:
    """Number of human rows -> the smallest number of created rows whose mean score is at least as high, or None.

    Numbers of human rows whose score is not significantly above chance are left out.
    """
    return {
        human_count: next(
            (count for count, result in curves[condition].items() if result.score.value >= human.score.value),
            None,
        )
        for human_count, human in curves.get(HUMAN, {}).items()
        if condition != HUMAN and human.score.low > 0
    }
