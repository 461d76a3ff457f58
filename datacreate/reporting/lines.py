"""The rows of a table before their cells are made: which models stand where.

A row has one number of training rows. What is all there is of human data (alone, or with created rows)
has a number of its own and stands in every row of its test set, to be looked at beside the others, as
do the constant prediction and the generator's own answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from datacreate.finetuning.records import SOFT_LABELS
from datacreate.reporting.collect import Measured

CONSTANT, ZERO_SHOT, HUMAN = "constant", "zero-shot", "human"

ORDER = (CONSTANT, ZERO_SHOT, HUMAN, "naive", "random", "diverse", "similar", "tree")
"""Columns from left to right; mixes of human and created rows come next, then whatever else there is."""

_PAPERS_WAY = " (paper)"
"""Ends the name of an arm whose rows were created as the paper creates them."""

OWN_ROWS = "own rows"
"""Stands for a benchmark where the rows trained on were for none."""


@dataclass(frozen=True, order=True)
class Tested:
    """The rows of a split of a benchmark, known by their digest."""

    benchmark: str
    split: str
    digest: str

    @classmethod
    def of(cls, one: Measured) -> Tested:
        e = one.evaluation
        return cls(e.benchmark, e.split, e.digest)


@dataclass(frozen=True)
class ArmColumn:
    """A column: an arm, with samples of it apart where both could stand in one row."""

    condition: str
    sampled: bool = False
    generator: str | None = None  # who answered zero-shot, where the table does not say so

    @property
    def title(self) -> str:
        if self.sampled:
            return f"{self.condition}, same N" if self.condition == HUMAN else f"{self.condition}, sampled"
        return f"{self.condition} {self.generator}" if self.generator else self.condition

    @property
    def rank(self) -> tuple[int, str, bool, str]:
        """Where it stands among the columns."""
        unknown = len(ORDER) + (not self.condition.startswith(f"{HUMAN}+"))
        place = ORDER.index(self.strategy) if self.strategy in ORDER else unknown
        return place, self.condition, self.sampled, self.generator or ""

    @property
    def strategy(self) -> str:
        """The arm as the paper names it, whichever way its rows were created and labelled."""
        return self.condition.removesuffix(SOFT_LABELS).removesuffix(_PAPERS_WAY)


@dataclass(frozen=True)
class Placed:
    """The models of a cell. `everywhere`: they stand in all rows of their test set."""

    models: tuple[Measured, ...]
    everywhere: bool


@dataclass(frozen=True)
class Line:
    """One row: a test set and a number of training rows."""

    train: str
    test: Tested
    count: int | None
    placed: dict[ArmColumn, Placed]
    witness: Measured  # some evaluation of the test set, which knows the set


def trained_for(one: Measured) -> str:
    """The benchmark whose task a model learned."""
    return one.evaluation.condition.benchmark or OWN_ROWS


def clashing(models: Sequence[Measured]) -> AbstractSet[str]:
    """Arms of which all rows and a sample would fall into one cell: the sample gets a column."""
    seen: defaultdict[tuple[str, str, Tested, int], set[bool]] = defaultdict(set)
    for one in models:
        condition = one.evaluation.condition
        seen[condition.name, trained_for(one), Tested.of(one), condition.count].add(condition.full)
    return {name for (name, *_), kinds in seen.items() if len(kinds) > 1} | {HUMAN}


def lines(
    train: str,
    test: Tested,
    trained: Sequence[Measured],
    beside: Sequence[tuple[Measured, str | None]],
    split: AbstractSet[str],
) -> Iterator[Line]:
    """The rows of one pair of training benchmark and test set, the largest number first.

    `trained` and `beside` are the models tested on it, not both empty. Those in `beside` are not trained,
    and come with the name that their column needs. Arms in `split` keep samples in a column of their own.
    """
    sized: defaultdict[int, defaultdict[ArmColumn, list[Measured]]] = defaultdict(lambda: defaultdict(list))
    everywhere: defaultdict[ArmColumn, list[Measured]] = defaultdict(list)
    whole = _whole(trained)
    for one in trained:
        condition = one.evaluation.condition
        column = ArmColumn(condition.name, not condition.full and condition.name in split)
        (everywhere if condition.full and condition.name in whole else sized[condition.count])[column].append(
            one
        )
    for one, name in beside:
        if one.evaluation.condition.name != CONSTANT:
            everywhere[ArmColumn(ZERO_SHOT, generator=name)].append(one)
    counts: list[int | None] = [*sorted(sized, reverse=True)]
    for count in counts or [None]:
        placed = {column: Placed(tuple(found), True) for column, found in everywhere.items()}
        if count is not None:
            placed |= {column: Placed(tuple(found), False) for column, found in sized[count].items()}
        yield Line(train, test, count, placed, trained[0] if trained else beside[0][0])


def _whole(trained: Sequence[Measured]) -> AbstractSet[str]:
    """Human arms and mixes that are all there is, always of the same number of rows."""
    counts: defaultdict[str, set[int]] = defaultdict(set)
    for one in trained:
        if (condition := one.evaluation.condition).full and (
            condition.name == HUMAN or condition.name.startswith(f"{HUMAN}+")
        ):
            counts[condition.name].add(condition.count)
    return {name for name, found in counts.items() if len(found) == 1}
