"""The paper's own figures, from data/paper_results.yaml."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from datacreate.paths import shipped
from datacreate.reporting.tables import PaperFigure


class Pair(BaseModel):
    """A row of table 4: trained for one benchmark, tested on another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: str
    test: str
    accuracy: tuple[float, ...]  # percent, one per arm
    printed_swapped: bool = False


class Paper(BaseModel):
    """What the paper printed. `in_distribution` is in the paper's order, which is also the tables'."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    citation: str
    conditions: tuple[str, ...]
    train_rows: dict[str, int]
    in_distribution: dict[str, tuple[float, ...]]  # percent, one per arm
    out_of_distribution: tuple[Pair, ...]
    swapped_note: str

    @property
    def benchmarks(self) -> tuple[str, ...]:
        return tuple(self.in_distribution)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(train, test) of table 4, in its order."""
        return tuple((pair.train, pair.test) for pair in self.out_of_distribution)

    def figure(self, condition: str, train: str, test: str) -> PaperFigure | None:
        """What the paper has for an arm; None where it has nothing."""
        if condition not in self.conditions:
            return None
        place, rows = self.conditions.index(condition), self.train_rows.get(train)
        if train == test:
            row = self.in_distribution.get(test)
            return PaperFigure(round(row[place] / 100, 6), rows) if row else None
        for pair in self.out_of_distribution:
            if (pair.train, pair.test) == (train, test):
                return PaperFigure(round(pair.accuracy[place] / 100, 6), rows, pair.printed_swapped)
        return None


@cache
def load_paper(path: Path | None = None) -> Paper:
    """The figures in a file, by default the shipped one."""
    import yaml

    text = (path or shipped("data", "paper_results.yaml")).read_text(encoding="utf-8")
    return Paper.model_validate(yaml.safe_load(text))
