"""Checks on the first examples of a run whether assigned labels match the text.

Labels are assigned before the text is written, and a small model may ignore them. The check compares the
assigned labels with the verifier's probabilities. If the verifier cannot tell the labels apart (low AUC), the
run falls back to pseudo-labels: texts are written without a label, and the verifier labels them. Its
probabilities are then divided by their means over the checked examples, which removes its bias to one label
(batch calibration: Zhou et al., ICLR 2024), and no label's threshold is higher than the median probability
of the examples that the verifier gives this label, so that an unsure verifier does not drop everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from datacreate.verification.scoring import Probabilities, Scored


class LabelNoiseCheck:
    """Compares the first `required` verified examples of a run with fixed labels.

    If their AUC is below `min_auc`, the run falls back to pseudo-labels; None only measures the AUC.
    """

    def __init__(self, labels: int, required: int, min_auc: float | None) -> None:
        self._labels = labels
        self._min_auc = min_auc
        self._seen: list[tuple[int, Probabilities]] = []
        self._means: Probabilities = ()
        self._medians: tuple[float, ...] = ()
        self.required = required
        self.auc: float | None = None  # None until decided, and if all examples have one label
        self.pseudo_labels = False

    @property
    def seen(self) -> int:
        """The number of examples compared so far."""
        return len(self._seen)

    @property
    def decided(self) -> bool:
        """Whether enough examples were compared."""
        return self.seen >= self.required

    @property
    def result(self) -> str:
        """The result in one line."""
        if self.auc is None:
            return f"label-noise check: after {self.seen} examples, all with one label, nothing to compare"
        result = (
            f"label-noise check: after {self.seen} examples the verifier agrees with the assigned labels "
            f"at AUC {self.auc:.2f}"
        )
        if self._min_auc is None:
            return result
        if not self.pseudo_labels:
            return f"{result} (at least {self._min_auc:g}): labels are still assigned before writing"
        return (
            f"{result} (less than {self._min_auc:g}): from now on texts are written without a label, and "
            "the verifier labels them"
        )

    def add(self, scored: Scored) -> None:
        """Compare one verified example; the last required one decides."""
        if self.decided:
            return
        self._seen.append((scored.assigned, scored.probabilities))
        if self.seen == self.required:
            self._decide()

    def _decide(self) -> None:
        self.auc = label_auc(self._seen, self._labels)
        if self._min_auc is not None and self.auc is not None and self.auc < self._min_auc:
            self.pseudo_labels = True
            rows = [probabilities for _, probabilities in self._seen]
            self._means = tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))
            self._medians = _median_by_label([self.calibrated(row) for row in rows], self._labels)

    def thresholds(self, highest: float) -> Sequence[float]:
        """The minimum probability of each label under pseudo-labels; none is above `highest`."""
        return [min(highest, middle) for middle in self._medians]

    def calibrated(self, probabilities: Probabilities) -> Probabilities:
        """The probabilities without the verifier's bias, under pseudo-labels; else unchanged."""
        if not self.pseudo_labels:
            return probabilities
        weights = [p / max(mean, 1e-6) for p, mean in zip(probabilities, self._means, strict=True)]
        total = sum(weights)
        return tuple(round(weight / total, 4) for weight in weights) if total else probabilities


def _median_by_label(rows: Sequence[Probabilities], labels: int) -> tuple[float, ...]:
    """For each label, the median of its probability where it is the most probable; 1 where it never is."""
    by_label: list[list[float]] = [[] for _ in range(labels)]
    for row in rows:
        best = max(range(labels), key=row.__getitem__)
        by_label[best].append(row[best])
    return tuple(median(values) if values else 1.0 for values in by_label)


def label_auc(seen: Sequence[tuple[int, Probabilities]], labels: int) -> float | None:
    """How well the probabilities predict the assigned labels: area under the ROC curve, one against the rest.

    The mean over labels: 0.5 is chance, 1 perfect. None if only one label was assigned.
    """
    from scipy.stats import mannwhitneyu

    areas: list[float] = []
    for label in range(labels):
        own = [probabilities[label] for assigned, probabilities in seen if assigned == label]
        others = [probabilities[label] for assigned, probabilities in seen if assigned != label]
        if own and others:
            u = mannwhitneyu(own, others, method="asymptotic").statistic
            areas.append(float(u) / (len(own) * len(others)))
    return round(sum(areas) / len(areas), 4) if areas else None
