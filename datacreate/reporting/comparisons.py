"""The arms of each row against each other, corrected for all comparisons of the table.

Each arm answers with the majority vote of its models, so that one test on the same rows can be made of
arms with several models. The test knows the test rows and not the formatting examples: that two arms
differ significantly says so of these created sets, not of any that might be made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from datacreate.finetuning.statistics import compare, discordant_counts
from datacreate.reporting.collect import Measured
from datacreate.reporting.tables import Difference


@dataclass(frozen=True)
class Candidate:
    """The models of a cell, and where the cell is. `everywhere`: the same cell stands in other rows too."""

    column: int
    models: tuple[Measured, ...]
    everywhere: bool


def voted(models: Sequence[Measured]) -> list[bool]:
    """What the majority of some models got right, of shape (rows,).

    Among answers with equally many votes, the one given by the model of the lowest seed counts.
    """
    ranked = sorted(models, key=lambda one: (one.evaluation.seed, one.evaluation.condition.digest, one.path))
    return [_vote(ranked, row) for row in range(len(ranked[0].right))]


def _vote(models: Sequence[Measured], row: int) -> bool:
    # Counter keeps the order of arrival, so that `most_common` settles a tie for the lowest seed.
    (answer, _), *_ = Counter(one.answers[row] for one in models).most_common(1)
    return next(one.right[row] for one in models if one.answers[row] == answer)


def differences(rows: Sequence[Sequence[Candidate]]) -> tuple[Difference, ...]:
    """Every pair of cells of every row; a pair that stands in several rows is compared in the first."""
    pairs = list(_pairs(rows))
    told = compare([(str(one.column), str(other.column), *only) for _, one, other, only, _ in pairs])
    made = [
        Difference(
            row,
            one.column,
            other.column,
            (only[0] - only[1]) / tested,
            *only,
            said.p,
            said.p_holm,
            said.differs,
        )
        for (row, one, other, only, tested), said in zip(pairs, told, strict=True)
    ]
    return tuple(sorted(made, key=lambda one: (one.row, one.p)))


def _pairs(
    rows: Sequence[Sequence[Candidate]],
) -> Iterator[tuple[int, Candidate, Candidate, tuple[int, int], int]]:
    """(row, first, second, rows that only one got right, test rows) of each comparison."""
    votes: dict[tuple[str, ...], list[bool]] = {}
    done: set[tuple[str, ...]] = set()
    for place, row in enumerate(rows):
        for one, other in combinations(row, 2):
            keys = [tuple(model.path for model in each.models) for each in (one, other)]
            if one.everywhere and other.everywhere:
                if (pair := (*keys[0], "", *keys[1])) in done:
                    continue
                done.add(pair)
            for key, each in zip(keys, (one, other), strict=True):
                if key not in votes:
                    votes[key] = voted(each.models)
            first, second = votes[keys[0]], votes[keys[1]]
            yield place, one, other, discordant_counts(first, second), len(first)
