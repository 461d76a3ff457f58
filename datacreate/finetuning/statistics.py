"""Scores of a model on a test set, their intervals, and tests of whether two conditions differ.

The score is balanced accuracy (fixed labels) or accuracy (multiple choice), corrected for chance:
(x - 1/k) / (1 - 1/k), with k options, or labels that occur in the test set. A model that always
predicts one label scores 0.

Several models of one condition differ in formatting example, training rows and seed, and all answer the same
test rows. The variance of their mean score, and of the difference of two conditions, has two parts: how the models
differ, and what they have in common because of the choice of test rows. This is the method of Obuchowski and
Rockette (1995) for several readers of the same cases, with the degrees of freedom of Hillis (2007). A bootstrap
over examples and rows aims at the same and has two errors: with three examples it underestimates how examples
differ, and it counts the noise of single predictions at both levels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datacreate.finetuning.records import Scores
from datacreate.runs.decisions import wilson_interval

DEGENERATE_SHARE = 0.95  # from this share of identical predictions on, a model counts as degenerate

ALPHA = 0.05

Interval = tuple[float, float]  # low and high end, 95 %

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

TrainingOrigin = tuple[str, str, str]
"""What a model was trained on and how: formatting example ("" without one), training rows, seed."""

_COVERED = ("examples, seeds, rows", "training sets, seeds, rows", "seeds, rows")


def compute_scores(
    truth: Sequence[int], answers: Sequence[int], names: Sequence[str], *, balanced: bool, truncated: int = 0
) -> Scores:
    """Scores of one model on one test set.

    `truth` and `answers`, of shape (rows,), index `names`. -1 in `answers` is a row without a
    prediction, in `truth` a row without a right answer: both count as wrong. `balanced`: `names` are
    labels, of which those that occur count; otherwise they are option positions. Raises ValueError if
    no row has a right answer.
    """
    from sklearn.metrics import f1_score, matthews_corrcoef

    present = sorted(set(truth) - {-1})
    if not present:
        raise ValueError("no row with a right answer to score")
    y, p = np.asarray(truth), np.asarray(answers)
    rows, counts, of_label = len(y), Counter(answers), Counter(truth)
    k = len(present) if balanced and len(present) > 1 else len(names)
    right = Counter(y[y == p].tolist())
    correct = sum(right[label] for label in present)
    recalls = [right[label] / of_label[label] for label in present]
    accuracy, accuracy_interval = correct / rows, mean_interval([correct], [rows])
    share, (low, high) = accuracy, accuracy_interval
    known = y >= 0
    several = len(set(y[known]) | set(p[known])) > 1  # else it is 0, and the library warns
    matthews = float(matthews_corrcoef(y[known], p[known])) if several else 0.0
    if balanced:
        share = sum(recalls) / len(recalls)
        low, high = mean_interval([right[label] for label in present], [of_label[label] for label in present])
    return Scores(
        rows=rows,
        classes=k,
        accuracy=accuracy,
        accuracy_interval=accuracy_interval,
        balanced_accuracy=share if balanced else None,
        macro_f1=float(f1_score(y, p, average="macro", labels=present, zero_division=0)),
        matthews=matthews if balanced else None,
        constant=max(of_label[label] for label in present) / rows,
        score=chance_corrected(share, k),
        score_interval=(chance_corrected(low, k), chance_corrected(high, k)),
        degenerate=max(counts[index] for index in range(len(names))) / rows >= DEGENERATE_SHARE,
        above_chance=low > 1 / k,
        predicted={name: counts[index] for index, name in enumerate(names)},
        unanswered=counts[-1],
        truncated=truncated,
    )


def chance_corrected(share: float, classes: int) -> float:
    """A share of correct answers, rescaled so that chance is 0 and perfect is 1."""
    return (share - 1 / classes) / (1 - 1 / classes)


def mean_interval(correct: Sequence[int], rows: Sequence[int]) -> Interval:
    """The interval of the mean of some shares `correct / rows`, each of rows of its own.

    Of one share it is Wilson's (1927).
    """
    shares = [right / number for right, number in zip(correct, rows, strict=True)]
    low, high = combined_interval(shares, list(map(wilson_interval, correct, rows)))
    return max(0.0, low), min(1.0, high)


def combined_interval(values: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """The interval of the mean of independent values from the interval of each (Zou and Donner, 2008)."""
    lows, highs = np.transpose(intervals)
    mean, below, above = np.mean(values), np.asarray(values) - lows, highs - np.asarray(values)
    return (
        float(mean - np.sqrt((below**2).sum()) / len(values)),
        float(mean + np.sqrt((above**2).sum()) / len(values)),
    )


@dataclass(frozen=True)
class ConditionModels:
    """The models of one condition on one test set, at least one.

    The score of a model is the mean over labels of the share of rows it got right, corrected for chance if `classes`
    is given. `trained` is false for a model whose answers depend on no training: nothing but the choice of test rows
    could change its score.
    """

    correct: npt.NDArray[np.bool_]  # which rows each model got right, (models, rows)
    origins: Sequence[TrainingOrigin]  # of each model, all different
    labels: Integers  # the number of each row's label, (rows,); -1 is none
    classes: int | None
    trained: bool = True

    @property
    def level(self) -> int:
        """The outermost level of `TrainingOrigin` at which the models differ; the seed if there is one model."""
        return next((level for level in (0, 1) if len({o[: level + 1] for o in self.origins}) > 1), 2)

    def units(self, level: int) -> tuple[list[tuple[str, ...]], Floats]:
        """The groups of models at a level, sorted, and the weight of each model in each, (groups, models).

        Seeds of one training set weigh the same, and so do training sets of one example.
        """
        keys = sorted({origin[: level + 1] for origin in self.origins})
        sets = Counter(example for example, _ in {origin[:2] for origin in self.origins})
        seeds = Counter(origin[:2] for origin in self.origins)
        weights = np.zeros((len(keys), len(self.origins)))
        for index, origin in enumerate(self.origins):
            models = (sets[origin[0]] * seeds[origin[:2]], seeds[origin[:2]], 1)[level]
            weights[keys.index(origin[: level + 1]), index] = 1 / models
        return keys, weights


@dataclass(frozen=True)
class Estimate:
    """A mean score, or the difference of two, with its uncertainty."""

    value: float
    error: float  # standard error
    degrees_of_freedom: float  # of Student's t; infinite if models do not differ or there is one
    covers: str  # what the error includes: rows, and seeds and formatting examples where there are several

    @property
    def interval(self) -> Interval:
        half = self.error * self._quantile(1 - ALPHA / 2)
        return self.value - half, self.value + half

    @property
    def p(self) -> float:
        """The two-sided probability of a value at least as far from 0 if the true value is 0."""
        from scipy.stats import t

        return float(2 * t.sf(abs(self.value) / self.error, self.degrees_of_freedom))

    @property
    def minimum_detectable(self) -> float:
        """The smallest true value that is found significant at 5 % with a power of 0.8, approximately."""
        return self.error * (self._quantile(1 - ALPHA / 2) + self._quantile(0.8))

    def _quantile(self, probability: float) -> float:
        from scipy.stats import t

        return float(t.ppf(probability, self.degrees_of_freedom))


def mean_score(models: ConditionModels) -> Estimate:
    """The mean score over the seeds of a training set, then over training sets, then over examples."""
    scores, covariance = _scores(models.correct, models.labels, models.classes)
    _, units = models.units(models.level)
    return _estimate([_Part(units, 1.0, 0.0)], scores, covariance, _COVERED[models.level])


def difference(first: ConditionModels, second: ConditionModels) -> Estimate:
    """The mean score of the first condition less that of the second, on the same test rows.

    Conditions with the same formatting examples are compared example by example, others as independent
    samples. A condition with a single example (or seed) is assumed to vary as the other one does.
    """
    return _contrasts(first, second)(1.0, -1.0)


def ratio(first: ConditionModels, second: ConditionModels) -> tuple[float, Interval] | None:
    """The mean score of the first condition divided by that of the second, on the same test rows.

    The interval (Fieller, 1954) has every r for which the first score less r times the second does not differ from 0
    at 5 %, by the test of `difference`. None if the second score is not significantly above 0: then it has no ends.
    """
    from scipy.optimize import brentq

    contrast = _contrasts(first, second)
    if (divisor := contrast(0.0, 1.0)).interval[0] <= 0:
        return None
    value = contrast(1.0, 0.0).value / divisor.value

    def outside(r: float) -> float:
        """Above 0 for an r outside the interval."""
        found = contrast(1.0, -r)
        return abs(found.value) - (found.interval[1] - found.value)

    def end(step: float) -> float:
        while outside(value + step) <= 0:
            step *= 2
        return float(brentq(outside, value, value + step, xtol=1e-6))

    return value, (end(-0.5), end(0.5))


def _contrasts(first: ConditionModels, second: ConditionModels) -> Callable[[float, float], Estimate]:
    """A function of two factors: the mean score of the first condition times one, plus the second's times the other."""
    scores, covariance = _scores(np.vstack([first.correct, second.correct]), first.labels, first.classes)
    with_example = [models.level for models in (first, second) if models.origins[0][0]]
    level = min(with_example or (first.level, second.level))
    (keys, ours), (other_keys, theirs) = (
        models.units(level if models.origins[0][0] else models.level) for models in (first, second)
    )
    ours, theirs = np.pad(ours, ((0, 0), (0, theirs.shape[1]))), np.pad(theirs, ((0, 0), (ours.shape[1], 0)))
    paired = keys == other_keys and len(keys) > 1
    single = (len(keys) == 1 and first.trained) or (len(other_keys) == 1 and second.trained)

    def estimate(factor: float, other: float) -> Estimate:
        parts = [_Part(ours, factor, other * single), _Part(theirs, other, factor * single)]
        if paired:
            parts = [_Part(factor * ours + other * theirs, 1.0, 0.0)]
        found = _estimate(parts, scores, covariance, _COVERED[level])
        if found.error > 1e-9:
            return found
        return replace(found, error=_error_of_alike(first) * float(np.hypot(factor, other)))

    return estimate


