"""Scores of a model on a test set, and tests of whether two conditions differ.

The score is balanced accuracy (fixed labels) or accuracy (multiple choice), corrected for chance:
(x - 1/k) / (1 - 1/k). A model that always predicts the majority label scores 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from datacreate.finetuning.records import Scores

DEGENERATE_SHARE = 0.95
"""From this share of identical predictions on, a model counts as degenerate."""

ALPHA = 0.05
RESAMPLES = 2_000

DISCORDANT = 0.25
"""Assumed share of test rows that exactly one of two models answers correctly, for power calculations."""

Interval = tuple[float, float]
"""Low and high end."""


def compute_scores(
    truth: Sequence[int],
    answers: Sequence[int],
    names: Sequence[str],
    *,
    balanced: bool,
    truncated: int = 0,
) -> Scores:
    """Scores of one model on one test set.

    `truth` and `answers`, of shape (rows,), index `names`. -1 in `answers` is a row without a
    prediction, in `truth` a row without a right answer: both count as wrong. `balanced`: `names` are
    labels; otherwise they are option positions. Raises ValueError if no row has a right answer.
    """
    import numpy as np
    from sklearn.metrics import f1_score, matthews_corrcoef, recall_score

    y, p = np.asarray(truth), np.asarray(answers)
    present = sorted(set(truth) - {-1})
    if not present:
        raise ValueError("no row with a right answer to score")
    rows, k, counts = len(y), len(names), Counter(answers)
    correct = int(((y == p) & (y >= 0)).sum())
    accuracy, interval = correct / rows, wilson_interval(correct, rows)
    balanced_accuracy = matthews = matthews_interval = None
    low, high = interval
    above_chance = low > 1 / k
    if balanced:
        known = y >= 0
        samples = _resampled_confusions(y[known], p[known], k)
        balanced_accuracy = float(recall_score(y, p, average="macro", labels=present, zero_division=0))
        low, high = percentile_interval(_balanced_accuracies(samples))
        matthews = float(matthews_corrcoef(y[known], p[known]))
        matthews_interval = percentile_interval(_matthews_coefficients(samples))
        above_chance = matthews_interval[0] > 0
    return Scores(
        rows=rows,
        classes=k,
        accuracy=accuracy,
        accuracy_interval=interval,
        balanced_accuracy=balanced_accuracy,
        macro_f1=float(f1_score(y, p, average="macro", labels=present, zero_division=0)),
        matthews=matthews,
        matthews_interval=matthews_interval,
        constant=max(truth.count(place) for place in present) / rows,
        score=chance_corrected(accuracy if balanced_accuracy is None else balanced_accuracy, k),
        score_interval=(chance_corrected(low, k), chance_corrected(high, k)),
        degenerate=max(counts[place] for place in range(k)) / rows >= DEGENERATE_SHARE,
        above_chance=above_chance,
        predicted={name: counts[place] for place, name in enumerate(names)},
        unanswered=counts[-1],
        truncated=truncated,
    )


def chance_corrected(share: float, classes: int) -> float:
    """A share of correct answers, rescaled so that chance is 0 and perfect is 1."""
    return (share - 1 / classes) / (1 - 1 / classes)


def wilson_interval(correct: int, rows: int) -> Interval:
    """The 95 % interval of a share (Wilson, 1927)."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(correct, rows, alpha=ALPHA, method="wilson")
    return float(low), float(high)


def discordant_counts(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int]:
    """Rows that only the first, and rows that only the second, answers correctly."""
    only = Counter((a, b) for a, b in zip(first, second, strict=True) if a != b)
    return only[True, False], only[False, True]


def compare(discordant: Sequence[tuple[int, int]]) -> list[tuple[float, float]]:
    """McNemar's exact test of each pair of models or conditions, from its `discordant_counts`.

    Returns p, and p corrected for all pairs (Holm, 1979).
    """
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.multitest import multipletests

    if not discordant:
        return []
    p = [float(mcnemar([[0, b], [c, 0]], exact=True).pvalue) if b + c else 1.0 for b, c in discordant]
    holm = multipletests(p, alpha=ALPHA, method="holm")[1]
    return list(zip(p, map(float, holm), strict=True))


def minimum_detectable_effect(rows: int) -> float:
    """The smallest difference of two accuracies on the same rows that is detected with power 0.8 at 5 %.

    Normal approximation of McNemar's test: (z_0.975 + z_0.8) * sqrt(discordant share / rows).
    """
    from scipy.stats import norm

    return float((norm.ppf(1 - ALPHA / 2) + norm.ppf(0.8)) * (DISCORDANT / rows) ** 0.5)


def _resampled_confusions(y: Any, p: Any, k: int) -> Any:
    """Bootstrap samples of the confusion matrix, of shape (RESAMPLES, k, k + 1); last column: no prediction.

    Sampling cells with multinomial counts equals sampling rows with replacement.
    """
    import numpy as np

    table = np.zeros((k, k + 1), dtype=np.int64)
    np.add.at(table, (y, np.where(p < 0, k, p)), 1)
    rows = int(table.sum())
    samples = np.random.default_rng(0).multinomial(rows, table.ravel() / rows, size=RESAMPLES)
    return samples.reshape(RESAMPLES, k, k + 1)


def _balanced_accuracies(tables: Any) -> Any:
    """Mean recall over the labels that occur: (n, k, k + 1) -> (n,)."""
    import numpy as np

    of_label = tables.sum(axis=2)  # (n, k)
    right = np.diagonal(tables, axis1=1, axis2=2)  # (n, k)
    recall = np.divide(right, of_label, out=np.zeros(right.shape), where=of_label > 0)
    return recall.sum(axis=1) / np.maximum(1, (of_label > 0).sum(axis=1))


def _matthews_coefficients(tables: Any) -> Any:
    """Matthews coefficient for k labels (Gorodkin, 2004): (n, k, k + 1) -> (n,); 0 if undefined."""
    import numpy as np

    t = tables.sum(axis=2).astype(float)  # (n, k) rows per label
    p = tables.sum(axis=1).astype(float)  # (n, k + 1) predictions per label
    s = t.sum(axis=1)
    c = np.trace(tables, axis1=1, axis2=2).astype(float)
    numerator = c * s - (t * p[:, :-1]).sum(axis=1)
    denominator = np.sqrt((s**2 - (p**2).sum(axis=1)) * (s**2 - (t**2).sum(axis=1)))
    return np.divide(numerator, denominator, out=np.zeros(len(s)), where=denominator > 0)


def percentile_interval(values: Any) -> Interval:
    """The central 95 % of resampled values."""
    import numpy as np

    low, high = np.percentile(values, [100 * ALPHA / 2, 100 * (1 - ALPHA / 2)])
    return float(low), float(high)
