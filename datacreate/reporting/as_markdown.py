"""A report as Markdown, to be read on a terminal as well as rendered. Text is shown as nothing but text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from datacreate.formats.example import Json
from datacreate.metrics.summary_lines import (
    Measures,
    basis,
    diversity_lines,
    human_name,
    shortcut_lines,
    warnings,
)
from datacreate.reporting.markdown_text import escaped, grid
from datacreate.reporting.tables import (
    Cell,
    CreatedSet,
    Difference,
    Interval,
    PaperFigure,
    Report,
    Row,
    Table,
)
from datacreate.reporting.wording import between, p_value, points, signed

LEGEND = (
    "Primary figure: balanced accuracy (yes/no) or accuracy (options), centred: 0 is chance, 100 is perfect. "
    "In brackets 95 % intervals: of one model over test rows (accuracy by Wilson), of several by a bootstrap "
    "over formatting example, training seed and row; with a single formatting example or seed the interval "
    "cannot know how these differ, and with few it knows little. e, t: formatting examples and training "
    "seeds behind the cell. †: so many of its models have collapsed. N: training rows, those held out for "
    "model selection included; a cell with another N than its row says so. MDE: the smallest difference of "
    "two accuracies, in points, that the test set shows at 80 % power. The paper's figures are of "
    "RoBERTa-large, trained on as many rows as the human train split has."
)

_SAMPLES = 3
_LONGEST = 240  # characters of a sample's field


def markdown(report: Report) -> str:
    """The whole report, tables first."""
    return "\n".join(_lines(report)).rstrip() + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield "# What the runs are worth"
    yield ""
    where = ", ".join(map(escaped, report.paths))
    yield f"{report.evaluations} evaluations below {where}; datacreate {escaped(report.version)}."
    if report.tables:
        yield from ("", LEGEND)
    else:
        yield from ("", "No evaluation was found: `datacreate evaluate` makes them.")
    for table in report.tables:
        yield from ("", f"## {escaped(table.title)}", "")
        yield from _table(table, report)
    if len(report.curves) > sum(len(curve.points) < 2 for curve in report.curves):
        yield from ("", "## Primary figure against number of training rows", "")
        yield from _curves(report)
    for created in report.created:
        yield from ("", f"## Created set {escaped(created.path)}", "")
        yield from _created(created)
    if report.skipped:
        yield from ("", "## Not in this report, or not whole", "")
        yield from (f"- {escaped(one.path)}: {escaped(one.reason)}" for one in report.skipped)
    if any(any(row.paper) for table in report.tables for row in table.rows):
        yield from ("", f"Paper: {escaped(report.citation)}")


def _table(table: Table, report: Report) -> Iterator[str]:
    titles = [escaped(column.title) for column in table.columns]
    head = ["test set" if table.place == "in" else "train → test", "N"]
    yield "Primary figure"
    yield ""
    primary = [[*_names(row), *(_primary(cell, row) for cell in row.cells)] for row in table.rows]
    yield from grid([*head, *titles], primary)
    yield from ("", "Accuracy, as in the paper", "")
    accuracy = [
        [*_names(row), *map(_accuracy, row.cells, row.paper), _tested(row), _smallest(row)]
        for row in table.rows
    ]
    yield from grid([*head, *titles, "rows", "MDE"], accuracy)
    if table.missing:
        pairs = (test if table.place == "in" else f"{train} → {test}" for train, test in table.missing)
        yield from ("", f"No runs yet: {', '.join(map(escaped, pairs))}.")
    if any(figure and figure.printed_swapped for row in table.rows for figure in row.paper):
        yield from ("", f"‡ {escaped(report.swapped_note)}")
    if spreads := list(_spreads(table)):
        yield from ("", "Standard deviation of the primary figure, in points, by its source", "")
        yield from grid(["row", "condition", "training seeds of one set", "sets of rows"], spreads)
    if remarks := list(_remarks(table)):
        yield ""
        yield from remarks
    if table.differences:
        yield from ("", *_differences(table))


def _names(row: Row) -> list[str]:
    return [_row_name(row), "" if row.count is None else f"{row.count:,}"]


def _row_name(row: Row) -> str:
    test = row.test if row.split == "test" else f"{row.test} ({row.split})"
    return escaped(test if row.train == row.test else f"{row.train} → {test}")


def _primary(cell: Cell | None, row: Row) -> str:
    if cell is None:
        return "–"
    if not cell.models:
        return signed(cell.primary)
    marks = [f"[{between(cell.primary_interval)}]"]
    if cell.count is not None:
        marks.append(f"{cell.examples}e·{cell.seeds}t" if cell.examples else f"{cell.seeds}t")
        if cell.count != row.count:
            marks.append(f"N={cell.count:,}")
    if cell.collapsed:
        marks.append(f"†{cell.collapsed}/{cell.models}")
    return " ".join([signed(cell.primary), *marks])


def _accuracy(cell: Cell | None, paper: PaperFigure | None) -> str:
    ours = "–" if cell is None else f"{points(cell.accuracy)} {_bounds(cell.accuracy_interval)}"
    if paper is None:
        return ours
    return f"{ours} (paper {100 * paper.accuracy:.2f}{'‡' if paper.printed_swapped else ''})"


def _bounds(interval: Interval) -> str:
    return f"[{points(interval[0])} to {points(interval[1])}]"


def _tested(row: Row) -> str:
    return "" if row.rows is None else f"{row.rows:,}"


def _smallest(row: Row) -> str:
    return "" if row.smallest_difference is None else points(row.smallest_difference)


def _cells(table: Table) -> Iterator[tuple[str, str, Cell]]:
    """(row, arm, cell) of all cells that models stand behind, each once."""
    seen: set[tuple[str, ...]] = set()
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            if cell is not None and cell.models and cell.sources not in seen:
                seen.add(cell.sources)
                yield " ".join(filter(None, _names(row))), escaped(column.title), cell


def _spreads(table: Table) -> Iterator[list[str]]:
    for row, condition, cell in _cells(table):
        parts = (cell.spread.seeds, cell.spread.sets)
        if parts != (None, None):
            yield [row, condition, *("–" if part is None else points(part) for part in parts)]


def _remarks(table: Table) -> Iterator[str]:
    for row, condition, cell in _cells(table):
        if cell.collapsed:
            why = escaped(cell.collapse_reasons[0]) + ("; …" if cell.collapse_reasons[1:] else "")
            yield f"- † {row}, {condition}: {cell.collapsed} of {cell.models} collapsed: {why}"
        if cell.unanswered:
            yield f"- {row}, {condition}: {cell.unanswered} test rows could not be encoded and count as wrong"
        if cell.truncated:
            yield f"- {row}, {condition}: {cell.truncated} test rows were cut to the encoder's length"


def _differences(table: Table) -> Iterator[str]:
    significant = sum(one.significant for one in table.differences)
    yield (
        "Arms compared by McNemar's exact test on the majority votes of their models, Holm-corrected over "
        rf"the {len(table.differences)} comparisons of this table: {significant} significant at 5 % "
        r"(marked \*). The test knows the test rows, and not how formatting examples differ."
    )
    yield ""
    yield from grid(
        ["row", "first", "second", "accuracy, points", "only first", "only second", "p", "p (Holm)", ""],
        [_difference(table, one) for one in table.differences],
    )


def _difference(table: Table, one: Difference) -> list[str]:
    return [
        " ".join(filter(None, _names(table.rows[one.row]))),
        escaped(table.columns[one.first].title),
        escaped(table.columns[one.second].title),
        signed(one.difference),
        str(one.first_only),
        str(one.second_only),
        p_value(one.p),
        p_value(one.p_holm),
        r"\*" if one.significant else "",
    ]


def _curves(report: Report) -> Iterator[str]:
    rows = [
        [
            escaped(curve.benchmark if curve.split == "test" else f"{curve.benchmark} ({curve.split})"),
            escaped(curve.condition),
            escaped(
                ", ".join(filter(None, (curve.encoder, curve.settings, curve.selection, curve.generator)))
            ),
            f"{point.count:,}",
            f"{signed(point.primary)} [{between((point.low, point.high))}]",
            points(point.accuracy),
        ]
        for curve in report.curves
        if len(curve.points) > 1
        for point in curve.points
    ]
    yield from grid(["benchmark", "condition", "trained", "N", "primary", "accuracy"], rows)


def _created(made: CreatedSet) -> Iterator[str]:
    state = "" if made.finished else " (unfinished)"
    yield (
        f"{made.accepted:,} of {made.requested:,} examples{state}, written by {escaped(made.model)}, "
        f"strategy {escaped(made.strategy)}, method {escaped(made.method)}, seed {made.seed}; "
        f"{made.requests:,} requests, {made.generated_tokens:,} tokens, "
        f"{made.examples_per_second:g} examples/s."
    )
    yield ""
    if made.labels:
        yield f"- labels: {_shares(made.labels)}"
    if made.depths:
        yield f"- depth below the formatting example: {_counts(made.depths)}"
    yield f"- rejected: {_counts(made.rejected) or 'nothing'}"
    if made.distance:
        d = made.distance
        depths = ", ".join(f"{depth}: {value:.2f}" for depth, value in islice(d.by_depth.items(), 12))
        yield (
            f"- distance to the formatting example ({escaped(d.measure)}, {d.compared:,} compared): "
            f"mean {d.mean:.2f}, median {d.median:.2f}; by depth {depths}"
        )
    if made.measures is not None:
        yield from _measures(made.measures)
    yield from ("", "Formatting example:", "")
    yield from _fields([made.example])
    if made.samples:
        yield from ("", "Samples:", "")
        yield from _fields(made.samples[:_SAMPLES])


def _measures(measures: Measures) -> Iterator[str]:
    """Shortcuts and diversity, each beside the human train set's."""
    human = human_name(measures)
    beside = [escaped(human)] if human else []
    if lines := shortcut_lines(measures):
        yield ""
        yield from grid(
            ["shortcut", "this set", "chance", *beside],
            [
                [
                    escaped(line.name),
                    *(points(share) for share in (line.ours, line.chance)),
                    *(["–" if line.human is None else points(line.human)] if human else []),
                ]
                for line in lines
            ],
        )
        if found := warnings(measures):
            yield from ("", *(f"- Warning: {escaped(one)}" for one in found))
    else:
        yield f"- shortcuts: none measured, {escaped(measures['no_shortcuts'])}"
    if figures := diversity_lines(measures):
        yield ""
        yield from grid(
            ["diversity", "this set", *beside],
            [
                [
                    escaped(line.name),
                    line.spelled(line.ours),
                    *([line.spelled(line.human) or "–"] if human else []),
                ]
                for line in figures
            ],
        )
        yield from ("", f"{escaped(basis(measures))}.")


def _fields(examples: Sequence[Mapping[str, Json]]) -> Iterator[str]:
    """Examples as a table, a field per column."""
    names = list(dict.fromkeys(name for values in examples for name in values))
    rows = [[_sample(values.get(name)) for name in names] for values in examples]
    yield from grid(list(map(escaped, names)), rows)


def _sample(value: Json) -> str:
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = " · ".join(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return escaped(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")


def _counts(counts: Mapping[str, int] | Mapping[int, int]) -> str:
    return ", ".join(f"{escaped(str(name))} {number:,}" for name, number in counts.items())


def _shares(counts: Mapping[str, int]) -> str:
    total = max(1, sum(counts.values()))
    return ", ".join(f"{escaped(name)} {number:,} ({number / total:.0%})" for name, number in counts.items())
