"""A Report -> its files: Markdown, CSV, JSON, and an HTML page with plots that needs no other file.

The page escapes every text (jinja2's autoescaping), and its content security policy allows no request and no
script but those written here, named by hash. Even unescaped markup could not run scripts or
load resources.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import html
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datacreate import markdown
from datacreate.errors import UsageError
from datacreate.files import replace_files
from datacreate.locking import locked
from datacreate.messages import visible
from datacreate.reporting.results import Comparison, Report, ResultCell, ResultTable
from datacreate.reporting.sections import NOT_ABOVE_CHANCE, flags, sections, test_name

if TYPE_CHECKING:
    from jinja2 import Template
    from plotly.graph_objects import Figure

_GROUP = ("distribution", "encoder", "encoder_sha256", "recipe", "selection", "generator")
"""Fields of a table that each of its lines in CSV begins with."""


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write all files into `folder`, which is made if needed; files of an older report are replaced.

    Returns their paths. Raises UsageError if there is a file at the folder's path, RunLocked if another process
    writes there, StorageError if the disk is full.
    """
    writers: dict[str, Callable[[Report], str]] = {
        "report.md": as_markdown,
        "results.csv": lambda report: as_csv(report, ResultCell),
        "comparisons.csv": lambda report: as_csv(report, Comparison),
        "report.json": as_json,
        "report.html": as_page,
    }
    if any(path.is_file() for path in (folder, *folder.parents)):
        raise UsageError(f"{folder} is a file, not a folder; choose another --out")
    # UTF-8 cannot hold lone surrogates: they are written as JSON escapes.
    texts = {
        folder / name: write(report).encode("utf-8", "backslashreplace").decode("utf-8")
        for name, write in writers.items()
    }
    with locked(folder):
        replace_files(texts)
    return list(texts)


def as_markdown(report: Report) -> str:
    """The report as Markdown that is also readable in a terminal."""
    blocks = ["# datacreate report"]
    for section in sections(report):
        blocks += [f"## {markdown.escape(section.title)}", *map(markdown.escape, section.paragraphs)]
        for table in section.tables:
            blocks += [f"### {markdown.escape(table.title)}"] if table.title else []
            blocks.append(markdown.table(table.columns, table.rows))
        if section.notes:
            blocks.append("\n".join(f"- {markdown.escape(note)}" for note in section.notes))
    return "\n\n".join([*blocks, f"Made by datacreate {report.version}."]) + "\n"


def as_csv(report: Report, record: type[ResultCell | Comparison]) -> str:
    """All cells or all comparisons of a report, a line each, below a line of field names."""
    names = [field.name for field in dataclasses.fields(record) if field.name != "sources"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*_GROUP, *names])
    for table in report.tables:
        for row in table.cells if record is ResultCell else table.comparisons:
            values = [getattr(table, name) for name in _GROUP] + [getattr(row, name) for name in names]
            writer.writerow(map(no_formula, values))
    return file.getvalue()


def no_formula(value: object) -> object:
    """A value that no spreadsheet takes for a formula: such text gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    text = " ".join(visible(value).split())
    return f"'{text}" if text.startswith(tuple("=+-@＝＋－＠")) and len(text) > 1 else text


def as_json(report: Report) -> str:
    """Every field of a `Report` by its name."""
    return json.dumps(dataclasses.asdict(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_page(report: Report) -> str:
    """The report as one HTML page."""
    from markupsafe import Markup

    page_sections, number = sections(report), count()
    plots = [
        [Markup(_figure_html(figure, next(number))) for figure in _figures(section.results)]
        for section in page_sections
    ]
    # Only plotly's output is searched here: it escapes "<" in every text.
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", "".join(chain(*plots)), re.DOTALL)
    policy = _content_security_policy(scripts)
    return _template().render(version=report.version, sections=page_sections, plots=plots, policy=policy)


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: object) -> object:
        return value if isinstance(value, Markup) else visible(str(value))

    layout: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    loader = PackageLoader("datacreate.reporting")
    environment = Environment(
        loader=loader, autoescape=True, finalize=shown, undefined=StrictUndefined, **layout
    )
    return environment.get_template("report.html.j2")


def _content_security_policy(scripts: Sequence[str]) -> str:
    digests = [base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in dict.fromkeys(digests)) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _figure_html(figure: Figure, number: int) -> str:
    """A figure as HTML with its script; the first one includes plotly.js."""
    config, name = {"displaylogo": False, "responsive": True}, f"plot-{number}"
    first = {"include_plotlyjs": number == 0, "div_id": name}
    return str(figure.to_html(config, full_html=False, default_height="420px", **first))


def _figures(table: ResultTable | None) -> list[Figure]:
    """The scores of a table as bars; and against training rows where a condition has several counts."""
    trained = [cell for cell in table.cells if cell.models] if table else []
    sizes: defaultdict[tuple[str, str], set[int | None]] = defaultdict(set)
    for cell in trained:
        sizes[test_name(cell), cell.condition].add(cell.count)
    several = {test for (test, _), counts in sizes.items() if len(counts) > 1}
    curves = [_learning_curve(test, [c for c in trained if test_name(c) == test]) for test in sorted(several)]
    return [_bars(trained), *curves] if trained else []


def _bars(cells: Sequence[ResultCell]) -> Figure:
    import plotly.graph_objects as go

    by_label: defaultdict[str, list[ResultCell]] = defaultdict(list)
    for cell in cells:
        by_label[cell.label].append(cell)
    traces = [
        go.Bar(
            x=[plain(test_name(cell)) for cell in same_label],
            **_scores(label, same_label),
            hovertext=[plain(flags(cell)) for cell in same_label],
            marker_pattern_shape=["/" * min(1, cell.not_above_chance) for cell in same_label],
        )
        for label, same_label in by_label.items()
    ]
    title = f"Chance-corrected score with 95 % interval (hatched: {NOT_ABOVE_CHANCE} not above chance)"
    return _styled(go.Figure(traces), title, "test set")


def _learning_curve(test: str, cells: Sequence[ResultCell]) -> Figure:
    import plotly.graph_objects as go

    points: defaultdict[str, dict[int, ResultCell]] = defaultdict(dict)
    for cell in sorted(cells, key=lambda cell: cell.full, reverse=True):  # a sample replaces a full set
        if cell.count is not None:
            points[cell.condition][cell.count] = cell
    traces = [
        go.Scatter(
            x=sorted(by_count),
            **_scores(condition, [by_count[count] for count in sorted(by_count)]),
            mode="lines+markers",
        )
        for condition, by_count in points.items()
    ]
    title = f"{plain(test)}: score by number of training rows"
    return _styled(go.Figure(traces), title, "training rows", xaxis_type="log")


def _scores(name: str, cells: Sequence[ResultCell]) -> dict[str, Any]:
    """The name and the scores, with their intervals, of a trace."""
    above = [max(0.0, cell.score_high - cell.score) * 100 for cell in cells]
    below = [max(0.0, cell.score - cell.score_low) * 100 for cell in cells]
    errors = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
    return {"name": plain(name), "y": [cell.score * 100 for cell in cells], "error_y": errors}


def _styled(figure: Figure, title: str, x: str, **layout: Any) -> Figure:
    names = {"title": title, "xaxis_title": x, "yaxis_title": "score (0 is chance)"}
    return figure.update_layout(template="plotly_white", **names, **layout)


def plain(text: str) -> str:
    """A text that plotly shows literally: it would interpret <b>, <a href> and entities."""
    return html.escape(visible(text), quote=False)
