"""A Report -> its files: Markdown, CSV, JSON, and an HTML page with plots that needs no other file.

The page escapes every text (jinja2's autoescaping), and its content security policy allows no request.
"""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datacreate.errors import UsageError
from datacreate.files import replace_files
from datacreate.locking import locked
from datacreate.messages import markdown, markdown_table, printable, visible
from datacreate.reporting.results import Comparison, Report, ResultCell
from datacreate.reporting.sections import NOT_ABOVE_CHANCE, flags, sections, test_name

if TYPE_CHECKING:
    from jinja2 import Template

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
        blocks += [f"## {markdown(section.title)}", *map(markdown, section.paragraphs)]
        for table in section.tables:
            blocks += [f"### {markdown(table.title)}"] if table.title else []
            blocks.append(markdown_table(table.columns, table.rows))
        if section.notes:
            blocks.append("\n".join(f"- {markdown(note)}" for note in section.notes))
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
            writer.writerow([printable(value) if isinstance(value, str) else value for value in values])
    return file.getvalue()


def as_json(report: Report) -> str:
    """Every field of a `Report` by its name."""
    return json.dumps(dataclasses.asdict(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_page(report: Report) -> str:
    """The report as one HTML page."""
    from markupsafe import Markup

    plots: list[str] = []
    for section in (page_sections := sections(report)):
        cells = [cell for cell in section.results.cells if cell.models] if section.results else []
        plots.append(Markup(_bars(cells, sum(map(bool, plots)))) if cells else "")
    return _template().render(version=report.version, sections=page_sections, plots=plots)


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


def _bars(cells: Sequence[ResultCell], number: int) -> str:
    """A plot of scores as HTML with its script; the first one of a page includes plotly.js."""
    import plotly.graph_objects as go

    by_label: defaultdict[str, list[ResultCell]] = defaultdict(list)
    for cell in cells:
        by_label[cell.label].append(cell)
    traces = []
    for label, same_label in by_label.items():
        above = [max(0.0, cell.score_high - cell.score) * 100 for cell in same_label]
        below = [max(0.0, cell.score - cell.score_low) * 100 for cell in same_label]
        traces.append(
            go.Bar(
                name=plain(label),
                x=[plain(test_name(cell)) for cell in same_label],
                y=[cell.score * 100 for cell in same_label],
                error_y={"type": "data", "symmetric": False, "array": above, "arrayminus": below},
                hovertext=[plain(flags(cell)) for cell in same_label],
                marker_pattern_shape=["/" * min(1, cell.not_above_chance) for cell in same_label],
            )
        )
    title = f"Chance-corrected score with 95 % interval (hatched: {NOT_ABOVE_CHANCE} not above chance)"
    names = {"title": title, "xaxis_title": "test set", "yaxis_title": "score (0 is chance)"}
    figure = go.Figure(traces).update_layout(template="plotly_white", **names)
    config, layout = (
        {"displaylogo": False, "responsive": True},
        {"default_height": "420px", "full_html": False},
    )
    return str(figure.to_html(config, include_plotlyjs=number == 0, div_id=f"plot-{number}", **layout))


def plain(text: str) -> str:
    """A text that plotly shows literally: it would interpret <b>, <a href> and entities."""
    return html.escape(visible(text), quote=False)
