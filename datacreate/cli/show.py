"""Commands about results: `show`, `review` and `export` of a run, and `report`, the tables of all results."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datacreate.cli.options import (
    command,
    file_option,
    json_option,
    option,
    path_argument,
    path_option,
    settings_options,
)
from datacreate.cli.terminal import echo, is_live, print_columns, print_json, say
from datacreate.errors import UsageError
from datacreate.locking import exclusive_replacement
from datacreate.messages import safe_text
from datacreate.metrics import Metrics
from datacreate.review.session import FLAGS, select_rows
from datacreate.runs.export import LAYOUTS
from datacreate.runs.export import export as export_run
from datacreate.runs.stats import RunSummary
from datacreate.settings import Settings, Shares, setting

if TYPE_CHECKING:
    from datacreate.runs.directory import RunDirectory


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
        from datacreate.reporting.run_page import run_page

        page = run_page(directory, summary, metrics)
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


class _SplitOptions(Settings):
    split: Shares | None = setting(
        "Share of each file, such as train=0.9,validation=0.1; rows of one parent or passage stay together.",
        "output",
        metavar="NAME=0.9,...",
    )


@command()
@path_argument("run")
@option(
    "--layout",
    type=click.Choice(list(LAYOUTS)),
    default="jsonl",
    show_default=True,
    group="output",
    help="jsonl: as train.jsonl; hf: a datasets folder; parquet; csv; chat: conversations; alpaca: instruction, input, "
    "output; preference: prompt, chosen, rejected.",
)
@path_option("--out", group="output", help="Folder; older files are replaced.  [default: RUN/export/LAYOUT]")
@settings_options(_SplitOptions, "split_options")
@option("--with-attributes", is_flag=True, group="output", help="Add a column attributes.NAME per dimension.")
@option("--seed", type=int, help="Seed that draws the splits.  [default: 42]", group="output")
@option("--partial", is_flag=True, help="Export what an unfinished run has so far.")
def export(
    run: Path, layout: str, out: Path | None, split_options: dict[str, Any], seed: int | None, **options: Any
) -> None:
    """Write RUN's examples in another layout, as one file or split."""
    from datacreate.runs.directory import RunDirectory

    split = _SplitOptions.of(**split_options).split
    if seed is not None:
        if split is None:
            raise UsageError("--seed draws the splits; give --split, or remove --seed")
        options["seed"] = seed
    for path in export_run(RunDirectory(run), layout, out, split=split, notify=say, **options):
        echo(str(path))


@command()
@path_argument("paths", nargs=-1, metavar="[PATH...]")
@path_option("--out", group="output", default="report", help="Folder; replaces an older report.  [default: report]")
@json_option("Print the report as JSON instead of Markdown.")
def report(paths: tuple[Path, ...], out: Path, *, as_json: bool) -> None:
    """Report all evaluations and runs below PATHs (default: runs).

    Writes report.md, report.html and report.json, and prints report.md.
    """
    from datacreate.reporting.build import build_report
    from datacreate.reporting.render import write_report

    document = build_report(paths or (Path("runs"),), notify=say)
    for path, reason in document.skipped.items():
        say(f"skipped {path}: {reason}")
    files = write_report(document, out)
    if as_json:
        print_json(json.loads((out / "report.json").read_text(encoding="utf-8")))
    else:
        echo((out / "report.md").read_text(encoding="utf-8"), nl=False)
    say(f"wrote {', '.join(map(str, files))}")


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


@command()
@path_argument("run")
@option("--label", metavar="LABEL", help="Only rows with this label.", group="input")
@option("--flag", type=click.Choice(list(FLAGS)), help="Only rows with this flag.", group="input")
@option(
    "--sample",
    type=click.IntRange(1),
    metavar="N",
    group="input",
    help="Show N rows drawn at random, and estimate how many labels are right.",
)
@option("--seed", type=int, help="Seed of --sample.  [default: 0]", group="input")
@file_option("--export", ".csv", "Write the rows for a spreadsheet, into a new file.")
@path_option("--import", "import_", metavar="FILE.csv", help="Read decisions from that file.", group="input")
@json_option("Print the counts of all decisions as JSON.")
def review(
    run: Path,
    label: str | None,
    flag: str | None,
    sample: int | None,
    seed: int | None,
    export: Path | None,
    import_: Path | None,
    *,
    as_json: bool,
) -> None:
    """Accept, reject and edit RUN's rows; the most uncertain come first.

    Each decision is saved at once. Rejected rows leave train.jsonl, and the next `create` with the same command
    writes others in their place.

    \b
    datacreate review runs/mine-best
    datacreate review runs/mine-best --sample 100
    datacreate review runs/mine-best --export rows.csv
    datacreate review runs/mine-best --import rows.csv
    """
    from datacreate.creation.run_metrics import measure_run
    from datacreate.review.session import reviewing
    from datacreate.review.spreadsheet import read_spreadsheet, write_spreadsheet
    from datacreate.runs.decisions import review_fields
    from datacreate.runs.directory import RunDirectory

    if import_ and (export or sample or label or flag):
        raise click.UsageError("--import takes the rows of its file; remove --export, --sample, --label and --flag")
    if sample and (label or flag):
        raise click.UsageError("--sample takes rows whatever their label and flag; remove --label and --flag")
    if seed is not None and not sample:
        raise UsageError("--seed draws the rows of --sample; give --sample, or remove --seed")
    if not (export or import_ or (sys.stdin.isatty() and is_live())):
        raise UsageError("review needs a terminal; without one use --export FILE.csv, edit and --import it")
    with reviewing(RunDirectory(run), measure_run, say) as session:
        selected = select_rows(session.rows, session.format, label, flag)
        rows = session.sample(sample, seed or 0) if sample else selected
        if export:
            write_spreadsheet(session, rows, export, say)
        elif import_:
            say(f"{read_spreadsheet(session, import_, say)} new decisions")
        else:
            from datacreate.review.app import review_in_terminal

            review_in_terminal(session, rows)
    counts: dict[str, Any] | None = session.stats.review.summary()
    if as_json:
        print_json(counts)
        return
    if export:
        echo(str(export))
        return
    for name, text in review_fields(counts).items():
        echo(f"{name}: {text}")
    missing = session.config.count - session.stats.accepted
    if missing:
        echo(f"missing rows: {missing}; the same `create` command writes them")
