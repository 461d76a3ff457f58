"""95 % intervals of the mean of several models: bootstrap over formatting example, training seed, test row.

The levels are nested (Davison and Hinkley, 1997, section 3.8): formatting examples are drawn with
replacement, then the training sets made from each, then the training seeds of each set. Test rows are drawn
once for all models, because all models answered the same rows. With a single formatting example the interval
cannot include how examples differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from datacreate.finetuning.statistics import RESAMPLES, Interval, percentile_interval

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

ModelGroups = int | Sequence["ModelGroups"]
"""Indices of models in nested groups: formatting example > training set > seed."""


def nested_mean(groups: ModelGroups, values: Sequence[float]) -> float:
    """The mean over each level in turn, the innermost first: each formatting example weighs the same."""
    if isinstance(groups, int):
        return values[groups]
    return sum(nested_mean(part, values) for part in groups) / len(groups)


def intervals(
    groups: ModelGroups, correct: Sequence[Sequence[bool]], truth: Sequence[str], seed: int = 0
) -> tuple[Interval, Interval]:
    """Percentile intervals of the nested mean of accuracy and of balanced accuracy.

    `correct`, of shape (models, rows), says which rows each model got right; `truth`, of shape (rows,), holds
    the labels over whose recalls balanced accuracy is the mean.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    weights = _model_weights(groups, RESAMPLES, len(correct), rng)
    patterns, labels, counts = _resampled_patterns(np.asarray(correct, dtype=bool), truth, rng)
    accuracy = counts @ patterns.T / len(truth)  # (resamples, models)
    recalls, present = np.zeros_like(accuracy), np.zeros((RESAMPLES, 1))
    for label in range(int(labels.max()) + 1):
        of_label = counts[:, labels == label]
        total = of_label.sum(axis=1, keepdims=True)  # a resample may have no row of a rare label
        recalls += np.where(total > 0, of_label @ patterns[:, labels == label].T / np.maximum(1, total), 0)
        present += total > 0
    return (
        percentile_interval((weights * accuracy).sum(axis=1)),
        percentile_interval((weights * recalls / present).sum(axis=1)),
    )


def _model_weights(groups: ModelGroups, draws: int, models: int, rng: np.random.Generator) -> Array:
    """The weight of each model in each resample, of shape (draws, models); each row sums to 1."""
    import numpy as np

    weights = np.zeros((draws, models))
    if isinstance(groups, int):
        weights[:, groups] = 1
        return weights
    for choice in rng.integers(len(groups), size=(len(groups), draws)):
        for index, part in enumerate(groups):
            chosen = choice == index
            weights[chosen] += _model_weights(part, int(chosen.sum()), models, rng) / len(groups)
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
