"""`datacreate filter`: the quality checks alone, without a model unless one verifies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from datacreate.cli.checks import ShareOrOff, check_options, names_of
from datacreate.cli.engine_options import (
    engine_options,
    read_engine_options,
    refuse_engine_options,
    refuse_options,
)
from datacreate.cli.fields import LABELS, RANGES, pairs
from datacreate.cli.terminal import harmless, printable


@click.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="RUN|FILE.jsonl")
@click.option("--out", type=click.Path(path_type=Path), help="Write the kept rows here, as they were read.")
@click.option("--rejects", type=click.Path(path_type=Path), help="Write the dropped rows here, with reasons.")
@check_options(near="0.7")
@click.option("--balance", is_flag=True, help="Keep as many rows of each label as the rarest has.")
@click.option("--format", metavar="NAME|FILE", help="The rows' format.  [default: worked out]")
@LABELS
@RANGES
@click.option(
    "--verifier",
    metavar="MODEL",
    help="Have a model answer each row without seeing its answer; drop what it disagrees with: preset name, "
    "folder or GGUF file, with --url the name that servers know it by.",
)
@click.option(
    "--threshold",
    type=ShareOrOff(),
    metavar="SHARE",
    help="The least probability that the verifier must give a row's answer.  "
    "[default: 0.5; of more than three labels 1.5 over their number]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@engine_options
@click.pass_context
def filter(
    context: click.Context,
    /,
    source: Path,
    labels: tuple[str, ...],
    ranges: tuple[str, ...],
    decontaminate: tuple[str, ...],
    as_json: bool,
    **told: Any,
) -> None:
    """Check the rows of a run or of a JSONL file; without --out, only report.

    Of rows that repeat each other the first is kept.

    \b
    datacreate filter runs/csqa
    datacreate filter mine.jsonl --out clean.jsonl --rejects dropped.jsonl
    datacreate filter mine.jsonl --near 0.8 --semantic 0.95 --decontaminate csqa --balance
    datacreate filter mine.jsonl --verifier qwen3-8b --out clean.jsonl --rejects dropped.jsonl
    """
    from datacreate.cli.progress import TrainingProgress
    from datacreate.filtering.run import filter_rows

    if told["verifier"] is None:
        refuse_engine_options(context, "no model is asked without --verifier; leave it out, or name one")
        refuse_options(context, ("threshold",), "that is for --verifier; leave it out, or name one")
    engine = read_engine_options(told)
    names = names_of(decontaminate)
    with TrainingProgress("rows") as shown:
        found = filter_rows(
            source,
            labels=pairs(labels, "--labels"),
            ranges=pairs(ranges, "--range"),
            decontaminate="all" if names is None else names,
            engine=engine,
            say=shown.notify,
            progress=lambda done, most: shown.step("filter", done, most, None),
            **told,
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
