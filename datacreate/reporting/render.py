"""A Report -> sections -> its files: Markdown, CSV, JSON, and an HTML page with charts that needs no other file.

The page has no script and escapes every text (jinja2's autoescaping); its content security policy allows no request.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any

from datacreate import metrics as metric_tables
from datacreate.files import replace_files
from datacreate.formats.example import Json, field_text
from datacreate.formats.validate import shorten
from datacreate.locking import locked
from datacreate.messages import markdown, markdown_table, safe_line
from datacreate.reporting.charts import GREY, Bar, Chart, LinePlot, Point, line_plot, page_template
from datacreate.reporting.gaps import Curves, learning_curves
from datacreate.reporting.results import (
    Comparison,
    ConditionResult,
    CreatedSet,
    MeanGap,
    Report,
    ResultTable,
    RowsToMatch,
    checkpoint_name,
    test_set_name,
)

_GROUP = ("distribution", "encoder", "encoder_sha256", "recipe", "selection", "generator")
"""Fields of a table that each of its lines in CSV begins with."""


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write all files into `folder`, which is made if needed; files of an older report are replaced.

    Returns their paths. Raises StorageError, and RunLocked if another process writes there.
    """
    texts = {
        "report.md": as_markdown(report),
        "results.csv": as_csv(report, ConditionResult),
        "comparisons.csv": as_csv(report, Comparison),
        "report.json": as_json(report),
        "report.html": as_page(report),
    }
    # UTF-8 cannot hold lone surrogates: they are written as JSON escapes.
    escaped = (text.encode("utf-8", "backslashreplace").decode("utf-8") for text in texts.values())
    files = dict(zip(map(folder.joinpath, texts), escaped, strict=True))
    with locked(folder):
        replace_files(files)
    return list(files)


def as_markdown(report: Report) -> str:
    """The report as Markdown that is also readable in a terminal."""
    blocks = ["# datacreate report"]
    for section in sections(report):
        blocks += [f"## {markdown(section.title)}", *map(markdown, section.paragraphs)]
        for table in section.tables:
            blocks += [f"### {markdown(table.title)}"] if table.title else []
            blocks.append(markdown_table(table.columns, table.rows))
        if section.notes:
            blocks.append("\n".join(f"- {markdown(note)}" for note in section.notes))
    return "\n\n".join([*blocks, f"Made by datacreate {report.version}."]) + "\n"


def as_csv(report: Report, record: type[ConditionResult | Comparison]) -> str:
    """All results or all comparisons of a report, a line each, below a line of field names."""
    names = [field.name for field in dataclasses.fields(record) if field.name != "sources"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*_GROUP, *names])
    for table in report.tables:
        for row in table.cells if record is ConditionResult else table.comparisons:
            values = [getattr(table, name) for name in _GROUP] + [getattr(row, name) for name in names]
            writer.writerow([safe_line(value) if isinstance(value, str) else value for value in values])
    return file.getvalue()


