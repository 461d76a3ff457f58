"""`datacreate show`: the summary of a run, samples and metrics."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datacreate.cli.options import command, file_option, json_option, option, path_argument
from datacreate.cli.terminal import echo, print_columns, print_json, say
from datacreate.locking import exclusive_replacement
from datacreate.messages import safe_text
from datacreate.metrics import Metrics

if TYPE_CHECKING:
    from datacreate.runs.directory import RunDirectory
    from datacreate.runs.stats import RunSummary


@command()
@path_argument("run")
@option("--samples", type=click.IntRange(min=0), default=3, show_default=True, help="Examples to show.")
@file_option("--html", ".html", "Also write a page with charts and more samples.")
@json_option("Print everything as one JSON object.")
def show(run: Path, samples: int, html: Path | None, *, as_json: bool) -> None:
    """Show RUN's summary, some of its examples, shortcuts and diversity."""
    from datacreate.creation.run_metrics import measure_run
    from datacreate.runs.directory import RunDirectory

    directory = RunDirectory(run)
    config, summary = directory.read_config(), directory.summary()
    sample = draw_rows(directory, summary["accepted"], samples)
    metrics = measure_run(directory)
    if html:
        from datacreate.reporting.run_page import make_run_page

        page = make_run_page(directory, summary, metrics)
        with exclusive_replacement(html, say) as part:
            part.write_text(page, encoding="utf-8", errors="backslashreplace")
        say(f"wrote {html}")
    if as_json:
        spec = config.spec.model_dump(mode="json")
        print_json({"summary": summary, "spec": spec, "samples": sample, "metrics": asdict(metrics)})
    else:
        print_samples(sample)
        print_summary(summary)
        echo()
        _print_metrics(metrics)


def draw_rows(run: RunDirectory, total: int, count: int) -> list[dict[str, Any]]:
    """At most `count` of the `total` rows of a run, drawn by seed, in their order."""
    drawn = set(random.Random(0).sample(range(total), min(count, total)))
    rows = run.examples(with_attributes=True)
    return [values for index, values in enumerate(rows) if index in drawn]


def print_samples(examples: Sequence[dict[str, Any]]) -> None:
    """Print each example as a small table of its fields; markup in the texts has no effect."""
    for values in examples:
        _print_fields((name, value) for name, value in values.items() if value is not None)
        echo()


def print_summary(summary: RunSummary) -> None:
    """Print the most important figures, a line each, and warnings."""
    from datacreate.runs.stats import summary_fields

    _print_fields(summary_fields(summary).items())
    if warning := summary["depth_warning"]:
        echo(f"warning: {warning}", fg="yellow")


def _print_fields(fields: Any) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from datacreate.formats.example import field_text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(Text(safe_text(name)), Text(safe_text(field_text(value))))
    Console(highlight=False).print(table)


def _print_metrics(metrics: Metrics) -> None:
    if not metrics.rows:
        return
    if metrics.no_shortcuts:
        echo(f"shortcuts: not measured, {metrics.no_shortcuts}")
    for columns, rows in (metrics.shortcut_table(), metrics.diversity_table()):
        if rows:
            print_columns((columns, *rows))
            echo()
    for warning in [*metrics.warnings, *filter(None, [metrics.near_warning])]:
        echo(f"warning: {warning}", fg="yellow")
    echo(metrics.basis)
