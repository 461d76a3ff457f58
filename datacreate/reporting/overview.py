"""What the first screen says: how much was measured, and what came of each table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from datacreate.reporting.tables import Cell, Column, Report, Row, Table

NOTHING_TRAINED = "-"
"""Stands for the encoder of a table that holds no trained arm."""


@dataclass(frozen=True)
class Measured:
    """What stands behind the whole page. Names are distinct, in the order of their first appearance."""

    models: int  # trained
    created: int
    examples: int  # in the created sets
    tests: tuple[str, ...]
    encoders: tuple[str, ...]
    generators: tuple[str, ...]


@dataclass(frozen=True)
class ArmMean:
    """An arm of a table, over the rows that may be compared."""

    title: str
    primary: float | None  # None if there are none, or it has not all of them
    cells: int
    collapsed: int  # cells in which a model has collapsed


@dataclass(frozen=True)
class Finding:
    """The outcome of one table in figures."""

    table: Table
    tests: int  # that all arms with a mean have
    conditions: tuple[ArmMean, ...]
    best: tuple[ArmMean, ...]  # trained arms by mean, the highest first
    significant: int


def measured(report: Report) -> Measured:
    """Count the models, created sets, test sets, encoders and generators of a report."""
    rows = [row for table in report.tables for row in table.rows]
    trained = [cell for row in rows for cell in row.cells if cell and cell.count is not None]
    folders = {_model(PurePath(source)) for cell in trained for source in cell.sources}
    generators = [table.generator for table in report.tables] + [made.model for made in report.created]
    return Measured(
        models=len(folders),
        created=len(report.created),
        examples=sum(made.accepted for made in report.created),
        tests=_distinct(row.test for row in rows if any(row.cells)),
        encoders=_distinct(table.encoder for table in report.tables if table.encoder != NOTHING_TRAINED),
        generators=_distinct(name for name in generators if name),
    )


def _model(evaluation: PurePath) -> PurePath:
    """The folder of the model that was evaluated: seed-1 of seed-1/evaluations/csqa-test."""
    return evaluation.parent.parent if evaluation.parent.name == "evaluations" else evaluation


def finding(table: Table) -> Finding:
    """The mean of each arm over the test sets that all of them have; the constant prediction is left out.

    Of rows that differ only in their number of training rows, the one with the most cells stands for the
    test set. Where too few test sets have every arm, the arms with the fewest cells go without a mean.
    """
    rows = _one_a_test_set(table.rows)
    places = [
        place for place in range(len(table.columns)) if any(cell.models for cell in _cells(rows, place))
    ]
    compared = _compared(rows, places)
    shared = _shared(rows, compared)
    conditions = {place: _arm(table, place, rows, shared if place in compared else []) for place in places}
    trained = [conditions[place] for place in compared if any(cell.count for cell in _cells(rows, place))]
    ranked = sorted(
        (condition for condition in trained if shared),
        key=lambda condition: condition.primary or 0.0,
        reverse=True,
    )
    return Finding(
        table=table,
        tests=len(shared),
        conditions=tuple(conditions.values()),
        best=tuple(ranked),
        significant=sum(difference.significant for difference in table.differences),
    )


def _one_a_test_set(rows: Sequence[Row]) -> list[Row]:
    best: dict[tuple[str, str, str, str | None], Row] = {}
    for row in rows:
        key = row.train, row.test, row.split, row.digest
        if key not in best or sum(map(bool, row.cells)) > sum(map(bool, best[key].cells)):
            best[key] = row
    return list(best.values())


def _compared(rows: Sequence[Row], places: Sequence[int]) -> list[int]:
    """Arms that have half of the rows, or all that there are of two arms, in common."""
    kept = list(places)
    while len(kept) > 2 and len(_shared(rows, kept)) * 2 < len(rows):
        kept.remove(min(reversed(kept), key=lambda place: len(_cells(rows, place))))
    return kept


def _shared(rows: Sequence[Row], places: Sequence[int]) -> list[Row]:
    return [row for row in rows if places and all(row.cells[place] for place in places)]


@dataclass(frozen=True)
class Note:
    """A cell of which more is to be said than fits into it."""

    row: Row
    column: Column
    cell: Cell


def notes(table: Table) -> list[Note]:
    """The cells with collapsed models, or with rows that were cut or could not be encoded."""
    return [
        Note(row, column, cell)
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell and (cell.collapsed or cell.unanswered or cell.truncated)
    ]


def name_of(row: Row, table: Table) -> str:
    """What a row is called beside the others: its number of training rows only where that is needed."""
    name = row.test if row.train == row.test else f"{row.train} → {row.test}"
    alike = [other for other in table.rows if (other.train, other.test) == (row.train, row.test)]
    return name if len(alike) == 1 or row.count is None else f"{name}, {row.count:,} rows"


def shows_swapped(table: Table) -> bool:
    """Whether a figure of the paper needs the footnote of rows printed under the wrong heading."""
    return any(figure is not None and figure.printed_swapped for row in table.rows for figure in row.paper)


def _arm(table: Table, place: int, rows: Sequence[Row], shared: Sequence[Row]) -> ArmMean:
    cells = _cells(rows, place)
    figures = [cell.primary for cell in _cells(shared, place)]
    return ArmMean(
        table.columns[place].title,
        statistics.fmean(figures) if figures else None,
        len(cells),
        sum(cell.collapsed > 0 for cell in cells),
    )


def _cells(rows: Sequence[Row], place: int) -> list[Cell]:
    return [cell for row in rows if (cell := row.cells[place]) is not None]


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
