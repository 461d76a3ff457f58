#!/usr/bin/env python3
"""Simulated models of two conditions: false positives of tests, and coverage of intervals of a ratio and of a mean.

    scripts/perf/significance.py [--pairs 1000]

prints three Markdown tables, in percent: how often McNemar's test on majority votes, the percentiles of a nested
bootstrap (examples, seeds, rows) and `statistics.difference` find a difference between identical conditions at 5 %;
how often the 95 % intervals of a ratio of two scores, and of the mean of three such ratios, have the true one; and how
often that of the mean score of one condition has.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.stats import binomtest, norm

from datacreate.finetuning.statistics import (
    ConditionModels,
    ScoreEstimate,
    TrainingOrigin,
    difference,
    mean_estimate,
    mean_score,
    ratio,
)
from datacreate.intervals import IntervalEstimate

Shape = tuple[int, int]
"""Formatting examples, and training seeds of each."""


@dataclass(frozen=True)
class Pair:
    """Two conditions whose models answer the same yes/no questions. Standard deviations are in probits."""

    first: Shape
    second: Shape
    same_examples: bool = True
    rows: int = 200
    examples_sd: float = 0.0  # of both conditions with the same example
    condition_sd: float = 0.0  # of one condition with an example
    seeds_sd: float = 0.1
    rows_sd: float = 1.0  # of the difficulty of test rows; with 0 each model errs on other rows
    effect: float = 0.0  # of the first condition
    level: float = 0.4  # of the second condition

    @property
    def true_scores(self) -> list[float]:
        """The expected score of each condition."""
        variances = [self.examples_sd, self.condition_sd, self.seeds_sd, self.seeds_sd, self.rows_sd]
        scale = (1 + sum(sd**2 for sd in variances)) ** 0.5
        return [2 * float(norm.cdf(level / scale)) - 1 for level in (self.level + self.effect, self.level)]

    def simulated(self, rng: np.random.Generator) -> tuple[list[Any], Any]:
        """Which rows are right, of shape (examples, seeds, rows), for each condition; and the labels."""
        truth = rng.integers(0, 2, self.rows)
        difficulty = rng.normal(0, self.rows_sd, self.rows)
        shared = rng.normal(0, self.examples_sd, max(self.first[0], self.second[0]))
        right = []
        for (examples, seeds), effect in ((self.first, self.effect), (self.second, 0.0)):
            own = shared if self.same_examples else rng.normal(0, self.examples_sd, examples)
            own = own[:examples] + rng.normal(0, self.condition_sd, examples)
            level = self.level + effect + own[:, None] + rng.normal(0, self.seeds_sd, (examples, seeds))
            bias = rng.normal(0, self.seeds_sd, (examples, seeds, 1)) * np.where(truth == 1, 1, -1)
            right.append(rng.random(bias.shape) < norm.cdf(level[..., None] + difficulty + bias))
        return right, truth

    def compared(self, right: list[Any], truth: Any) -> ScoreEstimate:
        """`difference` of simulated conditions."""
        first, second = (self.models(correct, condition, truth) for condition, correct in enumerate(right))
        return difference(first, second)

    def models(self, correct: Any, condition: int, truth: Any) -> ConditionModels:
        examples, seeds = map(range, correct.shape[:2])
        prefix = "" if self.same_examples else f"{condition} "
        origins = [
            TrainingOrigin(f"{prefix}{example}", f"{condition} {example}", str(seed))
            for example in examples
            for seed in seeds
        ]
        return ConditionModels(correct.reshape(-1, self.rows), origins, truth, 2)


def significant(pair: Pair, pairs: int, seed: int = 0) -> float:
    """The share of simulated pairs in which `difference` is significant at 5 %."""
    rng = np.random.default_rng(seed)
    return float(np.mean([pair.compared(*pair.simulated(rng)).p < 0.05 for _ in range(pairs)]))


def mcnemar(right: list[Any]) -> bool:
    """Whether McNemar's exact test on the majority votes of both conditions is significant."""
    ours, theirs = (correct.reshape(-1, correct.shape[-1]).mean(axis=0) > 0.5 for correct in right)
    b, c = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return bool(b + c and binomtest(b, b + c).pvalue < 0.05)


def bootstrap(pair: Pair, right: list[Any], truth: Any, rng: np.random.Generator, draws: int = 500) -> list[Any]:
    """The scores of both conditions in a nested bootstrap, of shape (draws,)."""
    counts = rng.multinomial(len(truth), [1 / len(truth)] * len(truth), draws).astype(float)
    shared = rng.integers(pair.first[0], size=(draws, pair.first[0]))
    means = []
    for correct in right:
        flat = correct.reshape(-1, len(truth)).astype(float)
        parts = [(counts[:, truth == y], flat[:, truth == y]) for y in (0, 1)]
        scores = sum(drawn @ of_label.T / drawn.sum(axis=1, keepdims=True) for drawn, of_label in parts)
        scores = scores.reshape(draws, *correct.shape[:2])
        examples, seeds = scores.shape[1:]
        same = pair.same_examples and pair.first[0] == pair.second[0]
        chosen = shared if same else rng.integers(examples, size=(draws, examples))
        scores = np.take_along_axis(scores, chosen[..., None], 1)
        chosen = rng.integers(seeds, size=scores.shape)
        means.append(np.take_along_axis(scores, chosen, 2).mean(axis=(1, 2)))
    return [mean - 1 for mean in means]  # from the sum of two shares to the score


