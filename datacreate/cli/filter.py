"""`datacreate filter`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from datacreate.cli.options import command, json_option, option, settings_options
from datacreate.cli.terminal import printable
from datacreate.filtering import DatasetFilterSettings
from datacreate.markdown import visible


@command()
@click.argument("source", type=click.Path(path_type=Path), metavar="RUN|FILE.jsonl")
@option("--out", type=click.Path(path_type=Path), group="output", help="Write the kept rows here, unchanged.")
@option(
    "--rejects",
    type=click.Path(path_type=Path),
    group="output",
    help="Write the dropped rows here, with reasons.",
)
@settings_options(DatasetFilterSettings)
@json_option("Print the counts as JSON.")
def filter(
    source: Path, out: Path | None, rejects: Path | None, settings: dict[str, Any], as_json: bool
) -> None:
    """Check the rows of a run or of a JSONL file; without --out, only report.

    Of rows that repeat each other, the first is kept.

    \b
    datacreate filter runs/csqa
    datacreate filter mine.jsonl --out clean.jsonl --rejects dropped.jsonl
    datacreate filter mine.jsonl --near 0.8 --semantic 0.95 --decontaminate csqa --balance
    datacreate filter mine.jsonl --verifier qwen3-8b --out clean.jsonl --rejects dropped.jsonl
    """
    from datacreate.cli.progress import TrainingProgress
    from datacreate.filtering import filter_rows

    with TrainingProgress("rows") as shown:
        report = filter_rows(
            source,
            DatasetFilterSettings.of(**settings),
            out=out,
            rejects=rejects,
            notify=shown.notify,
            on_progress=lambda done, total: shown.step("filter", done, total, None),
        )
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    """A table of the filters in order, then the number of kept rows and the labels."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if Console().is_terminal else 160, highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("filter", no_wrap=True)
    table.add_column("dropped", justify="right", no_wrap=True)
    table.add_column("settings", overflow="fold")
    if report["invalid"]:
        first = Text(printable(f"first: {report['first_invalid']}"))
        table.add_row("invalid", str(report["invalid"]), first)
    for one in report["filters"]:
        dropped, settings = (str(one["rejected"]), _settings(one["settings"])) if one["on"] else ("", "off")
        table.add_row(one["name"], dropped, Text(printable(settings)))
    if report["balance"]["on"]:
        table.add_row("balance", str(report["balance"]["rejected"]), "")
    console.print(table)
    total = report["rows"] + report["invalid"]
    console.print(Text(f"kept {report['kept']} of {total} rows ({report['kept'] / total:.1%})"))
    before, after = report["labels"]["before"], report["labels"]["after"]
    if before:
        labels = ", ".join(f"{label} {number} -> {after[label]}" for label, number in before.items())
        console.print(Text(visible(f"labels: {labels}")))
    for name in ("out", "rejects"):
        if report[name]:
            console.print(Text(printable(f"{name}: {report[name]}")))


def _settings(settings: dict[str, Any]) -> str:
    shown = {name: ", ".join(value) if isinstance(value, list) else value for name, value in settings.items()}
    return "; ".join(f"{name} {'off' if value is None else value}" for name, value in shown.items())
