"""The `verification` part of a summary as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def verification_line(checked: Mapping[str, Any]) -> str:
    """Verifier, rows kept, and the result of the label-noise check, on one line."""
    parts = [f"kept {checked['kept']} of {checked['scored']}"]
    if (agreed := checked["agreed"]) is not None:
        parts.append(f"agreed with {agreed:.0%} of the assigned answers")
    if checked["auc"] is not None:
        parts.append(f"AUC {checked['auc']:.2f}{', pseudo-labels' if checked['pseudo_labels'] else ''}")
    return f"by {checked['model']} ({checked['mode']}): {', '.join(parts)}"


def undecided(checked: Mapping[str, Any]) -> str | None:
    """A warning that the run was too short for the label-noise check; None if it decided or was off."""
    seen, required = checked["label_noise_rows"], checked["label_noise_rows_required"]
    if checked["min_auc"] is None or seen >= required:
        return None
    return f"the label-noise check did not decide: {seen} of {required} verified examples seen"
