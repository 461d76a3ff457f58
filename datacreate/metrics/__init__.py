"""Metrics of a set: diversity.py and shortcuts.py measure them.

This file makes tables of the metrics that `dataset_metrics` collected, beside those of human rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Metrics = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]
"""Columns and rows of text; no rows if nothing was measured."""

_DIVERSITY = {  # key -> title and format
    "mean_words": ("words per text", ".1f"),
    "passage_words": ("words per passage", ".1f"),
    "distinct_1": ("distinct words", ".2f"),
    "distinct_2": ("distinct word pairs", ".2f"),
    "distinct_3": ("distinct word triples", ".2f"),
    "self_bleu": ("self-BLEU (lower is more diverse)", ".2f"),
    "between": ("distance between two texts", ".2f"),
    "from_example": ("distance to the formatting example", ".2f"),
    "vendi": ("Vendi score", ".1f"),
}


def shortcut_table(metrics: Metrics) -> Table:
    """Shortcut, its score in this set, at chance and in human rows."""
    human = {row["name"]: f"{row['score']:.0%}" for row in (metrics["human"] or {}).get("shortcuts", ())}
    return ["shortcut", "this set", "chance", human_name(metrics)], [
        [row["name"], f"{row['score']:.0%}", f"{row['chance']:.0%}", human.get(row["name"], "")]
        for row in metrics["shortcuts"]
    ]


def diversity_table(metrics: Metrics) -> Table:
    """Diversity metric, its value in this set and in human rows."""
    created, human = _diversity_values(metrics), _diversity_values(metrics["human"] or {})
    rows = [[_DIVERSITY[key][0], value, human.get(key, "")] for key, value in created.items()]
    return ["diversity", "this set", human_name(metrics)], rows


def _diversity_values(metrics: Metrics) -> dict[str, str]:
    """The formatted values by key; a metric that was not measured is left out."""
    measured = {**(metrics.get("diversity") or {}), "passage_words": metrics.get("passage_words")}
    return {key: format(measured[key], form) for key, (_, form) in _DIVERSITY.items() if measured.get(key) is not None}


def warnings(metrics: Metrics) -> list[str]:
    """The warnings, each after the name of its shortcut."""
    return [f"{row['name']}: {row['warning']}" for row in metrics["shortcuts"] if row["warning"]]


def human_name(metrics: Metrics) -> str:
    """The name of the human rows: "creak train (500 rows)"; "human rows" if there are none."""
    human = metrics["human"]
    return f"{human['benchmark']} {human['split']} ({human['rows']:,} rows)" if human else "human rows"


def basis(metrics: Metrics) -> str:
    """A sentence about the texts behind the diversity metrics; empty if there are none."""
    diversity = metrics["diversity"]
    if not diversity:
        return ""
    same = ", the same number of both sets" if metrics["human"] else ""
    return (
        f"{diversity['texts']:,} texts drawn by seed{same}; distances and Vendi score by shared words "
        f"(1 - Jaccard), over {diversity['paired']:,} of them"
    )