class _Part(NamedTuple):
    """The mean of independent units, times a factor."""

    units: Floats  # the weight of each model in each unit, (units, models)
    factor: float
    of_single: float  # factor of a mean of a single unit that is assumed to vary as these do, or 0


def _estimate(parts: Sequence[_Part], scores: Floats, covariance: Floats, covers: str) -> Estimate:
    """The sum of some means, each times its factor.

    Its variance: `spread`, how units differ, and `common`, what the choice of test rows adds to that.
    """
    contrast = np.sum([factor * units.mean(axis=0) for units, factor, _ in parts], axis=0)
    spread = expected = terms = 0.0
    for units, factor, of_single in parts:
        if (n := len(units)) > 1:
            of_units, by_rows = (units @ scores).var(ddof=1), units @ covariance @ units.T
            square = factor**2 / n + of_single**2
            spread += of_units * square
            expected += (np.trace(by_rows) - by_rows.sum() / n) / (n - 1) * square
            terms += (of_units * square) ** 2 / (n - 1)
    common = max(0.0, contrast @ covariance @ contrast - expected)
    return Estimate(
        value=float(contrast @ scores),
        error=float(spread + common) ** 0.5,
        degrees_of_freedom=float((spread + common) ** 2 / terms) if terms else np.inf,
        covers=covers if any(len(units) > 1 for units, _, _ in parts) else "rows",
    )


