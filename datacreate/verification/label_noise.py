"""The gate: whether labels that are dealt before the text is written can be believed.

They can be noise: the model writes what it likes. So on the first rows of a run with fixed labels
a blind verifier is held against the dealt ones. Where it cannot tell them apart, labels are no
longer dealt: the text is written first and the verifier labels it, its probabilities corrected for
its leaning to one label by their means over the gate's rows (batch calibration: Zhou et al., ICLR
2024). A verifier that is never sure would drop everything: so no label's threshold is higher than what
half of the gate's rows reach that it gives this label.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Literal

from datacreate.verification.decisions import Probabilities, Scored

Order = Literal["label first", "text first"]


class LabelNoiseCheck:
    """The first `rows` verified examples of a run with fixed labels, and what they decide.

    Open as long as there are fewer. A bound of None decides nothing: labels stay dealt.
    """

    def __init__(self, labels: int, rows: int, bound: float | None) -> None:
        self._labels = labels
        self._rows = rows
        self._bound = bound
        self._seen: list[tuple[int, Probabilities]] = []
        self.auc: float | None = None  # once it is shut
        self.order: Order = "label first"
        self._means: Probabilities = ()
        self._reached: tuple[float, ...] = ()  # by half of the rows of each label, once it is shut

    @property
    def rows(self) -> int:
        """How many examples it has seen."""
        return len(self._seen)

    @property
    def wanted(self) -> int:
        """How many it decides by."""
        return self._rows

    @property
    def pseudo_labels(self) -> bool:
        """Whether it found the dealt labels to be noise, so that the verifier labels what is written."""
        return self.order == "text first"

    def decided(self) -> bool:
        """Whether it has seen enough, and decided."""
        return len(self._seen) >= self._rows

    @property
    def told(self) -> str:
        """What it found, in a line."""
        if self.auc is None:
            return f"gate: after {self.rows} examples, all with one label, nothing to compare"
        found = (
            f"gate: after {self.rows} examples the verifier agrees with the dealt labels "
            f"at AUC {self.auc:.2f}"
        )
        if self._bound is None:
            return found
        if not self.pseudo_labels:
            return f"{found}, {self._bound:g} or more: labels stay dealt"
        return f"{found}, less than {self._bound:g}: from here the text comes first; the verifier labels it"

    def add(self, scored: Scored) -> None:
        """Take in a verified example; the last one shuts the gate."""
        if self.decided():
            return
        self._seen.append((scored.assigned, scored.probabilities))
        if not self.decided():
            return
        self.auc = agreement(self._seen, self._labels)
        if self._bound is not None and self.auc is not None and self.auc < self._bound:
            self.order = "text first"
            rows = [probabilities for _, probabilities in self._seen]
            self._means = tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))
            self._reached = _medians([self.calibrated(row) for row in rows], self._labels)

    def thresholds(self, told: float) -> Sequence[float]:
        """The least probability of each label once text is written first, `told` being the highest."""
        return [min(told, reached) for reached in self._reached]

    def calibrated(self, probabilities: Probabilities) -> Probabilities:
        """The probabilities without the verifier's leaning, once text is written first."""
        if not self.pseudo_labels:
            return probabilities
        label_ratio = [p / max(mean, 1e-6) for p, mean in zip(probabilities, self._means, strict=True)]
        total = sum(label_ratio)
        return tuple(round(share / total, 4) for share in label_ratio) if total else probabilities


def _medians(rows: Sequence[Probabilities], labels: int) -> tuple[float, ...]:
    """Of each label, the median of its probability where it is the likeliest; 1 where it never is."""
    of: list[list[float]] = [[] for _ in range(labels)]
    for row in rows:
        most = max(range(labels), key=row.__getitem__)
        of[most].append(row[most])
    return tuple(median(each) if each else 1.0 for each in of)


def agreement(seen: Sequence[tuple[int, Probabilities]], labels: int) -> float | None:
    """How well the probabilities tell the claimed labels apart: the area under the ROC curve.

    The mean over labels, each against the others (0.5 is noise, 1 perfect); None if only one
    label was claimed.
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
