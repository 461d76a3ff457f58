"""Verification: what a model, asked blind, says of an example's answer, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

VerifyMode = Literal["off", "keep", "drop", "relabel", "soft"]
"""What happens to an example after the verifier scored it. `keep`: only log the scores. `drop`: drop the example
if its answer is less probable than the threshold. `relabel`: replace the answer by one above the threshold, or
drop. `soft`: keep all, with the probabilities as labels."""

Probabilities = tuple[float, ...]
"""One per possible answer; they add up to 1."""


@dataclass(frozen=True)
class Scored:
    """What the verifier did to one example."""

    assigned: int  # index of the answer it was written with; -1 if the text was written without one
    final: int  # index of the answer it keeps; -1 if it is dropped
    accepted: bool  # whether it is in the set
    probabilities: Probabilities  # the verifier's, four decimals


def verdict(mode: VerifyMode, threshold: float, assigned: int, probabilities: Probabilities) -> int:
    """Which answer an example keeps; -1 if it is to be dropped."""
    if mode == "drop":
        return assigned if probabilities[assigned] >= threshold else -1
    if mode == "relabel":
        return labelled([threshold] * len(probabilities), probabilities)
    return assigned


def labelled(thresholds: Sequence[float], probabilities: Probabilities) -> int:
    """The most probable answer; -1 if it is less probable than the threshold of that answer."""
    likeliest = max(range(len(probabilities)), key=probabilities.__getitem__)
    return likeliest if probabilities[likeliest] >= thresholds[likeliest] else -1


def usual_threshold(labels: int) -> float:
    """The threshold where nobody says: more likely than not, and among many labels half more than chance.

    `labels` is the number of fixed labels, 0 where options vary.
    """
    return min(0.5, 1.5 / labels) if labels else 0.5


def rounded(probabilities: Sequence[float]) -> Probabilities:
    """As the log keeps them; rounded before anything is decided, so that a replay decides the same."""
    return tuple(round(probability, 4) for probability in probabilities)
