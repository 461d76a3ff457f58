"""`datacreate filter`: the quality checks alone, without a model unless one verifies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from datacreate.cli.options import command, json_option, option, refuse_options, settings_options
from datacreate.cli.terminal import harmless, printable
from datacreate.engines.settings import EngineOptions
from datacreate.filters.settings import DatasetFilterOptions
from datacreate.runs.config import FormatOptions, VerifierOptions


@command()
@click.argument("source", type=click.Path(path_type=Path), metavar="RUN|FILE.jsonl")
@settings_options(FormatOptions, "fields")
@option("--out", type=click.Path(path_type=Path), group="output", help="Write the kept rows here, unchanged.")
@option(
    "--rejects",
    type=click.Path(path_type=Path),
    group="output",
    help="Write the dropped rows here, with reasons.",
)
@settings_options(DatasetFilterOptions, "filters")
@settings_options(VerifierOptions, "verification")
@settings_options(EngineOptions, "engine")
@json_option("Print the figures as JSON.")
@click.pass_context
def filter(
    context: click.Context,
    /,
    source: Path,
    out: Path | None,
    rejects: Path | None,
    fields: dict[str, Any],
    filters: dict[str, Any],
    verification: dict[str, Any],
    engine: dict[str, Any],
    as_json: bool,
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
    from datacreate.filtering.run import filter_rows

    if "verifier" not in verification:
        refuse_options(
            context, [*engine, *verification], "that is for --verifier; remove it, or name a verifier"
        )
    options = DatasetFilterOptions.of(**filters)
    with TrainingProgress("rows") as shown:
        found = filter_rows(
            source,
            **options.model_dump(exclude={"decontaminate"}),
            **vars(FormatOptions.of(**fields)),
            **vars(VerifierOptions.of(**verification)),
            decontaminate="all" if options.decontaminate is None else options.decontaminate,
            engine=EngineOptions.of(**engine),
            out=out,
            rejects=rejects,
            say=shown.notify,
            progress=lambda done, most: shown.step("filter", done, most, None),
        )
    report = found.document()
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    """A row for each check in order, then what is left, then the labels."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if Console().is_terminal else 160, highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("check", "threshold"):
        table.add_column(name, no_wrap=True)
    table.add_column("dropped", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    if report["invalid"]:
        table.add_row(
            "invalid", "", str(report["invalid"]), Text(printable(f"first: {report['first_invalid']}"))
        )
    for one in report["filters"]:
        table.add_row(one["name"], *_cells(one))
    if report["balance"]["on"]:
        table.add_row("balance", "even", str(report["balance"]["dropped"]), "")
    console.print(table)
    total = report["rows"] + report["invalid"]
    console.print(Text(f"kept {report['kept']} of {total} rows ({report['kept'] / total:.1%})"))
    before, after = report["labels"]["before"], report["labels"]["after"]
    if before:
        each = ", ".join(f"{label} {number} -> {after[label]}" for label, number in before.items())
        console.print(Text(harmless(f"labels: {each}")))
    for name in ("out", "rejects"):
        if report[name]:
            console.print(Text(printable(f"{name}: {report[name]}")))


def _cells(one: dict[str, Any]) -> tuple[str, str, str]:
    """Threshold, number dropped, remark."""
    if not one["on"]:
        return "off", "", "compared with nothing" if one["name"] == "contamination" else ""
    spelled = {"threshold": "{:g}", "ngram": "n {}", "near": "near {:g}", "semantic": "cosine {:g}"}
    how = ", ".join(words.format(one[key]) for key, words in spelled.items() if one.get(key) is not None)
    remarks = [f"by {one['encoder']}"] if "encoder" in one else []
    remarks += [f"by {one['model']}"] if "model" in one else []
    remarks += [f"against {', '.join(one['decontaminate'])}"] if "decontaminate" in one else []
    return how, str(one["rejected"]), ", ".join(remarks)
