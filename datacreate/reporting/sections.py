"""A Report -> sections of text and tables, which Markdown and the page show alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from datacreate.formats.example import Json
from datacreate.metrics import tables as metric_tables
from datacreate.reporting.results import (
    Comparison,
    CreatedSet,
    Report,
    ResultCell,
    ResultTable,
    checkpoint_name,
)

LEGEND = (
    "Score: chance-corrected balanced accuracy (fixed labels) or accuracy (options); 0 is chance, 100 is "
    "perfect. Accuracy: uncorrected, as in the paper. In parentheses: 95 % intervals, of one model over test "
    "rows (Wilson for accuracy, bootstrap for balanced accuracy), of several models by a bootstrap over "
    "formatting examples, training seeds and test rows; with one formatting example the interval does not "
    "include how examples differ.",
    "N: training rows, selection rows included. Models: formatting examples (e) and "
    "training seeds (s). SD: standard deviation of the score between seeds of one training set / between "
    "training sets. MDE: minimum detectable effect, the smallest difference of two accuracies that is "
    "detected with 80 % power.",
    "Flags, with the number of models: degenerate, one class is predicted for at least 95 % of the rows; not "
    "above chance, the 95 % interval reaches down to chance.",
)
COMPARED = (
    "McNemar's exact test on the majority vote of each condition's models; p (Holm) is corrected for all "
    "comparisons of this table. The test covers the choice of test rows, not how formatting examples differ."
)
_LONGEST = 300  # characters of a sample's field
_SELECTION = {
    "held-out": "model selected on held-out training rows",
    "human": "model selected on the human dev split",
    "none": "no model selection",
}
_TITLES = {"in": "In distribution", "out": "Out of distribution", "untrained": "Not trained"}


@dataclass(frozen=True)
class Table:
    """A table of text cells; texts are not escaped yet."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, tables and footnotes. `results` is set if the section may have plots."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    results: ResultTable | None = None


def sections(report: Report) -> list[Section]:
    """The sections of a report in order."""
    where = ", ".join(report.paths)
    about = f"{report.evaluations} evaluations and {len(report.created)} creation runs in {where}."
    result = [Section("Overview", (about, *(LEGEND if report.tables else ())))]
    result += [_results(table, report) for table in report.tables]
    if report.created:
        result.append(_created(report.created))
    if report.skipped:
        rows = tuple((skipped.path, skipped.reason) for skipped in report.skipped)
        result.append(Section("Skipped", tables=(Table("", ("folder", "reason"), rows),)))
    return result


def _results(table: ResultTable, report: Report) -> Section:
    cells = Table("Results", _COLUMNS, tuple(map(_cell, table.cells)))
    rows = tuple(map(_comparison, table.comparisons))
    significant = sum(comparison.significant for comparison in table.comparisons)
    title = f"Comparisons: {significant} of {len(rows)} significant at 5 %"
    notes = [COMPARED] if rows else []
    if any(cell.paper_accuracy is not None for cell in table.cells):
        notes.append(f"Paper: {report.paper_citation}")
    if any(cell.paper_swapped for cell in table.cells):
        notes.append(f"‡ {report.paper_note}")
    for test in dict.fromkeys(map(test_name, table.cells)):
        same = [cell for cell in table.cells if test_name(cell) == test]
        if unanswered := max(cell.unanswered for cell in same):
            notes.append(f"{test}: up to {unanswered} test rows could not be encoded and count as wrong.")
        if truncated := max(cell.truncated for cell in same):
            notes.append(f"{test}: up to {truncated} test rows were truncated to the encoder's input.")
    tables = (cells, Table(title, _COMPARED_COLUMNS, rows)) if rows else (cells,)
    return Section(title_of(table), tables=tables, notes=tuple(notes), results=table)


def title_of(table: ResultTable) -> str:
    """What distinguishes a table from the others of its report."""
    if table.distribution == "untrained":
        return _TITLES["untrained"]
    parts = [
        checkpoint_name(table.encoder, table.encoder_sha256),
        f"recipe {table.recipe}",
        _SELECTION[table.selection],
        *([f"rows written by {table.generator}"] if table.generator else []),
    ]
    return f"{_TITLES[table.distribution]}: {', '.join(parts)}"


def test_name(cell: ResultCell | Comparison) -> str:
    """`creak`, `bioasq → pubmedqa`, `creak (dev)`."""
    test = cell.test if cell.split == "test" else f"{cell.test} ({cell.split})"
    return test if cell.trained_for in ("-", cell.test) else f"{cell.trained_for} → {test}"


_COLUMNS = (
    *("test set", "condition", "N", "models", "score (95 %)", "accuracy (95 %)"),
    *("paper", "SD", "test rows", "MDE", "flags"),
)


