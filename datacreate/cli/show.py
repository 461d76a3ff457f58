"""`datacreate show`: a run's summary, samples, shortcuts and diversity."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from datacreate.markdown import visible


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--samples",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Examples to show, drawn by --seed.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def show(run: Path, samples: int, seed: int, as_json: bool) -> None:
    """Show RUN's summary, a few of its examples, its shortcuts and how diverse it is."""
    from datacreate.dataset_metrics import DatasetMetrics
    from datacreate.runs.directory import RunDirectory

    directory = RunDirectory(run)
    config, summary = directory.read_config(), directory.summary()
    shown = _drawn(directory.examples(), summary["accepted"], samples, seed)
    metrics = DatasetMetrics().run(directory)
    if as_json:
        document = {
            "summary": summary,
            "spec": config.spec.model_dump(mode="json"),
            "samples": shown,
            "metrics": metrics,
        }
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    print_samples(shown)
    print_summary(summary)
    print()
    print_metrics(metrics)


def _drawn(examples: Iterable[dict[str, Any]], total: int, number: int, seed: int) -> list[dict[str, Any]]:
    """`number` of the examples, drawn without keeping all of them."""
    places = set(random.Random(seed).sample(range(total), min(number, total)))
    return [values for place, values in enumerate(examples) if place in places]


def print_samples(examples: Sequence[dict[str, Any]]) -> None:
    """Each example as a small table of its fields; whatever markup the text holds is shown as text."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for values in examples:
        table = Table(show_header=False, box=None, padding=(0, 1, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in values.items():
            if value is not None:
                table.add_row(Text(_spelled(name)), Text(_spelled(value)))
        console.print(table)
        console.print()


def _spelled(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        text = " · ".join(value)
    return visible(text)


def print_summary(summary: dict[str, Any]) -> None:
    """The figures worth reading, a line each, and what to beware of."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from datacreate.verification.report import undecided, verification_line

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    written = summary["accepted"] + sum(n for r, n in summary["rejected"].items() if r != "not_needed")
    share = f" ({summary['accepted'] / written:.0%} of what was written)" if written else ""
    rows = {
        "examples": f"{summary['accepted']} of {summary['requested']}{share}",
        "made by": f"{summary['model']}, {summary['strategy']}",
        "benchmark": summary.get("benchmark", ""),
        "rejected": _counts(summary["rejected"]),
        "depth": _counts(summary["depths"]),
        "labels": _counts(summary["labels"]),
        "verified": verification_line(verified) if (verified := summary["verification"]) else "",
        "test sets": _compared(summary["compared_with"]),
        "speed": f"{summary['examples_per_second']} examples/s, {summary['tokens_per_second']} tokens/s"
        + (f", {copies} engines" if (copies := summary.get("replicas", 1)) > 1 else ""),
        "cost": f"{summary['requests']} requests, {summary['generated_tokens']} tokens written "
        f"({summary['tokens_per_example']} an example), {summary['seconds']} s",
    }
    for name, figures in rows.items():
        if figures:
            table.add_row(name, Text(_spelled(figures)))
    console = Console(highlight=False)
    console.print(table)
    if verified:
        for warning in filter(None, (undecided(verified), verified["warning"])):
            console.print(Text(_spelled(f"warning: {warning}"), "yellow"))


def _compared(splits: Sequence[Mapping[str, Any]]) -> str:
    names = dict.fromkeys(split["benchmark"] for split in splits)
    return f"compared with {', '.join(names)}" if names else "compared with none"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())


def print_metrics(metrics: Mapping[str, Any]) -> None:
    """Two tables and the warnings; nothing for a run without rows."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from datacreate.metrics import tables

    if not metrics["rows"]:
        return
    console = Console(highlight=False)
    if metrics["no_shortcuts"]:
        console.print(Text(f"shortcuts: not measured, {metrics['no_shortcuts']}"))
    for columns, rows in (tables.shortcut_table(metrics), tables.diversity_table(metrics)):
        if rows:
            table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
            for index, column in enumerate(columns):
                table.add_column(Text(column), justify="right" if index else "left")
            for row in rows:
                table.add_row(*map(Text, row))
            console.print(table)
            console.print()
    for warning in tables.warnings(metrics):
        console.print(Text(f"warning: {warning}", "yellow"))
    console.print(Text(tables.basis(metrics), style="dim"))
