"""Intervals of a cell with several models: a bootstrap over formatting example, seed and row.

The levels are nested: formatting examples are drawn with replacement, then the sets of rows made from
each, then the training seeds of each set (Davison and Hinkley, 1997, section 3.8). Test rows are drawn
once for all models of a cell, since all of them answered the same. One formatting example, drawn from
one, always gives itself: the interval of such a cell does not know how examples differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from datacreate.reporting.tables import Interval

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

RESAMPLES = 2_000

Nest = int | Sequence["Nest"]
"""Places of models, grouped by where they come from: examples of sets of seeds."""


def nested_mean(nest: Nest, values: Sequence[float]) -> float:
    """The mean over each level in turn, the innermost first: each example counts the same."""
    if isinstance(nest, int):
        return values[nest]
    return sum(nested_mean(part, values) for part in nest) / len(nest)


def intervals(
    nest: Nest, right: Sequence[Sequence[bool]], truth: Sequence[str], seed: int = 0
) -> tuple[Interval, Interval]:
    """95 % percentile intervals of the nested mean of accuracy, and of balanced accuracy.

    `right`, of shape (models, rows), says what each model got right; `truth`, of shape (rows,), holds
    the labels whose recalls the balanced accuracy is the mean of.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    weights = _weights(nest, RESAMPLES, len(right), rng)
    correct, of_label, drawn = _patterns(np.asarray(right, dtype=bool), truth, rng)
    rows = len(truth)
    accuracy = drawn @ correct.T / rows  # (resamples, models)
    recalls, seen = np.zeros_like(accuracy), np.zeros((RESAMPLES, 1))
    for label in range(int(of_label.max()) + 1):
        of_this = drawn[:, of_label == label]
        total = of_this.sum(axis=1, keepdims=True)  # a resample may have no row of a rare label
        recalls += np.where(total > 0, of_this @ correct[:, of_label == label].T / np.maximum(1, total), 0)
        seen += total > 0
    return _percentiles((weights * accuracy).sum(axis=1)), _percentiles(
        (weights * recalls / seen).sum(axis=1)
    )


def _weights(nest: Nest, draws: int, models: int, rng: np.random.Generator) -> Array:
    """The weight of each model in each resample, of shape (draws, models); each row sums to 1."""
    import numpy as np

    weights = np.zeros((draws, models))
    if isinstance(nest, int):
        weights[:, nest] = 1
        return weights
    for slot in rng.integers(len(nest), size=(len(nest), draws)):
        for place, part in enumerate(nest):
            taken = slot == place
            weights[taken] += _weights(part, int(taken.sum()), models, rng) / len(nest)
    return weights


def _patterns(right: Array, truth: Sequence[str], rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Rows that are alike (same label, same models right) counted together, and drawn with replacement.

    Returns which models are right, (models, patterns), each pattern's label, (patterns,), and how often
    each was drawn, (RESAMPLES, patterns). Drawing rows and counting them is drawing from the counts.
    """
    import numpy as np

    labels = np.unique(np.asarray(truth, dtype=object).astype(str), return_inverse=True)[1]
    patterns, counts = np.unique(np.vstack([labels, right]), axis=1, return_counts=True)
    rows = right.shape[1]
    drawn = rng.multinomial(rows, counts / rows, size=RESAMPLES)
    return patterns[1:].astype(float), patterns[0], drawn.astype(float)


def _percentiles(values: Array) -> Interval:
    import numpy as np

    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
