"""The tables of a report as CSV: a line per cell, for spreadsheets and statistics programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping

from datacreate.reporting.tables import Cell, Column, PaperFigure, Report, RequestSlot, Row, Table
from datacreate.reporting.wording import harmless

Value = str | int | float | None

_TABLE: Mapping[str, Callable[[Table], Value]] = {
    "encoder": lambda table: table.encoder,
    "encoder_sha256": lambda table: table.encoder_sha256,
    "settings": lambda table: table.settings,
    "selection": lambda table: table.selection,
    "generator": lambda table: table.generator,
}
_ROW: Mapping[str, Callable[[Row], Value]] = {
    "train": lambda row: row.train,
    "test": lambda row: row.test,
    "split": lambda row: row.split,
    "test_digest": lambda row: row.digest,
    "test_rows": lambda row: row.rows,
    "smallest_difference": lambda row: row.smallest_difference,
    "row_count": lambda row: row.count,
}
_COLUMN: Mapping[str, Callable[[Column], Value]] = {"condition": lambda column: column.title}
_CELL: Mapping[str, Callable[[Cell], Value]] = {
    "count": lambda cell: cell.count,
    "full": lambda cell: cell.full,
    "primary": lambda cell: cell.primary,
    "primary_low": lambda cell: cell.primary_interval[0],
    "primary_high": lambda cell: cell.primary_interval[1],
    "accuracy": lambda cell: cell.accuracy,
    "accuracy_low": lambda cell: cell.accuracy_interval[0],
    "accuracy_high": lambda cell: cell.accuracy_interval[1],
    "interval": lambda cell: cell.method,
    "models": lambda cell: cell.models,
    "examples": lambda cell: cell.examples,
    "sets": lambda cell: cell.sets,
    "seeds": lambda cell: cell.seeds,
    "sd_seeds": lambda cell: cell.spread.seeds,
    "sd_sets": lambda cell: cell.spread.sets,
    "collapsed": lambda cell: cell.collapsed,
    "collapse_reasons": lambda cell: "; ".join(cell.collapse_reasons),
    "unanswered": lambda cell: cell.unanswered,
    "truncated": lambda cell: cell.truncated,
}
_PAPER: Mapping[str, Callable[[PaperFigure], Value]] = {
    "paper_accuracy": lambda paper: paper.accuracy,
    "paper_train_rows": lambda paper: paper.train_rows,
    "paper_printed_swapped": lambda paper: paper.printed_swapped,
}


def cells_csv(report: Report, place: RequestSlot) -> str:
    """All cells of the tables in or out of distribution, below a line of names; shares are in [0, 1]."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*_TABLE, *_ROW, *_COLUMN, *_CELL, *_PAPER])
    for table in report.tables:
        if table.place == place:
            writer.writerows([guarded(value) for value in line] for line in _lines(table))
    return file.getvalue()


def _lines(table: Table) -> Iterator[list[Value]]:
    for row in table.rows:
        for column, cell, paper in zip(table.columns, row.cells, row.paper, strict=True):
            if cell is not None or paper is not None:
                yield [
                    *(of(table) for of in _TABLE.values()),
                    *(of(row) for of in _ROW.values()),
                    *(of(column) for of in _COLUMN.values()),
                    *(None if cell is None else of(cell) for of in _CELL.values()),
                    *(None if paper is None else of(paper) for of in _PAPER.values()),
                ]


def guarded(value: Value) -> Value:
    """A value as a spreadsheet may open it: text that it would take for a formula begins with an apostrophe.

    Control characters and line ends, which could hide such a beginning, are replaced.
    """
    if not isinstance(value, str):
        return value
    text = " ".join(str(harmless(value)).split())
    return f"'{text}" if text.startswith(tuple("=+-@＝＋－＠")) else text
