"""What a summary's `verification` says, in words: a line for the terminal, sentences for the card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def in_a_line(told: Mapping[str, Any]) -> str:
    """Who judged, how many were kept, and whether dealt labels could be believed."""
    parts = [f"kept {told['kept']} of {told['scored']}"]
    if (agreed := told["agreed"]) is not None:
        parts.append(f"{agreed:.0%} as written")
    if told["auc"] is not None:
        parts.append(f"AUC {told['auc']:.2f}{', pseudo-labels' if told['pseudo_labels'] else ''}")
    return f"by {told['model']} ({told['mode']}): {', '.join(parts)}"


def in_sentences(told: Mapping[str, Any], model: str) -> Iterator[str]:
    """The same at length, a sentence each; `model` is who judged, as the card spells it."""
    fallback = ", pseudo-labels" if told["pseudo_labels"] else ""
    yield (
        f"{model} answered each question without seeing its label (mode {told['mode']}{fallback}, "
        f"threshold {told['threshold']:.3g}): {told['kept']} rows kept, {told['dropped']} dropped."
    )
    if (agreed := told["agreed"]) is not None:
        yield f"It gave {agreed:.0%} of them the answer that they were written with."
    if (auc := told["auc"]) is not None:
        yield (
            "On the first rows its agreement with the assigned label had an AUC of "
            f"{auc:.3f} (0.5: chance, 1: it always agrees)."
        )
    if told["pseudo_labels"] and (early := told["accepted_before_check"]):
        since = (
            "have the assigned label, and the verifier's probabilities"
            if told["mode"] == "soft"
            else "have an assigned label that the verifier confirmed"
        )
        yield f"{early} rows were accepted before the label-noise check decided; they {since}."
    if said := undecided(told):
        yield f"{said[0].upper()}{said[1:]}."


def undecided(told: Mapping[str, Any]) -> str | None:
    """A warning that the run was too short for the label-noise check; None if it decided or was off."""
    if told["min_auc"] is None or told["label_noise_rows"] >= told["label_noise_rows_required"]:
        return None
    return (
        f"the label-noise check did not decide: {told['label_noise_rows']} of "
        f"{told['label_noise_rows_required']} verified examples seen"
    )
