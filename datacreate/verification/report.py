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
        parts.append(f"AUC {told['auc']:.2f}, {told['order']}")
    return f"by {told['model']} ({told['mode']}): {', '.join(parts)}"


def in_sentences(told: Mapping[str, Any], model: str) -> Iterator[str]:
    """The same at length, a sentence each; `model` is who judged, as the card spells it."""
    order = f", {told['order']}" if told["order"] else ""
    yield (
        f"{model} answered each question without seeing its label (mode {told['mode']}{order}, "
        f"threshold {told['threshold']:.3g}): {told['kept']} rows kept, {told['dropped']} dropped."
    )
    if (agreed := told["agreed"]) is not None:
        yield f"It gave {agreed:.0%} of them the answer that they were written with."
    if (auc := told["auc"]) is not None:
        yield (
            "On the first rows with dealt labels its agreement with the label had an AUC of "
            f"{auc:.3f} (0.5: the labels are noise to it, 1: it always agrees)."
        )
    if told["order"] == "text first" and (early := told["accepted_before_check"]):
        since = (
            "have the dealt label, with the verifier's probabilities beside it"
            if told["mode"] == "soft"
            else "have a dealt label that the verifier gave them as well"
        )
        yield f"{early} rows are from before labels were found to be noise; they {since}."
    if said := undecided(told):
        yield f"{said[0].upper()}{said[1:]}."


def undecided(told: Mapping[str, Any]) -> str | None:
    """What is to be said of a gate that a run was too short for; None if it decided or there was none."""
    if told["label_noise_check"] is None or told["label_noise_rows"] >= told["label_noise_rows_wanted"]:
        return None
    return (
        f"the label-noise check is undecided: {told['label_noise_rows']} of {told['label_noise_rows_wanted']} "
        "verified examples seen"
    )
