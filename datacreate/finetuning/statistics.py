"""Figures of a model on a test set, and whether two arms differ.

The primary figure is balanced accuracy for a fixed label set and accuracy for multiple choice,
centred on chance: (x - 1/k) / (1 - 1/k). Plain accuracy rewards a model that answers what the
test set happens to hold most of; the centred balanced one gives it 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from datacreate.finetuning.record import Scores

if TYPE_CHECKING:
    import numpy as np

COLLAPSED_SHARE = 0.95
"""A model that gives one answer to this share of the rows, or more, has collapsed."""

ALPHA = 0.05
RESAMPLES = 2_000

DISCORDANT = 0.25
"""The share of rows that two models are taken to answer differently (one right, one wrong) when
the smallest detectable difference is worked out: between encoders of one test set it is near that."""


def scores(
    truth: Sequence[int],
    answers: Sequence[int],
    names: Sequence[str],
    *,
    balanced: bool,
    truncated: int = 0,
) -> Scores:
    """The figures of one model on one test set.

    `truth` and `answers`, of shape (rows,), hold the place of a label in `names` or of an option.
    -1 in `answers` is a row without an answer, in `truth` one that has no right answer: both count
    as wrong. `balanced` says that `names` are labels with a meaning of their own; otherwise they
    are places of options. ValueError if no row has a right answer.
    """
    import numpy as np
    from sklearn.metrics import f1_score, matthews_corrcoef, recall_score

    y, p = np.asarray(truth), np.asarray(answers)
    present = sorted(set(truth) - {-1})
    if not present:
        raise ValueError("no row with a right answer to score")
    k = len(names)
    correct = int(((y == p) & (y >= 0)).sum())
    accuracy, interval = correct / len(y), wilson(correct, len(y))
    counts = Counter(answers)
    constant = max(truth.count(place) for place in present) / len(y)
    recall = matthews = matthews_interval = None
    if balanced:
        drawn = _resampled(_confusion(y[y >= 0], p[y >= 0], k))
        recall = float(recall_score(y, p, average="macro", labels=present, zero_division=0))
        matthews = float(matthews_corrcoef(y[y >= 0], p[y >= 0]))
        matthews_interval = _percentiles(_matthews(drawn))
        primary = centred(recall, k)
        low, high = _percentiles(_recalls(drawn))
        primary_interval = (centred(low, k), centred(high, k))
    else:
        primary = centred(accuracy, k)
        primary_interval = (centred(interval[0], k), centred(interval[1], k))
    return Scores(
        rows=len(y),
        classes=k,
        accuracy=accuracy,
        accuracy_interval=interval,
        balanced_accuracy=recall,
        macro_f1=float(f1_score(y, p, average="macro", labels=present, zero_division=0)),
        matthews=matthews,
        matthews_interval=matthews_interval,
        constant=constant,
        primary=primary,
        primary_interval=primary_interval,
        collapsed=collapse_reason(counts, len(y), names, interval, matthews_interval),
        predicted={name: counts[place] for place, name in enumerate(names)},
        unanswered=counts[-1],
        truncated=truncated,
    )


def centred(share: float, classes: int) -> float:
    """A share of right answers with chance at 0 and perfection at 1."""
    return (share - 1 / classes) / (1 - 1 / classes)


def wilson(correct: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927), by statsmodels."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(correct, rows, alpha=ALPHA, method="wilson")
    return float(low), float(high)


def collapse_reason(
    counts: Mapping[int, int],
    rows: int,
    names: Sequence[str],
    accuracy_interval: tuple[float, float],
    matthews_interval: tuple[float, float] | None,
) -> str | None:
    """Why a model is taken to have learned nothing; None if it has learned something.

    Either nearly all its answers are one; or it does no better than chance: an interval of
    Matthews' coefficient that holds 0, for options an interval of accuracy that holds 1/k.
    """
    commonest = max(range(len(names)), key=lambda place: counts.get(place, 0))
    if (share := counts.get(commonest, 0) / rows) >= COLLAPSED_SHARE:
        what = f"{names[commonest]!r}" if matthews_interval else f"the option in place {names[commonest]}"
        return f"answers {what} to {share:.0%} of the rows"
    if matthews_interval:
        low, high = matthews_interval
        return f"Matthews' coefficient may be 0 ({low:.2f} to {high:.2f})" if low <= 0 <= high else None
    low, high = accuracy_interval
    chance = 1 / len(names)
    return f"accuracy may be chance ({low:.1%} to {high:.1%})" if low <= chance <= high else None


@dataclass(frozen=True)
class Comparison:
    """Two arms on the same rows: how often only one of them was right, and McNemar's test of it."""

    first: str
    second: str
    first_only: int
    second_only: int
    p: float
    p_holm: float  # corrected for all comparisons made together

    @property
    def differs(self) -> bool:
        return self.p_holm < ALPHA


