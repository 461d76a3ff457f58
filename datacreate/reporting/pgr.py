"""Compares created rows with human rows: the performance gap recovered (PGR), and learning curves.

The PGR is the score with created rows in percent of the score with as many human rows (after Burns et al., 2023). A
learning curve has the scores of one condition by number of training rows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, replace

import numpy as np

from datacreate.finetuning.records import HUMAN, MIXED
from datacreate.finetuning.statistics import ConditionModels, mean_estimate, ratio
from datacreate.intervals import IntervalEstimate
from datacreate.reporting.results import ConditionResult, MeanPGR, ResultModels

Curves = Mapping[str, Mapping[int, ConditionResult]]
"""The results on one test set, by condition and number of training rows."""


def with_pgr(results: ResultModels) -> ResultModels:
    """The same results; those of created rows with their PGR, against the result of as many human rows."""
    human: dict[tuple[str, str, int | None], ConditionModels] = {}
    for result in sorted(results, key=lambda result: result.training_sets):  # the last one, of most sets, counts
        if result.condition == HUMAN:
            human[result.test_digest, result.trained_for, result.count] = results[result]
    completed: dict[ConditionResult, ConditionModels] = {}
    for result, models in results.items():
        if result.count is not None and result.condition != HUMAN and not result.condition.startswith(MIXED):
            human_models = human.get((result.test_digest, result.trained_for, result.count))
            pgr: IntervalEstimate | str = "no human rows of this number"
            if human_models:
                pgr = ratio(models, human_models) or "human score not significantly above chance"
            result = replace(result, pgr=pgr)
        completed[result] = models
    return completed


def mean_pgrs(results: Collection[ConditionResult]) -> tuple[MeanPGR, ...]:
    """The mean PGR of each condition that has one on two test sets or more.

    Of two results on one test set, as where a set was extended, that with more training sets counts.
    """
    whole_sets = Counter(
        (result.condition, result.trained_for, result.test_digest) for result in results if result.has_all_rows
    )
    groups: defaultdict[tuple[str, int | None], dict[object, ConditionResult]] = defaultdict(dict)
    for result in results:
        if result.pgr:
            key = result.condition, result.trained_for, result.test_digest
            is_whole = result.has_all_rows and whole_sets[key] == 1
            group = groups[result.condition, None if is_whole else result.count]
            group[key] = max(group.get(key, result), result, key=lambda one: one.training_sets)
    means = [_mean_pgr(condition, list(group.values())) for (condition, _), group in groups.items()]
    return tuple(mean for mean in means if mean)


def _mean_pgr(condition: str, results: Sequence[ConditionResult]) -> MeanPGR | None:
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
    # The mean of these parts is that of all test sets, of which a training may have several.
    parts = [np.sum(list(map(astuple, own)), axis=0) * len(by_training) / tests for own in by_training.values()]
    counts = {result.count for result in results}
    return MeanPGR(
        condition=condition,
        count=counts.pop() if len(counts) == 1 else None,
        tests=tests,
        tests_without_pgr=tuple(result.test for result in results if isinstance(result.pgr, str)),
        pgr=mean_estimate([IntervalEstimate(*part.tolist()) for part in parts]),
    )


def make_learning_curves(results: Sequence[ConditionResult]) -> list[Curves]:
    """The curves on each test set where a condition has several numbers of training rows.

    Mixed sets are left out. Of two results of one number, that with more training sets counts.
    """
    by_test: defaultdict[tuple[str, str], dict[str, dict[int, ConditionResult]]] = defaultdict(dict)
    for result in results:
        if result.count is not None and not result.condition.startswith(MIXED):
            points = by_test[result.test_digest, result.trained_for].setdefault(result.condition, {})
            other = points.get(result.count, result)
            points[result.count] = max(other, result, key=lambda point: point.training_sets)
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