def _cell(cell: ResultCell) -> tuple[str, ...]:
    paper = "" if cell.paper_accuracy is None else points(cell.paper_accuracy)
    score = f"{signed(cell.score)} ({signed(cell.score_low)} to {signed(cell.score_high)})"
    return (
        test_name(cell),
        cell.condition,
        "" if cell.count is None else f"{cell.count:,}{'' if cell.full else ' (sample)'}",
        f"{cell.examples}e·{cell.seeds}s" if cell.examples else f"{cell.seeds}s" if cell.seeds else "",
        score if cell.models else signed(cell.score),
        f"{points(cell.accuracy)} ({points(cell.accuracy_low)} to {points(cell.accuracy_high)})",
        paper + "‡" * cell.paper_swapped,
        _spread(cell),
        f"{cell.test_rows:,}",
        points(cell.mde),
        flags(cell),
    )


def _spread(cell: ResultCell) -> str:
    parts = (cell.sd_seeds, cell.sd_sets)
    return " / ".join("–" if sd is None else points(sd) for sd in parts) if any(parts) else ""


def flags(cell: ResultCell) -> str:
    """`degenerate 1/3, not above chance 2/3`; empty if no model has a flag."""
    numbers = {"degenerate": cell.degenerate, "not above chance": cell.not_above_chance}
    return ", ".join(f"{flag} {number}/{cell.models}" for flag, number in numbers.items() if number)


_COMPARED_COLUMNS = (
    *("test set", "first", "second", "accuracy difference", "only first right", "only second right"),
    *("p", "p (Holm)", "significant"),
)


def _comparison(comparison: Comparison) -> tuple[str, ...]:
    return (
        test_name(comparison),
        comparison.first,
        comparison.second,
        signed(comparison.difference),
        str(comparison.first_only),
        str(comparison.second_only),
        _p(comparison.p),
        _p(comparison.p_holm),
        "yes" if comparison.significant else "",
    )


def _created(created: tuple[CreatedSet, ...]) -> Section:
    rows = [
        (
            run.path,
            str(run.summary["strategy"]),
            str(run.summary["model"]),
            f"{run.summary['accepted']:,} of {run.summary['requested']:,}",
            f"{run.summary['requests']:,}",
            f"{run.summary['examples_per_second']:g}",
            _counts(run.summary["labels"]),
            _counts(run.summary["depths"]),
            _counts(run.summary["rejected"]),
        )
        for run in created
    ]
    columns = (
        "run",
        "strategy",
        "model",
        "examples",
        "requests",
        "examples/s",
        "labels",
        "depths",
        "rejected",
    )
    examples = [(run.path, _sample(values)) for run in created for values in (run.example, *run.samples)]
    tables = [
        Table("Runs", columns, tuple(rows)),
        _metric_table(
            "Shortcuts: share of rows that a model gets right without the task",
            metric_tables.shortcut_table,
            created,
        ),
        _metric_table("Diversity", metric_tables.diversity_table, created),
        Table("Formatting example and samples of each run", ("run", "example"), tuple(examples)),
    ]
    notes: list[str] = []
    for run in created:
        if metrics := run.metrics:
            if metrics["no_shortcuts"]:
                notes.append(f"{run.path}: shortcuts were not measured, {metrics['no_shortcuts']}.")
            notes += [f"{run.path}: warning: {warning}." for warning in metric_tables.warnings(metrics)]
            notes.append(f"{run.path}: {metric_tables.basis(metrics)}.")
            if metrics["human"]:
                notes.append(f"{run.path}: human rows are {metric_tables.human_name(metrics)}.")
    about = "A language model wrote these examples; nobody has read all of them."
    return Section("Created sets", (about,), tuple(table for table in tables if table.rows), tuple(notes))


def _metric_table(
    title: str, of: Callable[[metric_tables.Metrics], metric_tables.Table], created: Sequence[CreatedSet]
) -> Table:
    """The metrics of all runs in one table."""
    of_runs = [(run.path, of(run.metrics)) for run in created if run.metrics]
    rows = tuple((path, *row) for path, (_, rows) in of_runs for row in rows)
    columns = ["run", *of_runs[0][1][0][:-1], "human rows"] if of_runs else []
    return Table(title, tuple(columns), rows)


def _sample(values: Mapping[str, Json]) -> str:
    return "; ".join(f"{name}: {_field(value)}" for name, value in values.items() if value is not None)


def _field(value: Json) -> str:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = " · ".join(map(str, value))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _counts(counts: Mapping[str, int]) -> str:
    """The first ten of some counts, with the number of the others."""
    shown = [f"{name} {number:,}" for name, number in list(counts.items())[:10]]
    return ", ".join([*shown, *([f"{len(counts) - 10} more"] if len(counts) > 10 else [])])


def points(share: float) -> str:
    """A share times 100."""
    return f"{share * 100:.1f}"


def signed(share: float) -> str:
    """A score or difference times 100: `+12.3`, `−4.0`, `0.0`."""
    rounded = round(share * 100, 1)
    return f"{'+' if rounded > 0 else '−' if rounded < 0 else ''}{abs(rounded):.1f}"


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"