def outside(value: float, draws: Any) -> bool:
    """Whether the central 95 % of some draws exclude a value."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return bool(not low <= value <= high)


def coverage(pair: Pair, pairs: int, seed: int = 0, draws: int = 0) -> tuple[float, float, float, float]:
    """Of simulated pairs: the share without a ratio; of the others, the share whose interval has the true ratio: of a
    nested bootstrap (if it has `draws`), of `ratio`, and of the mean of three of these.
    """
    rng, (first, second) = np.random.default_rng(seed), pair.true_scores
    true, estimates, sampled = first / second, list[IntervalEstimate](), list[bool]()
    for _ in range(pairs):
        right, truth = pair.simulated(rng)
        estimate = ratio(pair.models(right[0], 0, truth), pair.models(right[1], 1, truth))
        if estimate is not None:
            estimates.append(estimate)
        if estimate is not None and draws:
            ours, theirs = bootstrap(pair, right, truth, rng, draws)
            sampled.append(not outside(true, ours / theirs))
    means = [mean_estimate(estimates[start : start + 3]) for start in range(0, len(estimates) - 2, 3)]
    one, three = (
        float(np.mean([interval.low <= true <= interval.high for interval in intervals]))
        for intervals in (estimates, means)
    )
    return 1 - len(estimates) / pairs, float(np.mean(sampled)) if sampled else 0.0, one, three


def mean_coverage(pair: Pair, samples: int, seed: int = 1) -> float:
    """The share of simulated first conditions whose interval of the mean score has the true one."""
    rng, true = np.random.default_rng(seed), pair.true_scores[0]
    covered = 0
    for _ in range(samples):
        right, truth = pair.simulated(rng)
        interval = mean_score(pair.models(right[0], 0, truth)).interval
        covered += interval.low <= true <= interval.high
    return covered / samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1000)
    number = parser.parse_args().pairs
    print_false_positives(number)
    print_coverage(number)
    print_mean_coverage(number)


def print_false_positives(number: int) -> None:
    print("| examples x seeds | SD of examples, rows | McNemar | bootstrap | difference |")
    print("|---|---|---|---|---|")
    shapes = [((3, 3), (3, 1)), ((3, 3), (3, 3)), ((3, 3), (1, 3)), ((1, 9), (1, 3)), ((5, 3), (5, 3))]
    for (first, second), (sd, rows_sd) in product(shapes, [(0.0, 1.0), (0.0, 0.0), (0.15, 1.0)]):
        if sd and first[0] == second[0] == 1:
            continue
        pair = Pair(first, second, examples_sd=sd, condition_sd=sd, rows_sd=rows_sd)
        rng = np.random.default_rng(1)
        found = []
        for _ in range(number):
            right, truth = pair.simulated(rng)
            p = pair.compared(right, truth).p
            found.append((mcnemar(right), outside(0, np.subtract(*bootstrap(pair, right, truth, rng))), p < 0.05))
        shares = " | ".join(f"{100 * share:.1f}" for share in np.mean(found, axis=0))
        shape = f"{first[0]} x {first[1]} against {second[0]} x {second[1]}"
        print(f"| {shape} | {sd}, {rows_sd} | {shares} |", flush=True)


def print_coverage(number: int) -> None:
    print("\n| examples x seeds | test rows | scores | SD of examples, rows | no ratio | bootstrap | ratio | mean |")
    print("|---|---|---|---|---|---|---|---|")
    for shape, rows, level, (sd, rows_sd) in product(
        [(3, 2), (3, 3)], (200, 600), (0.3, 0.9), [(0.0, 1.0), (0.15, 1.0), (0.15, 0.0)]
    ):
        varied: dict[str, Any] = {"examples_sd": sd, "condition_sd": sd, "rows_sd": rows_sd}
        pair = Pair(shape, shape, False, rows, level=level, effect=-level / 2, **varied)
        shares = " | ".join(f"{100 * share:.1f}" for share in coverage(pair, number, draws=500))
        scores = " / ".join(f"{100 * score:.0f}" for score in pair.true_scores)
        print(f"| {shape[0]} x {shape[1]} | {rows} | {scores} | {sd}, {rows_sd} | {shares} |", flush=True)


def print_mean_coverage(number: int) -> None:
    print("\n| examples x seeds | test rows | score | SD of examples, rows | mean |")
    print("|---|---|---|---|---|")
    for shape, rows, (sd, rows_sd) in product(
        [(1, 2), (1, 3), (3, 1), (3, 2)], (200, 1200), [(0.0, 0.0), (0.0, 1.0), (0.15, 1.0)]
    ):
        if sd and shape[0] == 1:
            continue
        pair = Pair(shape, shape, False, rows, level=0.9, examples_sd=sd, rows_sd=rows_sd)
        share = 100 * mean_coverage(pair, number)
        score = 100 * pair.true_scores[0]
        print(f"| {shape[0]} x {shape[1]} | {rows} | {score:.0f} | {sd}, {rows_sd} | {share:.1f} |", flush=True)


if __name__ == "__main__":
    main()
