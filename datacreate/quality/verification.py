"""Verification: what a model, asked blind, says of an example's answer, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence

from datacreate.runs.config import VerifyMode
from datacreate.runs.log import Probabilities


def verdict(mode: VerifyMode, threshold: float, claimed: int, probabilities: Probabilities) -> int:
    """Which answer an example keeps; -1 if it is to be dropped."""
    if mode == "drop":
        return claimed if probabilities[claimed] >= threshold else -1
    if mode == "relabel":
        return labelled(threshold, probabilities)
    return claimed


def labelled(threshold: float, probabilities: Probabilities) -> int:
    """The most probable answer; -1 if it is less probable than the threshold."""
    likeliest = max(range(len(probabilities)), key=probabilities.__getitem__)
    return likeliest if probabilities[likeliest] >= threshold else -1


def rounded(probabilities: Sequence[float]) -> Probabilities:
    """As the log keeps them; rounded before anything is decided, so that a replay decides the same."""
    return tuple(round(probability, 4) for probability in probabilities)
