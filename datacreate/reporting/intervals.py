"""95 % intervals of the mean of several models: bootstrap over formatting example, training seed, test row.

The levels are nested (Davison and Hinkley, 1997, section 3.8): formatting examples are drawn with
replacement, then the training sets made from each, then the training seeds of each set. Test rows are drawn
once for all models, because all models answered the same rows. With a single formatting example the interval
cannot include how examples differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from datacreate.reporting.results import Interval

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

RESAMPLES = 2_000

Nest = int | Sequence["Nest"]
"""Indices of models, grouped by origin: formatting examples of training sets of seeds."""


def nested_mean(nest: Nest, values: Sequence[float]) -> float:
    """The mean over each level in turn, the innermost first: each formatting example weighs the same."""
    if isinstance(nest, int):
        return values[nest]
    return sum(nested_mean(part, values) for part in nest) / len(nest)


def intervals(
    nest: Nest, correct: Sequence[Sequence[bool]], truth: Sequence[str], seed: int = 0
) -> tuple[Interval, Interval]:
    """Percentile intervals of the nested mean of accuracy and of balanced accuracy.

    `correct`, of shape (models, rows), says which rows each model got right; `truth`, of shape (rows,), holds
    the labels over whose recalls balanced accuracy is the mean.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    weights = _model_weights(nest, RESAMPLES, len(correct), rng)
    patterns, labels, counts = _resampled_patterns(np.asarray(correct, dtype=bool), truth, rng)
    accuracy = counts @ patterns.T / len(truth)  # (resamples, models)
    recalls, present = np.zeros_like(accuracy), np.zeros((RESAMPLES, 1))
    for label in range(int(labels.max()) + 1):
        of_label = counts[:, labels == label]
        total = of_label.sum(axis=1, keepdims=True)  # a resample may have no row of a rare label
        recalls += np.where(total > 0, of_label @ patterns[:, labels == label].T / np.maximum(1, total), 0)
        present += total > 0
    return (
        _percentiles((weights * accuracy).sum(axis=1)),
        _percentiles((weights * recalls / present).sum(axis=1)),
    )


def _model_weights(nest: Nest, draws: int, models: int, rng: np.random.Generator) -> Array:
    """The weight of each model in each resample, of shape (draws, models); each row sums to 1."""
    import numpy as np

    weights = np.zeros((draws, models))
    if isinstance(nest, int):
        weights[:, nest] = 1
        return weights
    for choice in rng.integers(len(nest), size=(len(nest), draws)):
        for index, part in enumerate(nest):
            chosen = choice == index
            weights[chosen] += _model_weights(part, int(chosen.sum()), models, rng) / len(nest)
    return weights


def _resampled_patterns(
    correct: Array, truth: Sequence[str], rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Test rows with the same label and the same models right, as one pattern, drawn with replacement.

    Returns which models are right, (models, patterns), the label of each pattern, (patterns,), and how often
    each was drawn, (RESAMPLES, patterns). Drawing counts of patterns is the same as drawing rows, and faster.
    """
    import numpy as np

    labels = np.unique(np.asarray(truth, dtype=object).astype(str), return_inverse=True)[1]
    patterns, counts = np.unique(np.vstack([labels, correct]), axis=1, return_counts=True)
    rows = correct.shape[1]
    drawn = rng.multinomial(rows, counts / rows, size=RESAMPLES)
    return patterns[1:].astype(float), patterns[0], drawn.astype(float)


def _percentiles(values: Array) -> Interval:
    import numpy as np

    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
