"""Writes a Report as JSON, as Markdown, and as one HTML page with charts.

Markdown and page show the same sections of tables. The page needs no other file and has no script. It escapes every
text (jinja2's autoescaping), and its content security policy allows no request.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datacreate.files import replace_files
from datacreate.intervals import IntervalEstimate
from datacreate.locking import locked
from datacreate.messages import markdown, markdown_table
from datacreate.reporting.charts import COLORS, Bar, Chart, CurvePoint, Plot, line_plot, page_template
from datacreate.reporting.pgr import Curves, make_learning_curves, rows_to_match
from datacreate.reporting.results import Comparison, ConditionResult, MeanPGR, Report, ResultTable, checkpoint_name
from datacreate.runs.stats import summary_fields


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write all files into `folder`, which is made if needed; files of an older report are replaced.

    Returns their paths. Raises StorageError, and RunLocked if another process writes there.
    """
    texts = {"report.md": as_markdown(report), "report.json": as_json(report), "report.html": as_page(report)}
    # UTF-8 cannot hold lone surrogates: they are written as JSON escapes.
    files = {folder / name: text.encode("utf-8", "backslashreplace").decode("utf-8") for name, text in texts.items()}
    with locked(folder):
        replace_files(files)
    return list(files)


def as_markdown(report: Report) -> str:
    """The report as Markdown that is also readable in a terminal."""
    blocks = ["# datacreate report"]
    for section in sections(report):
        blocks += [f"## {markdown(section.title)}", *map(markdown, section.paragraphs)]
        for table in section.tables:
            blocks += [f"### {markdown(table.title)}", markdown_table(table.columns, table.rows)]
        if section.notes:
            blocks.append("\n".join(f"- {markdown(note)}" for note in section.notes))
    return "\n\n".join([*blocks, f"Made by datacreate {report.version}."]) + "\n"