def as_json(report: Report) -> str:
    """Every field of a `Report` by its name."""
    return json.dumps(dataclasses.asdict(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_page(report: Report) -> str:
    """The report as one HTML page."""
    found = sections(report)
    charts = [score_charts(section.results) for section in found]
    plots = [curve_plots(section.results) for section in found]
    page = page_template("report.html.j2")
    return page.render(version=report.version, sections=found, charts=charts, plots=plots)


def score_charts(results: Sequence[ConditionResult]) -> list[Chart]:
    """The scores on each test set; a score below chance has no bar."""
    charts: defaultdict[str, list[Bar]] = defaultdict(list)
    for result in results:
        if result.models:
            value = f"{_score(result)} {flags(result)}"
            color = GREY if result.not_above_chance else 0
            width, *marks = (100 * max(0.0, share) for share in _score_and_interval(result))
            charts[test_set_name(result)].append(Bar(result.label, value, [(color, width)], marks))
    return [Chart(name, bars) for name, bars in charts.items()]


def curve_plots(results: Sequence[ConditionResult]) -> list[LinePlot]:
    """The learning curves on each test set."""

    def point(count: int, result: ConditionResult) -> Point:
        y, low, high = (100 * share for share in _score_and_interval(result))
        return Point(count, y, low, high, f"{result.condition}, {count:,} rows: {_score(result)}")

    return [
        line_plot(
            _curve_name(curves), {name: list(starmap(point, of.items())) for name, of in curves.items()}
        )
        for curves in learning_curves(results)
    ]


DEGENERATE, NOT_ABOVE_CHANCE, FEW_EXAMPLES = "†‡°"  # symbols of a result in tables

LEGEND = (
    "Score: chance-corrected balanced accuracy (fixed labels) or accuracy (options); 0 is chance, 100 is "
    "perfect. Accuracy: uncorrected, as in the paper. In parentheses: 95 % intervals. That of one model covers "
    "the choice of test rows; that of several models also how seeds differ and, from two formatting examples "
    "on, how these differ.",
    "N: training rows, selection rows included. Examples: formatting examples. SD seeds: standard deviation of "
    "the score between seeds of one training set; SD examples: between the means of formatting examples.",
    "PGR: performance gap recovered, the score in percent of that of as many human rows (same encoder, recipe, model "
    "selection and test rows); 100 is as good as human rows. It is undefined where the score of human rows is not "
    "significantly above chance.",
    f"{DEGENERATE} degenerate: one class is predicted for at least 95 % of the rows. {NOT_ABOVE_CHANCE} not "
    "significantly above chance: the 95 % interval of the score reaches down to chance. Both with the number of "
    f"models. {FEW_EXAMPLES} fewer than three formatting examples: how examples differ is unknown or uncertain.",
)
COMPARED = (
    "Difference of the scores, first less second, with its 95 % interval. Covers: what the interval and p "
    "include. Without examples, another formatting example may give another result. MDE: minimum detectable "
    "effect, the true difference that this comparison finds with 80 % power. p (Holm) is corrected for all "
    "comparisons of this table."
)
SEVERAL_SETS = (
    "Several training sets of one formatting example count as one condition; if their runs differ in more than seeds, "
    "such as verification, name them with --condition of train"
)
MATCHED = (
    "Created rows that match human rows: the smallest measured number of created rows with at least the mean score of "
    "a number of human rows; the means are compared, not tested. Numbers of human rows whose score is not "
    "significantly above chance are left out."
)
UNMATCHED = (
    "How many created rows match human rows is unknown: no score of human rows is significantly above chance."
)
MIN_EXAMPLES = 3  # with fewer formatting examples a result is marked
_LONGEST = 300  # characters of a sample's field
_SELECTION = {
    "held-out": "model selected on a tenth of the training rows",
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
    """A heading, paragraphs, tables and footnotes, and the results that the page shows as charts."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    results: tuple[ConditionResult, ...] = ()


def sections(report: Report) -> list[Section]:
    """The sections of a report in order."""
    counts = f"{report.evaluations} evaluations and {len(report.created)} runs"
    about = f"{counts} in {', '.join(report.paths)}."
    result = [Section("Overview", (about, *(LEGEND if report.tables else ())))]
    result += [_results(table, report) for table in report.tables]
    if report.created:
        result.append(_created(report.created))
    if report.skipped:
        skipped = Table("", ("folder", "reason"), tuple((one.path, one.reason) for one in report.skipped))
        result.append(Section("Skipped", tables=(skipped,)))
    return result


def _results(table: ResultTable, report: Report) -> Section:
    tables = [_table("Results", _RESULT_COLUMNS, table.cells)]
    notes: list[str] = []
    if table.comparisons:
        significant = sum(comparison.significant for comparison in table.comparisons)
        title = f"Comparisons: {significant} of {len(table.comparisons)} significant at 5 %"
        tables.append(_table(title, _COMPARISON_COLUMNS, table.comparisons))
        notes.append(COMPARED)
    if table.gaps:
        tables.insert(1, _table("Mean PGR over test sets", _GAP_COLUMNS, table.gaps))
    if found := learning_curves(table.cells):
        tables += [_curve_table(curves, table.matches) for curves in found]
        notes.append(MATCHED if table.matches else UNMATCHED)
    if any(result.paper_accuracy is not None for result in table.cells):
        notes.append(f"Paper: {report.paper_citation}")
    if several := {result.label for result in table.cells if 0 < result.examples < result.sets}:
        notes.append(f"{SEVERAL_SETS}: {', '.join(sorted(several))}.")
    for test in dict.fromkeys(map(test_set_name, table.cells)):
        same = [result for result in table.cells if test_set_name(result) == test]
        if unanswered := max(result.unanswered for result in same):
            notes.append(f"{test}: up to {unanswered} test rows lack a prediction or right answer: wrong.")
        if truncated := max(result.truncated for result in same):
            notes.append(f"{test}: up to {truncated} test rows were truncated to the encoder's input.")
        if (versions := len({result.test_digest for result in same})) > 1:
            notes.append(f"{test}: {versions} versions of the test rows; only results on one are compared.")
    title = _TITLES[table.distribution]
    if table.distribution != "untrained":
        encoder = checkpoint_name(table.encoder, table.encoder_sha256)
        written = f", rows written by {table.generator}" if table.generator else ""
        title += f": {encoder}, recipe {table.recipe}, {_SELECTION[table.selection]}{written}"
    return Section(title, tables=tuple(tables), notes=tuple(notes), results=table.cells)


def _curve_table(curves: Curves, matches: Sequence[RowsToMatch]) -> Table:
    """The score of each condition by number of training rows, and how many created rows match human rows."""
    counts = sorted({count for points in curves.values() for count in points})
    rows = []
    for condition, points in curves.items():
        scores = [_score(points[count]) if count in points else "" for count in counts]
        tests = {(result.trained_for, result.test_digest) for result in points.values()}
        found = [
            f"{match.human_count:,} human: {f'{match.count:,}' if match.count else f'none up to {match.largest:,}'}"
            for match in matches
            if match.condition == condition and (match.trained_for, match.test_digest) in tests
        ]
        rows.append((condition, *scores, "; ".join(found)))
    columns = ["condition", *(f"{count:,} rows" for count in counts), "created rows that match human rows"]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Table(f"Learning curves: {_curve_name(curves)}", tuple(columns), tuple(rows))


def _curve_name(curves: Curves) -> str:
    return next(test_set_name(result) for points in curves.values() for result in points.values())


def flags(result: ConditionResult) -> str:
    """`†1/3 ‡2/3 °`: the symbols of LEGEND; empty if no model has a flag."""
    counts = {DEGENERATE: result.degenerate, NOT_ABOVE_CHANCE: result.not_above_chance}
    found = [f"{flag}{number}/{result.models}" for flag, number in counts.items() if number]
    return " ".join([*found, *([FEW_EXAMPLES] if 0 < result.examples < MIN_EXAMPLES else [])])


def _created(created: tuple[CreatedSet, ...]) -> Section:
    examples = [(run.path, _sample(values)) for run in created for values in (*run.examples, *run.samples)]
    shortcuts = "Shortcuts: share of rows that a model gets right without the task"
    tables = [
        _table("Runs", _RUN_COLUMNS, created),
        _metric_table(shortcuts, metric_tables.shortcut_table, created),
        _metric_table("Diversity", metric_tables.diversity_table, created),
        Table("Formatting examples and samples of each run", ("run", "example"), tuple(examples)),
    ]
    notes = [f"{run.path}: {note}." for run in created if run.metrics for note in _metric_notes(run.metrics)]
    about = "A language model wrote these examples; nobody has read all of them."
    return Section("Created sets", (about,), tuple(table for table in tables if table.rows), tuple(notes))


def _table(title: str, columns: Mapping[str, Callable[[Any], str]], records: Sequence[object]) -> Table:
    """A row per record; `columns` says how each column is made."""
    rows = tuple(tuple(text(record) for text in columns.values()) for record in records)
    return Table(title, tuple(columns), rows)


def _metric_table(
    title: str, of: Callable[[metric_tables.Metrics], metric_tables.Table], created: Sequence[CreatedSet]
) -> Table:
    """The metrics of all runs in one table."""
    of_runs = [(run.path, of(run.metrics)) for run in created if run.metrics]
    rows = tuple((path, *row) for path, (_, rows) in of_runs for row in rows)
    columns = ["run", *of_runs[0][1][0][:-1], "human rows"] if of_runs else []
    return Table(title, tuple(columns), rows)


def _metric_notes(metrics: metric_tables.Metrics) -> Iterator[str]:
    if metrics["no_shortcuts"]:
        yield f"shortcuts were not measured, {metrics['no_shortcuts']}"
    yield from (f"warning: {warning}" for warning in metric_tables.warnings(metrics))
    yield metric_tables.basis(metrics)
    if metrics["human"]:
        yield f"human rows are {metric_tables.human_name(metrics)}"


def _sample(values: Mapping[str, Json]) -> str:
    texts = {name: field_text(value) for name, value in values.items() if value is not None}
    return "; ".join(f"{name}: {shorten(text, _LONGEST)}" for name, text in texts.items())


def _counts(counts: Mapping[str, int]) -> str:
    """The first ten of some counts, with the number of the others."""
    shown = [f"{name} {number:,}" for name, number in list(counts.items())[:10]]
    return ", ".join([*shown, *([f"{len(counts) - 10} more"] if len(counts) > 10 else [])])


def points(share: float | None) -> str:
    """A share times 100; empty without one."""
    return "" if share is None else f"{share * 100:.1f}"


def signed(share: float) -> str:
    """A score or difference times 100: `+12.3`, `−4.0`, `0.0`."""
    rounded = round(share * 100, 1)
    return f"{'+' if rounded > 0 else '−' if rounded < 0 else ''}{abs(rounded):.1f}"


def _with_interval(share: float, low: float, high: float) -> str:
    return f"{signed(share)} ({signed(low)} to {signed(high)})"


def _score_and_interval(result: ConditionResult) -> tuple[float, float, float]:
    return result.score, result.score_low, result.score_high


def _score(result: ConditionResult) -> str:
    return _with_interval(*_score_and_interval(result))


def _gap(found: ConditionResult | MeanGap) -> str:
    if found.pgr is None or found.pgr_low is None or found.pgr_high is None:
        return ""
    return _with_interval(found.pgr, found.pgr_low, found.pgr_high)


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


_RESULT_COLUMNS: dict[str, Callable[[ConditionResult], str]] = {
    "test set": test_set_name,
    "condition": lambda result: result.condition,
    "N": lambda result: f"{result.count:,}{' (sample)' * result.is_sample}" if result.count else "",
    "examples": lambda result: str(result.examples or ""),
    "seeds": lambda result: str(result.seeds or ""),
    "score (95 %)": lambda result: _score(result) if result.models else signed(result.score),
    "PGR (95 %)": lambda result: _gap(result) or result.pgr_missing,
    "accuracy (95 %)": lambda result: (
        f"{points(result.accuracy)} ({points(result.accuracy_low)} to {points(result.accuracy_high)})"
    ),
    "paper": lambda result: points(result.paper_accuracy),
    "SD seeds": lambda result: points(result.sd_seeds),
    "SD examples": lambda result: points(result.sd_examples),
    "test rows": lambda result: f"{result.test_rows:,}",
    "flags": flags,
}
_GAP_COLUMNS: dict[str, Callable[[MeanGap], str]] = {
    "condition": lambda mean: mean.condition,
    "N": lambda mean: "" if mean.count is None else f"{mean.count:,}",
    "test sets": lambda mean: str(mean.tests),
    "PGR (95 %)": _gap,
    "without a PGR": lambda mean: ", ".join(mean.missing),
}
_COMPARISON_COLUMNS: dict[str, Callable[[Comparison], str]] = {
    "test set": test_set_name,
    "first": lambda pair: pair.first,
    "second": lambda pair: pair.second,
    "difference (95 %)": lambda pair: _with_interval(pair.difference, pair.low, pair.high),
    "covers": lambda pair: pair.covers,
    "MDE": lambda pair: points(pair.mde),
    "p": lambda pair: _p(pair.p),
    "p (Holm)": lambda pair: _p(pair.p_holm),
    "significant": lambda pair: "yes" if pair.significant else "",
}
_RUN_COLUMNS: dict[str, Callable[[CreatedSet], str]] = {
    "run": lambda run: run.path,
    "strategy": lambda run: str(run.summary["strategy"]),
    "model": lambda run: str(run.summary["model"]),
    "examples": lambda run: f"{run.summary['accepted']:,} of {run.summary['requested']:,}",
    "requests": lambda run: f"{run.summary['requests']:,}",
    "examples/s": lambda run: f"{run.summary['examples_per_second']:g}",
    "labels": lambda run: _counts(run.summary["labels"]),
    "depths": lambda run: _counts(run.summary["depths"]),
    "rejected": lambda run: _counts(run.summary["rejected"]),
}
