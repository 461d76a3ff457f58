"""Compares assigned labels with a verifier's probabilities on the first examples of a run; calibration.

`concordance` measures whether the probabilities follow the labels. The same examples give the verifier's bias to each
label, which `calibrated` removes (batch calibration: Zhou et al., ICLR 2024). `RunVerification` (runs/stats.py) says
what a run does with the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from datacreate.formats.example import Json
from datacreate.intervals import HALF_WIDTH, IntervalEstimate
from datacreate.verification import Probabilities, Scored

FIRST_ROWS = 40  # rows of the first test; the concordance then has a standard error of about 0.09

MIN_ROWS, MAX_ROWS = 20, 320
"""Limits of the rows that a check uses; between them it is the count of the run."""

_MIN_MEAN, _MIN_PROBABILITY = 1e-6, 5e-5
"""A smaller mean or probability counts as this: it may be 0 after rounding."""

_TIE = 1e-9  # a smaller difference of scores is a tie

AssignedRow = tuple[int, Probabilities]  # (assigned label, probabilities of the verifier)


def max_label_noise_rows(count: int) -> int:
    """The most rows that the check of a run with `count` examples uses."""
    return max(MIN_ROWS, min(MAX_ROWS, count))


class LabelNoiseCheck:
    """Tests the first scored examples of a run with fixed labels, and calibrates the verifier with them.

    It tests after 40, 80, 160, ... examples, at most `max_rows`, and decides when the interval of the concordance
    does not include `min_concordance`; at the end the value decides. Below `min_concordance` the run falls back to
    pseudo-labels; None only measures, at the first test. Without labels nothing is tested, and it has decided.
    """

    def __init__(
        self, labels: Sequence[Json], max_rows: int, min_concordance: float | None, *, is_range: bool = False
    ) -> None:
        self._num_labels = len(labels)
        self._values = numeric_values(labels, is_range=is_range)
        self._max_rows = max_rows
        self._min_concordance = min_concordance
        self._next_test = min(FIRST_ROWS, max_rows)  # in examples
        self._rows: list[AssignedRow] = []
        self._means: Sequence[float] = ()
        self.concordance: IntervalEstimate | None = None  # None until decided, and if all examples have one label
        self.decided = not labels
        self.pseudo_labels = False

    @property
    def seen(self) -> int:
        """The number of examples compared so far."""
        return len(self._rows)

    @property
    def rows_to_test(self) -> int:
        """The number of examples until the next test, before it has decided."""
        return self._next_test - self.seen

    @property
    def result(self) -> str:
        """The result in one line."""
        start, minimum = f"label-noise check: after {self.seen} examples, ", self._min_concordance
        if self.concordance is None:
            return f"{start}all with one label, nothing to compare"
        measured = f"concordance {self.concordance}, where 0.5 is chance and 1 perfect"
        if minimum is None:
            return f"{start}labels and verifier have {measured}"
        if not self.pseudo_labels:
            return f"{start}texts match their labels ({measured}; minimum {minimum:g})"
        return (
            f"{start}texts often do not match their labels ({measured}; minimum {minimum:g}): from now on texts are "
            "written without a label, and the verifier labels them"
        )

    def add(self, scored: Scored) -> None:
        """Compare one example that was written for a label; after the decision it is ignored."""
        if self.decided or scored.assigned is None:
            return
        self._rows.append((scored.assigned, scored.probabilities))
        if self.seen == self._next_test:
            self._test()

    def _test(self) -> None:
        """Decide, unless more examples are needed."""
        means = label_means(self._rows, self._num_labels)
        rows = [(assigned, calibrated(probabilities, means)) for assigned, probabilities in self._rows]
        measured, minimum = concordance(rows, self._values), self._min_concordance
        is_clear = minimum is None or (measured is not None and not measured.low <= minimum <= measured.high)
        if not is_clear and self.seen < self._max_rows:
            self._next_test = min(2 * self._next_test, self._max_rows)
            return
        self.decided, self.concordance, self._means = True, measured, means
        self.pseudo_labels = minimum is not None and measured is not None and measured.value < minimum

    def calibrated(self, probabilities: Probabilities) -> Probabilities:
        """The probabilities without the verifier's bias to labels; unchanged until the check has decided."""
        return calibrated(probabilities, self._means) if self.decided else probabilities


