"""Created rows beside human rows: the performance gap recovered (PGR), and learning curves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from datacreate.finetuning.statistics import ConditionModels, IntervalEstimate, mean_estimate, ratio
from datacreate.reporting.results import HUMAN, ConditionResult, MeanGap, ResultWithModels

Curves = Mapping[str, Mapping[int, ConditionResult]]
"""The results on one test set, by condition and number of training rows."""

_TrainingSize = tuple[str, str, int | None]
"""Test rows, benchmark of the training rows, and their number."""


def with_gaps(results: Sequence[ResultWithModels]) -> list[ResultWithModels]:
    """The results; those of created rows with the performance gap recovered, against as many human rows."""
    human: dict[_TrainingSize, ConditionModels] = {}
    for result, models in sorted(results, key=lambda row: row.result.sets):  # that with most training sets counts
        if result.condition == HUMAN:
            human[_training_size(result)] = models
    return [ResultWithModels(replace(result, pgr=_gap(result, models, human)), models) for result, models in results]


def _training_size(result: ConditionResult) -> _TrainingSize:
    return result.test_digest, result.trained_for, result.count


def _gap(
    result: ConditionResult, models: ConditionModels, human: Mapping[_TrainingSize, ConditionModels]
) -> IntervalEstimate | str:
    """The PGR of a result, or why it has none; empty if it is not of created rows alone."""
    if result.count is None or result.condition.partition("+")[0] == HUMAN:
        return ""
    human_models = human.get(_training_size(result))
    if human_models is None:
        return "no human rows of this number"
    return ratio(models, human_models) or "human score not significantly above chance"


def mean_gaps(results: Sequence[ConditionResult]) -> tuple[MeanGap, ...]:
    """The mean PGR of each condition that has one on two test sets or more."""
    whole_sets = Counter(
        (result.condition, result.trained_for, result.test_digest) for result in results if result.full
    )
    groups: defaultdict[tuple[str, int | None], list[ConditionResult]] = defaultdict(list)
    for result in results:
        if result.pgr:
            key = result.condition, result.trained_for, result.test_digest
            is_whole = result.full and whole_sets[key] == 1
            groups[result.condition, None if is_whole else result.count].append(result)
    means = [_mean_gap(condition, group) for (condition, _), group in groups.items()]
    return tuple(mean for mean in means if mean)


def _mean_gap(condition: str, results: Sequence[ConditionResult]) -> MeanGap | None:
    """The mean PGR of some results of one condition; None with fewer than two test sets.

    Models of one training are tested on several sets: the ends of these intervals are averaged, as if they depended
    on each other completely. Trainings for different benchmarks are independent.
    """
    by_training: defaultdict[str, list[IntervalEstimate]] = defaultdict(list)
    for result in results:
        if isinstance(result.pgr, IntervalEstimate):
            by_training[result.trained_for].append(result.pgr)
    tests = sum(map(len, by_training.values()))
    if tests < 2:
        return None
    counts = {result.count for result in results}
    return MeanGap(
        condition=condition,
        count=counts.pop() if len(counts) == 1 else None,
        tests=tests,
        missing=tuple(result.test for result in results if isinstance(result.pgr, str)),
        pgr=mean_estimate(list(map(_mean_of_dependent, by_training.values()))),
    )


def _mean_of_dependent(estimates: Sequence[IntervalEstimate]) -> IntervalEstimate:
    """The mean of each value and of each end."""
    return IntervalEstimate(*np.mean([(e.value, *e.ends) for e in estimates], axis=0).tolist())


def learning_curves(results: Sequence[ConditionResult]) -> list[Curves]:
    """The curves on each test set where a condition has several numbers of training rows.

    Mixes with human rows are left out. Of two results of one number, that with more training sets counts.
    """
    by_test: defaultdict[tuple[str, str], dict[str, dict[int, ConditionResult]]] = defaultdict(dict)
    for result in results:
        if result.count is not None and not result.condition.startswith(f"{HUMAN}+"):
            points = by_test[result.test_digest, result.trained_for].setdefault(result.condition, {})
            other = points.get(result.count, result)
            points[result.count] = max(other, result, key=lambda point: point.sets)
    several = (curves for curves in by_test.values() if max(map(len, curves.values())) > 1)
    return [{name: dict(sorted(points.items())) for name, points in curves.items()} for curves in several]


def rows_to_match(curves: Curves, condition: str) -> dict[int, int | None]:
    """Number of human rows -> the smallest number of created rows whose mean score is at least as high, or None.

    Numbers of human rows whose score is not significantly above chance are left out.
    """
    if condition == HUMAN:
        return {}
    matches: dict[int, int | None] = {}
    for human_count, human in curves.get(HUMAN, {}).items():
        if human.score.low > 0:
            created = curves[condition].items()
            matching = (count for count, result in created if result.score.value >= human.score.value)
            matches[human_count] = next(matching, None)
    return matches