def as_json(report: Report) -> str:
    """The report as JSON, with every field of `Report` by its name."""
    return json.dumps(dataclasses.asdict(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_page(report: Report) -> str:
    return page_template("report.html.j2").render(version=report.version, sections=sections(report))


DEGENERATE, NOT_ABOVE_CHANCE, FEW_EXAMPLES = "†‡°"  # symbols of a result in tables

LEGEND = (
    "Score: chance-corrected balanced accuracy (fixed labels) or accuracy (options); 0 is chance, 100 is perfect. "
    "Accuracy: uncorrected, as in the paper; constant: that of the best constant prediction. In parentheses: 95 % "
    "intervals over test rows, seeds and formatting examples, where there are several.",
    "N: training rows, validation rows included. SD seeds: standard deviation of the score between seeds of one "
    "training set; SD examples: between the means of formatting examples.",
    "PGR: performance gap recovered, the score in percent of that of as many human rows (same encoder, hyperparameters,"
    " model selection and test rows); undefined where that score is not significantly above chance.",
    f"{DEGENERATE} degenerate: one class is predicted for at least 95 % of the rows. {NOT_ABOVE_CHANCE} not "
    "significantly above chance: the 95 % interval of the score reaches down to chance. Both with the number of "
    f"models. {FEW_EXAMPLES} fewer than three formatting examples: how examples differ is unknown or uncertain.",
)
COMPARED = (
    "Difference of the scores, first less second. Covers: what its 95 % interval and p include. MDE: minimum "
    "detectable effect, the true difference that is found with 80 % power. p (Holm) is corrected for the whole table."
)
SEVERAL_SETS = (
    "Several training sets of one formatting example count as one condition; if their runs differ in more than seeds, "
    "such as verification, name them with --condition of train"
)
MATCHED = (
    "Created rows that match human rows: the smallest measured number of created rows with at least the mean score of "
    "a number of human rows, where that is significantly above chance; the means are compared, not tested."
)
MIN_EXAMPLES = 3  # with fewer formatting examples a result is marked
_SELECTION = {
    "held-out": "model selected on a tenth of the training rows",
    "human": "model selected on the human dev split",
    "file": "model selected on the rows of a file",
    "none": "no model selection",
}
_TITLES = {"in": "In distribution", "out": "Out of distribution", "own": "Own test files", "untrained": "Not trained"}


@dataclass(frozen=True)
class Table:
    """A table of texts, which are not escaped yet."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @classmethod
    def of(cls, title: str, columns: Mapping[str, Callable[[Any], str]], records: Sequence[object]) -> Table:
        """A table with a row per record; `columns` has a function for each column, which makes its text."""
        return cls(title, list(columns), [[text(record) for text in columns.values()] for record in records])


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, tables and footnotes; charts and plots are on the page only."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    plots: Sequence[Plot] = ()


def sections(report: Report) -> list[Section]:
    """The sections of a report in order."""
    counts = f"{report.evaluations} evaluations and {len(report.runs)} runs"
    about = f"{counts} in {', '.join(report.paths)}."
    made = [Section("Overview", [about, *(LEGEND if report.tables else ())])]
    made += [_results(table, report.paper_citation) for table in report.tables]
    if report.runs:
        about = "A language model wrote these examples; some of them, shortcuts and diversity: datacreate show RUN."
        runs = {path: summary_fields(summary) for path, summary in report.runs.items()}
        names = list(dict.fromkeys(name for fields in runs.values() for name in fields))
        rows = [[path, *(fields.get(name, "") for name in names)] for path, fields in runs.items()]
        made.append(Section("Created sets", [about], [Table("Runs", ["run", *names], rows)]))
    if report.skipped:
        skipped = Table("Folders", ("folder", "reason"), list(report.skipped.items()))
        made.append(Section("Skipped", tables=[skipped]))
    return made


def _results(table: ResultTable, citation: str) -> Section:
    """The section of a table of results: its heading names what all results share."""
    curves = make_learning_curves(table.results)
    tables = [Table.of("Results", _RESULT_COLUMNS, table.results)]
    if table.mean_pgrs:
        tables.append(Table.of("Mean PGR over test sets", _PGR_COLUMNS, table.mean_pgrs))
    if table.comparisons:
        significant = sum(comparison.is_significant for comparison in table.comparisons)
        title = f"Comparisons: {significant} of {len(table.comparisons)} significant at 5 %"
        tables.append(Table.of(title, _COMPARISON_COLUMNS, table.comparisons))
    tables += map(_curve_table, curves)
    title = _TITLES[table.distribution]
    if table.distribution != "untrained":
        encoder = checkpoint_name(table.encoder, table.encoder_sha256)
        written = f", rows written by {table.generator}" if table.generator else ""
        title += f": {encoder}, hyperparameters {table.hyperparameters}, {_SELECTION[table.selection]}{written}"
    plots = list(map(_curve_plot, curves))
    return Section(title, (), tables, _notes(table, curves, citation), _score_charts(table.results), plots)


def _notes(table: ResultTable, curves: Sequence[Curves], citation: str) -> list[str]:
    """The footnotes of a table of results."""
    notes = []
    if table.comparisons:
        notes.append(COMPARED)
    if curves:
        notes.append(MATCHED)
    if any(result.paper_accuracy is not None for result in table.results):
        notes.append(f"Paper: {citation}")
    different, several = defaultdict[str, set[str]](set), set[str]()
    for result in table.results:
        if result.differing_settings:
            different[result.label].update(result.differing_settings)
        elif 0 < result.examples < result.training_sets:
            several.add(result.label)
    notes += [
        f"warning: {label}: training sets that were created with different settings ({', '.join(sorted(names))}) count "
        "as one condition; name each with --condition of train."
        for label, names in different.items()
    ]
    if several:
        notes.append(f"{SEVERAL_SETS}: {', '.join(sorted(several))}.")
    by_test = defaultdict[str, list[ConditionResult]](list)
    for result in table.results:
        by_test[result.test_set].append(result)
    for test, results in by_test.items():
        versions = len({result.test_digest for result in results})
        if versions > 1:
            notes.append(f"{test}: {versions} versions of the test rows; only results on one are compared.")
        unanswered = max(result.unanswered_rows for result in results)
        truncated = max(result.truncated_rows for result in results)
        if unanswered or truncated:
            notes.append(f"{test}: up to {unanswered} test rows unanswered (wrong), {truncated} truncated.")
        if any(result.classes == 1 for result in results):
            notes.append(f"{test}: all test rows have one label, so the score is 0 by definition.")
    return notes


def _score_charts(results: Sequence[ConditionResult]) -> list[Chart]:
    """A chart of the scores on each test set; a score below chance has no bar."""
    charts = defaultdict[str, list[Bar]](list)
    for result in results:
        color = COLORS - 1 if result.models_not_above_chance else 0
        width, *marks = (100 * max(0.0, share) for share in dataclasses.astuple(result.score))
        value = f"{_with_ends(result.score)} {flags(result)}"
        charts[result.test_set].append(Bar(result.label, value, [(color, width)], marks))
    return [Chart(name, bars) for name, bars in charts.items()]


def _curve_plot(curves: Curves) -> Plot:
    series: defaultdict[str, dict[int, CurvePoint]] = defaultdict(dict)
    for name, results in curves.items():
        for count, result in results.items():
            y, low, high = (100 * share for share in dataclasses.astuple(result.score))
            series[name][count] = y, low, high, f"{name}, {count:,} rows: {_with_ends(result.score)}"
    return line_plot(_test_set(curves), series)


def _curve_table(curves: Curves) -> Table:
    """The score of each condition by number of training rows, and how many created rows match human rows."""
    counts = sorted({count for points in curves.values() for count in points})
    rows = []
    for condition, points in curves.items():
        scores = [_with_ends(points[count].score) if count in points else "" for count in counts]
        matches = [
            f"{human:,} human: " + (f"{match:,}" if match else f"none up to {max(points):,}")
            for human, match in rows_to_match(curves, condition).items()
        ]
        rows.append([condition, *scores, "; ".join(matches)])
    columns = ["condition", *(f"{count:,} rows" for count in counts), "created rows that match human rows"]
    return Table(f"Learning curves: {_test_set(curves)}", columns, rows)


def _test_set(curves: Curves) -> str:
    return next(result.test_set for points in curves.values() for result in points.values())


def flags(result: ConditionResult) -> str:
    """The symbols of LEGEND that apply, as `†1/3 ‡2/3 °`; empty if no model has a flag."""
    counts = {DEGENERATE: result.degenerate_models, NOT_ABOVE_CHANCE: result.models_not_above_chance}
    shown = [f"{flag}{count}/{result.models}" for flag, count in counts.items() if count]
    if 0 < result.examples < MIN_EXAMPLES:
        shown.append(FEW_EXAMPLES)
    return " ".join(shown)


def points(share: float | None) -> str:
    """A share times 100; empty without a share."""
    return "" if share is None else f"{share * 100:.1f}"


def signed(share: float) -> str:
    """A score or difference times 100: `+12.3`, `−4.0`, `0.0`."""
    rounded = round(share * 100, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def percent(share: float) -> str:
    """A share in percent: `126`, `−8`."""
    return str(round(share * 100)).replace("-", "−")


def _with_ends(estimate: IntervalEstimate | str, shown: Callable[[float], str] = signed) -> str:
    """A value with the ends of its interval: `+12.3 (+7.2 to +18.3)`. A text in place of a value stays as it is."""
    if isinstance(estimate, str):
        return estimate
    return f"{shown(estimate.value)} ({shown(estimate.low)} to {shown(estimate.high)})"


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


_RESULT_COLUMNS: dict[str, Callable[[ConditionResult], str]] = {
    "test set": lambda result: result.test_set,
    "condition": lambda result: result.condition,
    "N": lambda result: f"{result.count:,}{' (sample)' * (not result.has_all_rows)}" if result.count else "",
    "examples": lambda result: str(result.examples or ""),
    "seeds": lambda result: str(result.seeds or ""),
    "score (95 %)": lambda result: _with_ends(result.score),
    "PGR (95 %)": lambda result: _with_ends(result.pgr, percent),
    "accuracy (95 %)": lambda result: _with_ends(result.accuracy, points),
    "constant": lambda result: points(result.constant_accuracy),
    "paper": lambda result: points(result.paper_accuracy),
    "SD seeds": lambda result: points(result.sd_seeds),
    "SD examples": lambda result: points(result.sd_examples),
    "test rows": lambda result: f"{result.test_rows:,}",
    "flags": flags,
}
_PGR_COLUMNS: dict[str, Callable[[MeanPGR], str]] = {
    "condition": lambda mean: mean.condition,
    "N": lambda mean: "" if mean.count is None else f"{mean.count:,}",
    "test sets": lambda mean: str(mean.tests),
    "PGR (95 %)": lambda mean: _with_ends(mean.pgr, percent),
    "without a PGR": lambda mean: ", ".join(mean.tests_without_pgr),
}
_COMPARISON_COLUMNS: dict[str, Callable[[Comparison], str]] = {
    "test set": lambda pair: pair.test_set,
    "first": lambda pair: pair.first,
    "second": lambda pair: pair.second,
    "difference (95 %)": lambda pair: _with_ends(pair.difference),
    "covers": lambda pair: pair.covers,
    "MDE": lambda pair: points(pair.mde),
    "p": lambda pair: _p(pair.p),
    "p (Holm)": lambda pair: _p(pair.p_holm),
    "significant": lambda pair: "yes" if pair.is_significant else "",
}