def compare(conditions: Mapping[str, Sequence[bool]]) -> list[Comparison]:
    """McNemar's exact test of every pair of arms, p-values corrected together (Holm, 1979).

    `conditions` maps a name to what was right, of shape (rows,), the same rows for all. ValueError if
    they are not equally many.
    """
    return corrected(
        [
            (first, second, *discordant(conditions[first], conditions[second]))
            for first, second in combinations(conditions, 2)
        ]
    )


def discordant(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int]:
    """Rows that only the first, and that only the second, got right."""
    only = Counter((a, b) for a, b in zip(first, second, strict=True) if a != b)
    return only[True, False], only[False, True]


def corrected(pairs: Sequence[tuple[str, str, int, int]]) -> list[Comparison]:
    """The comparisons of (first, second, only first, only second), corrected over all of them."""
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.multitest import multipletests

    if not pairs:
        return []
    p = [float(mcnemar([[0, b], [c, 0]], exact=True).pvalue) if b + c else 1.0 for _, _, b, c in pairs]
    holm = multipletests(p, alpha=ALPHA, method="holm")[1]
    return [Comparison(*pair, one, float(all_)) for pair, one, all_ in zip(pairs, p, holm, strict=True)]


def smallest_difference(rows: int, discordant_share: float = DISCORDANT) -> float:
    """The smallest difference of two accuracies on the same rows that shows 4 times in 5.

    Power 0.8 at 5 %, two-sided, by the normal approximation of McNemar's test:
    (z_0.975 + z_0.8) * sqrt(share of discordant rows / rows).
    """
    from scipy.stats import norm

    return float((norm.ppf(1 - ALPHA / 2) + norm.ppf(0.8)) * (discordant_share / rows) ** 0.5)


def _confusion(y: Any, p: Any, k: int) -> np.ndarray[Any, Any]:
    """Counts of shape (k, k + 1): true label, given label; the last column is no answer."""
    import numpy as np

    table = np.zeros((k, k + 1), dtype=np.int64)
    np.add.at(table, (y, np.where(p < 0, k, p)), 1)
    return table


def _resampled(table: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Tables of as many rows drawn with replacement, of shape (RESAMPLES, k, k + 1).

    Drawing rows and counting them is drawing from the table: the figures need the counts alone.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    rows = int(table.sum())
    drawn = rng.multinomial(rows, table.ravel() / rows, size=RESAMPLES)
    return np.asarray(drawn.reshape(RESAMPLES, *table.shape))


def _recalls(tables: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The mean recall of each table, over the labels that it has rows of: (n, k, k + 1) -> (n,)."""
    import numpy as np

    of_label = tables.sum(axis=2)  # (n, k)
    right = np.diagonal(tables, axis1=1, axis2=2)  # (n, k)
    label_ratio = np.divide(right, of_label, out=np.zeros(right.shape), where=of_label > 0)
    return np.asarray(label_ratio.sum(axis=1) / np.maximum(1, (of_label > 0).sum(axis=1)))


def _matthews(tables: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Matthews' coefficient for k labels (Gorodkin, 2004): (n, k, k + 1) -> (n,); 0 where undefined."""
    import numpy as np

    t = tables.sum(axis=2).astype(float)  # (n, k) rows of each label
    p = tables.sum(axis=1).astype(float)  # (n, k + 1) answers of each kind
    s = t.sum(axis=1)
    c = np.trace(tables, axis1=1, axis2=2).astype(float)
    above = c * s - (t * p[:, :-1]).sum(axis=1)
    below = np.sqrt((s**2 - (p**2).sum(axis=1)) * (s**2 - (t**2).sum(axis=1)))
    return np.asarray(np.divide(above, below, out=np.zeros(len(s)), where=below > 0))


def _percentiles(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    import numpy as np

    low, high = np.percentile(values, [100 * ALPHA / 2, 100 * (1 - ALPHA / 2)])
    return float(low), float(high)
