"""Metrics of a set: diversity.py and shortcuts.py measure them.

`Metrics` holds them, and makes tables that show them beside those of human rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datacreate.metrics.diversity import Diversity
    from datacreate.metrics.shortcuts import Shortcut

Table = tuple[list[str], list[list[str]]]  # columns and rows of text; no rows if nothing was measured

NEAR_THRESHOLD = 0.7  # similarity from which rows count as near-duplicates, as the filter `--near` computes it
MAX_ROWS = 4_000  # larger sets are sampled down to this many rows by seed
_MAX_NEAR_SHARE = 0.1  # of rows, without a warning

_DIVERSITY = {
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
"""Field of `Diversity`, or `passage_words` -> title and format."""


@dataclass(frozen=True, kw_only=True)
class SetMetrics:
    """The metrics of one set of rows."""

    rows: int
    shortcuts: tuple[Shortcut, ...]
    no_shortcuts: str | None  # why shortcuts were not measured
    diversity: Diversity | None  # None without texts
    passage_words: float | None  # mean length of the passages in words; None without passages

    def diversity_texts(self) -> dict[str, str]:
        """The diversity as texts, by title; what was not measured is left out."""
        measured = {**(vars(self.diversity) if self.diversity else {}), "passage_words": self.passage_words}
        shown = {key: titled for key, titled in _DIVERSITY.items() if measured.get(key) is not None}
        return {title: format(measured[key], form) for key, (title, form) in shown.items()}


@dataclass(frozen=True, kw_only=True)
class HumanMetrics(SetMetrics):
    """The metrics of human rows, the train split of a benchmark."""

    benchmark: str


@dataclass(frozen=True, kw_only=True)
class Metrics(SetMetrics):
    """The metrics of a set, and those of human rows for comparison."""

    human: HumanMetrics | None = None
    near_duplicates: int = 0  # rows that the filter for near-duplicates rejects at `NEAR_THRESHOLD`

    def human_scores(self) -> dict[str, float]:
        """The score of each shortcut in human rows, by its name."""
        return {shortcut.name: shortcut.score for shortcut in self.human.shortcuts} if self.human else {}

    def shortcut_table(self) -> Table:
        """Shortcut, its score in this set, at chance and in human rows, if there are any."""
        human = {name: f"{score:.0%}" for name, score in self.human_scores().items()}
        return ["shortcut", "this set", "chance", *self._human_column(self.human_name)], [
            [each.name, f"{each.score:.0%}", f"{each.chance:.0%}", *self._human_column(human.get(each.name, ""))]
            for each in self.shortcuts
        ]

    def diversity_table(self) -> Table:
        """Diversity metric, its value in this set and in human rows, if there are any."""
        human = self.human.diversity_texts() if self.human else {}
        rows = [
            [title, text, *self._human_column(human.get(title, ""))] for title, text in self.diversity_texts().items()
        ]
        return ["diversity", "this set", *self._human_column(self.human_name)], rows

    def _human_column(self, cell: str) -> list[str]:
        """A cell of the last column; none without human rows."""
        return [cell] if self.human else []

    @property
    def warnings(self) -> list[str]:
        """The warnings, each after the name of its shortcut."""
        return [f"{shortcut.name}: {shortcut.warning}" for shortcut in self.shortcuts if shortcut.warning]

    @property
    def near_warning(self) -> str:
        """A warning if many rows are near-duplicates; "" if not."""
        if self.near_duplicates <= _MAX_NEAR_SHARE * self.rows:
            return ""
        drawn = " drawn by seed" if self.rows == MAX_ROWS else ""
        return (
            f"{self.near_duplicates:,} of {self.rows:,} rows{drawn} are near-duplicates of earlier rows; "
            f"`--near {NEAR_THRESHOLD}` rejects them"
        )

    @property
    def human_name(self) -> str:
        """The name of the human rows: "creak train (500 rows)"; "" if there are none."""
        human = self.human
        return f"{human.benchmark} train ({human.rows:,} rows)" if human else ""

    @property
    def basis(self) -> str:
        """A sentence about the texts behind the diversity metrics; empty if there are none."""
        if not self.diversity:
            return ""
        same = ", the same number of both sets" if self.human else ""
        return (
            f"{self.diversity.texts:,} texts drawn by seed{same}; distances and Vendi score by shared words "
            f"(1 - Jaccard), over {self.diversity.paired:,} of them"
        )
