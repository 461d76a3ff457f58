"""What one measurement says, and when it is a warning."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

ALARM = 0.005
"""Chance that sampling error alone carries a set without the shortcut past its bound, one-sided."""

TOLERATED = 0.10
"""Share of the way from chance to a perfect score that is no cause for a warning.

Two labels: 55 %; five options: 28 %. Human train sets stay within a few points of it where they are known
to be clean, and a model that gains no more from a shortcut than this still has the task to learn.
"""

TOLERATED_WORDING = 0.50
"""The same where the wording is part of the task (a closed question, a review): two labels, 75 %.

Words do say something of whether a statement is true or a review is kind, so that a figure above chance
is no fault. Human statements that need knowledge stay far below; past this, a few words decide.
"""


FOLDED = 1.4
"""How much wider than that of independent rows the error of a cross-validated classifier is at chance.

Rows of one fold are answered by one model, and so err together. Measured on rows with labels drawn by lot
(50 and 200 rows, 210 sets): up to 1.43 times for words, 1.1 for lengths.
"""


@dataclass(frozen=True)
class Shortcut:
    """What can be had without the task. Shares are in [0, 1]."""

    name: str
    score: float
    """Share that comes out right by the shortcut alone: of rows, or balanced over labels."""

    chance: float
    rows: int  # it was measured on
    warning: str | None = None
    """In plain words, where the score is past what is tolerated and what so few rows may show by chance."""


@dataclass(frozen=True)
class Tried:
    """A shortcut tried on rows. All arrays have shape (rows,)."""

    name: str
    credit: npt.NDArray[np.float64]  # 1 for right, 0 for wrong, a share where it could not choose
    weight: npt.NDArray[np.float64]  # sums up to 1
    chance: float
    families: Sequence[Hashable]
    picked_from: int = 1
    """Of how many that could have been tried this is the best: the bound is raised for it."""

    folded: bool = False  # a cross-validated classifier tried

    @classmethod
    def of_rows(
        cls,
        name: str,
        credit: npt.ArrayLike,
        chance: float,
        families: Sequence[Hashable],
        *,
        picked_from: int = 1,
        folded: bool = False,
    ) -> Tried:
        """Every row counts the same."""
        found = np.asarray(credit, dtype=np.float64)
        weight = np.full(len(found), 1 / max(1, len(found)))
        return cls(name, found, weight, chance, families, picked_from, folded)

    @classmethod
    def of_labels(
        cls, name: str, credit: npt.ArrayLike, labels: Sequence[int], families: Sequence[Hashable]
    ) -> Tried:
        """Every label counts the same: the score is balanced accuracy. For classifiers."""
        truth = np.asarray(labels)
        counts = np.bincount(truth)
        present = int((counts > 0).sum())
        weight = 1 / (present * counts[truth])
        return cls(name, np.asarray(credit, dtype=np.float64), weight, 1 / present, families, folded=True)

    @property
    def score(self) -> float:
        return float(self.weight @ self.credit)

    def error(self) -> float:
        """The standard error, at least that of so many rows at chance.

        Rows of one family are not independent: residuals are summed within families first (Liang & Zeger,
        1986).
        """
        residual = self.weight * (self.credit - self._expected())
        _, place = np.unique([hash(family) for family in self.families], return_inverse=True)
        clustered = float(np.square(np.bincount(place, residual)).sum())
        at_chance = float(np.square(self.weight).sum()) * self.chance * (1 - self.chance)
        return float(max(np.sqrt(clustered), np.sqrt(at_chance) * (FOLDED if self.folded else 1)))

    def _expected(self) -> npt.NDArray[np.float64]:
        """The mean credit of the rows that weigh the same: of all, or of the label."""
        _, place = np.unique(self.weight, return_inverse=True)
        mean: npt.NDArray[np.float64] = np.bincount(place, self.credit) / np.bincount(place)
        return mean[place]

    def judged(self, warning: str, tolerated: float = TOLERATED) -> Shortcut:
        """The result; with `warning` where the score is past the bound."""
        z = NormalDist().inv_cdf(1 - ALARM / self.picked_from)
        bound = self.chance + tolerated * (1 - self.chance)
        past = self.score - z * self.error() > bound
        said = f"{warning}: {self.score:.0%}, where chance is {self.chance:.0%}" if past else None
        return Shortcut(self.name, self.score, self.chance, len(self.credit), said)


def ties_shared(scores: npt.ArrayLike, right: int) -> float:
    """1 where `right` alone has the highest score, 1/t where t share it, else 0; scores are (options,)."""
    found = np.asarray(scores, dtype=np.float64)
    best = found >= found.max() - 1e-9
    return float(best[right] / best.sum())
