"""The document of shortcuts and diversity (see `appraisal`) as lines that a table or a bar shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Measures = Mapping[str, Any]

_DIVERSITY = {
    "mean_words": "words a text",
    "passage_words": "words a passage",
    "distinct_1": "distinct words",
    "distinct_2": "distinct pairs of words",
    "distinct_3": "distinct triples of words",
    "self_bleu": "self-BLEU (less is more diverse)",
    "between": "distance between two texts",
    "from_example": "distance to the formatting example",
    "vendi": "Vendi score",
    "vendi_share": "Vendi score, share of the texts",
}
_NUMBERS = frozenset({"mean_words", "passage_words", "vendi"})  # the others are shares


@dataclass(frozen=True)
class ShortcutLine:
    """One shortcut of a set, beside the human set's. Shares in [0, 1]."""

    name: str
    ours: float
    chance: float
    human: float | None
    warning: str | None


@dataclass(frozen=True)
class DiversityLine:
    """One figure of diversity, beside the human set's."""

    name: str
    ours: float
    human: float | None
    is_share: bool  # in [0, 1], or a number

    def spelled(self, figure: float | None) -> str:
        """A figure of this line as a table shows it."""
        return "" if figure is None else f"{figure:.2f}" if self.is_share else f"{figure:.1f}"


def shortcut_lines(measures: Measures) -> list[ShortcutLine]:
    """In the order in which they were measured."""
    human = measures["human"] or {"shortcuts": ()}
    theirs = {one["name"]: one["score"] for one in human["shortcuts"]}
    return [
        ShortcutLine(one["name"], one["score"], one["chance"], theirs.get(one["name"]), one["warning"])
        for one in measures["shortcuts"]
    ]


def diversity_lines(measures: Measures) -> list[DiversityLine]:
    """The figures that there are."""
    ours, theirs = _figures(measures), _figures(measures["human"] or {})
    return [
        DiversityLine(title, ours[name], theirs.get(name), name not in _NUMBERS)
        for name, title in _DIVERSITY.items()
        if ours.get(name) is not None
    ]


def warnings(measures: Measures) -> list[str]:
    """The warnings in words, the name of the shortcut first."""
    return [f"{line.name}: {line.warning}" for line in shortcut_lines(measures) if line.warning]


def human_name(measures: Measures) -> str | None:
    """What the figures stand beside: "creak train (500 rows)"; None where there is nothing."""
    human = measures["human"]
    return f"{human['benchmark']} {human['split']} ({human['rows']:,} rows)" if human else None


def basis(measures: Measures) -> str:
    """What the figures of diversity rest on, in words; empty where there are none."""
    found = measures["diversity"]
    if not found:
        return ""
    same = ", as many of either set" if measures["human"] and measures["human"]["diversity"] else ""
    return (
        f"{found['texts']:,} texts drawn by seed{same}; distances and the Vendi score by "
        f"{found['measure']}, over {found['paired']:,} of them"
    )


def _figures(measures: Measures) -> dict[str, Any]:
    return {**(measures.get("diversity") or {}), "passage_words": measures.get("passage_words")}
