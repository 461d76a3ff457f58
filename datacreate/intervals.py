"""Values with 95 % intervals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

HALF_WIDTH = 1.96  # standard errors between the middle and an end of a 95 % interval


@dataclass(frozen=True)
class IntervalEstimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@cache
def estimated_share(right: int, rows: int) -> IntervalEstimate:
    """The share `right / rows` of at least one row, with Wilson's interval (1927)."""
    from scipy.stats import binomtest

    interval = binomtest(right, rows).proportion_ci(method="wilson")
    return IntervalEstimate(right / rows, float(interval.low), float(interval.high))