def label_means(rows: Sequence[AssignedRow], num_labels: int) -> list[float]:
    """The verifier's mean probability of each label.

    Each assigned label has the same weight, whatever the shares of the labels. For a label that was never assigned the
    probability in rows of its own is estimated: it is higher than in other rows by the same factor as for assigned
    labels, and at least the mean of these. So the label is not preferred, even if it is the verifier's favorite, and
    a verifier that knows little still finds it.
    """
    by_label = [[p for assigned, p in rows if assigned == label] for label in range(num_labels)]
    means = {
        label: [sum(column) / len(own) for column in zip(*own, strict=True)]
        for label, own in enumerate(by_label)
        if own
    }
    sums, count = [sum(column) for column in zip(*means.values(), strict=True)], len(means)
    own_rows = sum(mean[label] for label, mean in means.items())
    other_rows = (sum(sums[label] for label in means) - own_rows) / max(1, count - 1)
    factor = own_rows / max(other_rows, _MIN_MEAN)
    return [
        total / count if label in means else (total + min(1.0, max(own_rows, factor * total) / count)) / (count + 1)
        for label, total in enumerate(sums)
    ]


def calibrated(probabilities: Probabilities, means: Sequence[float]) -> Probabilities:
    """Probabilities divided by the means of their labels and normalized; rounded to four decimals as in the log.

    Without means they stay as they are.
    """
    weights = [probability / max(mean, _MIN_MEAN) for probability, mean in zip(probabilities, means, strict=False)]
    total = sum(weights)
    return tuple(round(weight / total, 4) for weight in weights) if total else probabilities


def numeric_values(labels: Sequence[Json], *, is_range: bool = False) -> list[float] | None:
    """The labels as numbers, also if they are texts such as "4"; None if one is not a number.

    Numbers that count from 0 are codes of classes, whose order means nothing, unless they are of a range.
    """
    try:
        values = [float(str(label)) for label in labels]
    except ValueError:
        return None
    are_codes = not is_range and sorted(values) == list(range(len(values)))
    return values if all(map(math.isfinite, values)) and not are_codes else None


def concordance(rows: Sequence[AssignedRow], values: Sequence[float] | None = None) -> IntervalEstimate | None:
    """Measures how well probabilities follow assigned labels: 0.5 is chance, 1 perfect.

    The share of pairs of rows with different labels that the probabilities order as the labels do; ties count half.
    For two labels it is the area under the ROC curve, for more the mean over pairs of labels (Hand and Till, 2001).
    With `values` the labels are numbers: pairs are ordered by expected value (Harrell's C). The interval is a
    jackknife over rows. None if all rows have one label.
    """
    import numpy as np

    assigned = np.array([label for label, _ in rows])
    scores: Any = np.array([probabilities for _, probabilities in rows])
    if values:
        numbers = np.array(values)
        expected = scores @ numbers
        margins = (expected[:, None] - expected) * np.sign(numbers[assigned][:, None] - numbers[assigned])
    else:
        logs = np.log(np.maximum(scores, _MIN_PROBABILITY))[:, assigned]  # (i, j): row i, label of row j
        own = np.diagonal(logs)
        margins = own[:, None] - logs + own - logs.T
    different = assigned[:, None] != assigned
    ordered = np.where(np.abs(margins) < _TIE, 0.5, margins > 0) * different
    if not different.any():
        return None
    value = ordered.sum() / different.sum()
    # Without row i, its pairs are missing twice: in its row and in its column.
    pairs = different.sum() - 2 * different.sum(axis=1)
    without_row = (ordered.sum() - 2 * ordered.sum(axis=1))[pairs > 0] / pairs[pairs > 0]
    count = len(without_row)
    variance = (count - 1) / count * ((without_row - without_row.mean()) ** 2).sum() if count else 1.0
    error = math.sqrt(variance)
    return IntervalEstimate(
        round(float(value), 4),
        round(max(0.0, float(value) - HALF_WIDTH * error), 4),
        round(min(1.0, float(value) + HALF_WIDTH * error), 4),
    )
