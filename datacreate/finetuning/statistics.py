"""Scores of a model on a test set, their intervals, and tests of whether two conditions differ.

The score is balanced accuracy (fixed labels) or accuracy (multiple choice), corrected for chance:
(x - 1/k) / (1 - 1/k), with k options, or labels that occur in the test set. A model that always
predicts one label scores 0; so does every model on rows with one label, where chance is always right.

Several models of one condition differ in formatting example, training rows and seed, and all answer the same
test rows. `_estimate` says how their mean scores are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datacreate.finetuning.records import Scores
from datacreate.intervals import HALF_WIDTH, IntervalEstimate, estimated_share

DEGENERATE_SHARE = 0.95  # a model with this share of identical predictions, or more, counts as degenerate
ALPHA = 0.05  # significance level; all intervals are 95 % intervals
POWER = 0.8  # probability with which the minimum detectable effect is found significant

_MAX_ROUNDING = 1e-9  # a standard error up to this counts as 0: it is a rounding error

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class TrainingOrigin(NamedTuple):
    """What a model was trained on and how. Its fields are the levels at which models differ, outermost first."""

    example: str  # formatting example; "" without one
    training_rows: str
    seed: str


_COVERED = ("examples, seeds, rows", "training sets, seeds, rows", "seeds, rows")  # by outermost level


def compute_scores(
    truth: Sequence[int],
    predictions: Sequence[int],
    names: Sequence[str],
    *,
    balanced: bool,
    unlearned: int = 0,
    truncated: int = 0,
) -> Scores:
    """Scores of one model on one test set.

    `truth` and `predictions`, of shape (rows,), index `names`. -1 in `predictions` is a row without a
    prediction, in `truth` a row without a right answer: both count as wrong. `balanced`: `names` are
    labels, of which those that occur in `truth` count, even if the model has not learned them; otherwise they are
    option positions. Raises ValueError if no row has a right answer.
    """
    from sklearn.metrics import f1_score

    present = sorted(set(truth) - {-1})
    if not present:
        raise ValueError("no row with a right answer to score")
    rows, label_counts, prediction_counts = len(truth), Counter(truth), Counter(predictions)
    correct_counts = Counter(label for label, prediction in zip(truth, predictions, strict=True) if label == prediction)
    correct = [correct_counts[label] for label in present]
    classes = len(present) if balanced else len(names)
    accuracy = share = mean_share([sum(correct)], [rows])
    if balanced:
        share = mean_share(correct, [label_counts[label] for label in present])
    return Scores(
        rows=rows,
        classes=classes,
        accuracy=accuracy.value,
        accuracy_interval=(accuracy.low, accuracy.high),
        balanced_accuracy=share.value if balanced else None,
        macro_f1=float(f1_score(truth, predictions, average="macro", labels=present, zero_division=0)),
        constant=max(label_counts[label] for label in present) / rows,
        score=chance_corrected(share.value, classes),
        score_interval=(chance_corrected(share.low, classes), chance_corrected(share.high, classes)),
        degenerate=max(prediction_counts[index] for index in range(len(names))) / rows >= DEGENERATE_SHARE,
        above_chance=share.low > 1 / classes,
        predicted={name: prediction_counts[index] for index, name in enumerate(names)},
        unanswered=prediction_counts[-1],
        unlearned=unlearned,
        truncated=truncated,
    )


def chance_corrected(share: float, classes: int) -> float:
    """A share of correct answers, rescaled so that chance is 0 and perfect is 1; 0 if there is one class."""
    return (share - 1 / classes) / (1 - 1 / classes) if classes > 1 else 0.0


def mean_share(correct: Sequence[int], rows: Sequence[int]) -> IntervalEstimate:
    """The mean of several shares `correct / rows`, which are those of different rows; an interval stays in [0, 1]."""
    mean = mean_estimate([estimated_share(*counts) for counts in zip(correct, rows, strict=True)])
    return replace(mean, low=max(0.0, mean.low), high=min(1.0, mean.high))


def mean_estimate(estimates: Sequence[IntervalEstimate]) -> IntervalEstimate:
    """The mean of independent values; its interval follows from theirs (Zou and Donner, 2008)."""
    values, lows, highs = np.transpose([astuple(estimate) for estimate in estimates])
    mean = np.mean(values)
    below = np.sqrt(((values - lows) ** 2).sum()) / len(values)
    above = np.sqrt(((highs - values) ** 2).sum()) / len(values)
    return IntervalEstimate(float(mean), float(mean - below), float(mean + above))


@dataclass(frozen=True)
class ConditionModels:
    """The models of one condition on one test set, at least one.

    The score of a model is the mean over labels of the share of rows it got right, corrected for chance if `classes`
    is given. `trained` is false for a model whose answers depend on no training: only the choice of test rows could
    change its score.
    """

    correct: npt.NDArray[np.bool_]  # which rows each model got right, (models, rows)
    origins: Sequence[TrainingOrigin]  # of each model, all different
    labels: Integers  # the number of each row's label, (rows,); -1 is none
    classes: int | None
    trained: bool = True

    @property
    def has_example(self) -> bool:
        """Whether the models were trained on rows that were created from a formatting example."""
        return bool(self.origins[0].example)

    @property
    def level(self) -> int:
        """The outermost level of `TrainingOrigin` at which the models differ; the seed if there is one model."""
        return next((level for level in (0, 1) if len({o[: level + 1] for o in self.origins}) > 1), 2)

    def units(self, level: int) -> tuple[list[tuple[str, ...]], Floats]:
        """The groups of models at a level, sorted, and the weight of each model in each, (groups, models).

        Seeds of one training set weigh the same, and so do training sets of one example.
        """
        groups = sorted({origin[: level + 1] for origin in self.origins})
        # The training sets of each example, and the seeds of each training set.
        children = Counter(part[:-1] for size in (2, 3) for part in {origin[:size] for origin in self.origins})
        weights = np.zeros((len(groups), len(self.origins)))
        for index, origin in enumerate(self.origins):
            averaged = prod(children[origin[:size]] for size in range(level + 1, 3))
            weights[groups.index(origin[: level + 1]), index] = 1 / averaged
        return groups, weights


@dataclass(frozen=True)
class ScoreEstimate:
    """A mean score, or the difference of two, with the standard error that its interval and p follow from."""

    value: float
    error: float  # standard error
    degrees_of_freedom: float  # of Student's t; infinite if models do not differ or there is one
    covers: str  # what the error includes: rows, and seeds and formatting examples where there are several

    @property
    def has_error(self) -> bool:
        """Whether other test rows or models could change the value, judged by these."""
        return self.error > _MAX_ROUNDING

    @property
    def interval(self) -> IntervalEstimate:
        half = self.error * self._quantile(1 - ALPHA / 2)
        return IntervalEstimate(self.value, self.value - half, self.value + half)

    @property
    def p(self) -> float:
        """The two-sided probability of a value at least as far from 0 if the true value is 0."""
        from scipy.stats import t

        return float(2 * t.sf(abs(self.value) / self.error, self.degrees_of_freedom))

    @property
    def minimum_detectable(self) -> float:
        """The smallest true value that is found significant at 5 % with a power of 0.8, approximately."""
        return self.error * (self._quantile(1 - ALPHA / 2) + self._quantile(POWER))

    def _quantile(self, probability: float) -> float:
        from scipy.stats import t

        return float(t.ppf(probability, self.degrees_of_freedom))


def mean_score(models: ConditionModels) -> ScoreEstimate:
    """The mean score over the seeds of a training set, then over training sets, then over examples.

    A few models may agree by chance, so its interval is at least as wide as the choice of test rows alone makes it.
    """
    scores, covariance = _scores(models.correct, models.labels, models.classes)
    _, weights = models.units(models.level)
    estimate = _estimate([_Term(weights, 1.0, 0.0)], scores, covariance, _COVERED[models.level])
    contrast = weights.mean(axis=0)
    rows_error = float(max(0.0, contrast @ covariance @ contrast)) ** 0.5
    rows_alone = replace(estimate, error=rows_error, degrees_of_freedom=np.inf)
    return max(estimate, rows_alone, key=lambda one: one.interval.high)


def difference(first: ConditionModels, second: ConditionModels) -> ScoreEstimate:
    """The mean score of the first condition less that of the second, on the same test rows.

    Conditions with the same formatting examples are compared example by example, others as independent
    samples. A condition with a single example (or seed) is assumed to vary as the other one does.
    """
    return _weighted_sums(first, second)(1.0, -1.0)


def ratio(first: ConditionModels, second: ConditionModels) -> IntervalEstimate | None:
    """The mean score of the first condition divided by that of the second, on the same test rows.

    The interval (Fieller, 1954) has every r for which the first score less r times the second does not differ from 0
    at 5 %, by the test of `difference`. None if the second score is not significantly above 0: then it has no ends.
    """
    from scipy.optimize import brentq

    weighted_sum = _weighted_sums(first, second)
    divisor = weighted_sum(0.0, 1.0).interval
    if divisor.low <= 0:
        return None
    value = weighted_sum(1.0, 0.0).value / divisor.value

    def distance_outside(ratio: float) -> float:
        """Above 0 for a ratio outside the interval, below 0 for one inside."""
        interval = weighted_sum(1.0, -ratio).interval
        return abs(interval.value) - (interval.high - interval.value)

    def end(step: float) -> float:
        """The end of the interval in the direction of `step`."""
        while distance_outside(value + step) <= 0:
            step *= 2
        return float(brentq(distance_outside, value, value + step, xtol=1e-6))

    return IntervalEstimate(value, end(-0.5), end(0.5))


def _weighted_sums(first: ConditionModels, second: ConditionModels) -> Callable[[float, float], ScoreEstimate]:
    """A function of two factors: the first mean score times its factor, plus the second times its own."""
    correct = np.vstack([first.correct, second.correct])
    scores, covariance = _scores(correct, first.labels, first.classes)
    level = min([models.level for models in (first, second) if models.has_example] or [first.level, second.level])
    first_units, first_weights = first.units(level if first.has_example else first.level)
    second_units, second_weights = second.units(level if second.has_example else second.level)
    # One column per model: those of the first condition, then those of the second.
    first_weights = np.pad(first_weights, ((0, 0), (0, len(second.origins))))
    second_weights = np.pad(second_weights, ((0, 0), (len(first.origins), 0)))
    is_paired = first_units == second_units and len(first_units) > 1
    one_varies_as_the_other = (first.trained and len(first_units) == 1) or (second.trained and len(second_units) == 1)

    def weighted_sum(first_factor: float, second_factor: float) -> ScoreEstimate:
        if is_paired:
            terms = [_Term(first_factor * first_weights + second_factor * second_weights, 1.0, 0.0)]
        else:
            terms = [
                _Term(first_weights, first_factor, second_factor * one_varies_as_the_other),
                _Term(second_weights, second_factor, first_factor * one_varies_as_the_other),
            ]
        estimate = _estimate(terms, scores, covariance, _COVERED[level])
        if estimate.has_error:
            return estimate
        return replace(estimate, error=_error_of_alike(first) * float(np.hypot(first_factor, second_factor)))

    return weighted_sum


class _Term(NamedTuple):
    """The mean of independent units, such as the models of each example, times a factor."""

    weights: Floats  # of each model in each unit, (units, models)
    factor: float
    single_factor: float  # of a mean of a single unit that is assumed to vary as these do, or 0


def _estimate(terms: Sequence[_Term], scores: Floats, covariance: Floats, covers: str) -> ScoreEstimate:
    """The sum of some means of units, each times its factor (Obuchowski and Rockette, 1995: readers of the same cases).

    With the scores s of the models and their covariance C over the choice of test rows, a term of n units with weights
    W (units, models) has the scores W s. In the sum c s, c adds up the factors times the mean rows of W.

        spread   = sum over terms of  a var(W s),   a = factor^2 / n + single_factor^2
        expected = sum over terms of  a (trace(W C W') - sum(W C W') / n) / (n - 1)
        variance = spread + max(0, c C c' - expected)
        degrees of freedom = variance^2 / sum over terms of (a var(W s))^2 / (n - 1)      (Hillis, 2007)

    `spread` is how the units differ, which the choice of test rows alone is `expected` to cause in part. The maximum is
    what they have in common because of that choice. A bootstrap over examples and rows aims at the same and has two
    errors: with three examples it underestimates how examples differ, and it counts the noise of single predictions
    at both levels.
    """
    contrast = np.sum([factor * weights.mean(axis=0) for weights, factor, _ in terms], axis=0)
    spread = expected = spread_squares = 0.0
    for weights, factor, single_factor in terms:
        units = len(weights)
        if units == 1:
            continue
        scale = factor**2 / units + single_factor**2
        by_units = (weights @ scores).var(ddof=1) * scale
        by_rows = weights @ covariance @ weights.T
        spread += by_units
        expected += (np.trace(by_rows) - by_rows.sum() / units) / (units - 1) * scale
        spread_squares += by_units**2 / (units - 1)
    variance = spread + max(0.0, contrast @ covariance @ contrast - expected)
    return ScoreEstimate(
        value=float(contrast @ scores),
        error=float(variance) ** 0.5,
        degrees_of_freedom=float(variance**2 / spread_squares) if spread_squares else np.inf,
        covers=covers if any(len(term.weights) > 1 for term in terms) else "rows",
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
    if classes == 1:
        return np.zeros_like(scores), np.zeros_like(covariance)
    return (scores - 1 / classes) / (1 - 1 / classes), covariance / (1 - 1 / classes) ** 2


def _error_of_alike(models: ConditionModels) -> float:
    """The standard error of a score if all rows of a label have the same outcome, from Wilson's intervals.

    No row changes the score then, and its variance over rows is 0. Other test rows may still differ.
    """
    rows = np.unique(models.labels[models.labels >= 0], return_counts=True)[1].tolist()
    if models.classes == 1:
        return 0.0
    score_range = 1 - 1 / models.classes if models.classes else 1
    return (1 - mean_share(rows, rows).low) / score_range / HALF_WIDTH


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values, corrected for their number (Holm, 1979)."""
    order = np.argsort(p_values, kind="stable")
    sorted_values = np.asarray(p_values)[order]
    corrected = np.empty(len(p_values))
    corrected[order] = np.maximum.accumulate(sorted_values * (len(p_values) - np.arange(len(p_values))))
    return [min(1.0, float(value)) for value in corrected]