def _scores(correct: npt.NDArray[np.bool_], labels: Integers, classes: int | None) -> tuple[Floats, Floats]:
    """The score of each model, (models,), and their covariance over the choice of test rows, (models, models)."""
    present = np.unique(labels[labels >= 0])
    scores, covariance = np.zeros(len(correct)), np.zeros((len(correct), len(correct)))
    for label in present:
        right = correct[:, labels == label].astype(float)
        rows, deviation = right.shape[1], right - right.mean(axis=1, keepdims=True)
        scores += right.mean(axis=1) / len(present)
        covariance += deviation @ deviation.T / (rows * max(1, rows - 1) * len(present) ** 2)
    if classes is None:
        return scores, covariance
    return (scores - 1 / classes) / (1 - 1 / classes), covariance / (1 - 1 / classes) ** 2


def _error_of_alike(models: ConditionModels) -> float:
    """The standard error of a score if all rows of a label have the same outcome, from Wilson's intervals.

    No row changes the score then, and its variance over rows is 0. Other test rows may differ all the same.
    """
    rows = np.unique(models.labels[models.labels >= 0], return_counts=True)[1].tolist()
    low, _ = combined_interval([1.0] * len(rows), [wilson_interval(number, number) for number in rows])
    return (1 - low) / (1 - 1 / models.classes if models.classes else 1) / 1.96


def holm(p: Sequence[float]) -> list[float]:
    """p-values, corrected for their number (Holm, 1979)."""
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(np.asarray(p)[order] * (len(p) - np.arange(len(p))))
    return [min(1.0, float(value)) for value in corrected]
