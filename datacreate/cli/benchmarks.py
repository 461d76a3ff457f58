"""`datacreate benchmarks`: list and import the test sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from datacreate.cli.options import Command, json_option, option
from datacreate.cli.terminal import echo, print_columns, print_json, say

if TYPE_CHECKING:
    from datacreate.benchmarks import ImportReport

_UNUSUAL = {"repeated_options": "with two equal options", "answer_not_an_option": "whose answer is not an option"}
"""Fields of `SplitStatistics`, and how their rows are unusual."""


@click.group()
def benchmarks() -> None:
    """List and import the ten test sets (benchmarks)."""


@benchmarks.command("list", cls=Command)
@json_option("Print the registry's entries and what is imported as JSON.")
def list_(*, as_json: bool) -> None:
    """All benchmarks, their sizes in the paper, and which are imported."""
    from datacreate.benchmarks import SPLITS, has_split, import_state, load_registry, read_manifest

    states = [(benchmark, import_state(benchmark)) for benchmark in load_registry().values()]
    if as_json:
        entries = []
        for benchmark, state in states:
            entry = benchmark.model_dump(mode="json", exclude_none=True, by_alias=True)
            manifest = read_manifest(benchmark) if state in ("present", "incomplete") else None
            imported = manifest.model_dump(mode="json", exclude_none=True) if manifest else None
            entries.append(entry | {"head": benchmark.head, "state": state, "imported": imported})
        print_json(entries)
        return
    lines = [["NAME", "CATEGORY", "OPTIONS", "TRAIN", "DEV", "TEST", "ALSO TESTED ON", "STATE"]]
    for benchmark, state in states:
        counts = [str(benchmark.rows[split]) for split in SPLITS]
        others, remark = ", ".join(benchmark.out_of_distribution) or "-", str(state)
        if state == "incomplete":
            missing = [split for split in SPLITS if not has_split(benchmark, split)]
            remark = f"without {', '.join(missing)}"
        lines.append([benchmark.name, benchmark.category, str(benchmark.options), *counts, others, remark])
    print_columns(lines)


@benchmarks.command("import", cls=Command, downloads=True)
@click.argument("names", nargs=-1, metavar="NAME...")
@option(
    "--from",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    group="input",
    help="A copy of the paper's repository (without NAME: all in it) or of NAME's Hub data set.  [default: the Hub]",
)
@option("--allow-count-mismatch", is_flag=True, help="Import even if a number of rows is not the paper's.")
@option("--replace", is_flag=True, help="Remove the splits that are imported already first.")
def import_(names: tuple[str, ...], folder: Path | None, **options: bool) -> None:
    """Import benchmarks from the Hub or from a folder.

    Prints the number of rows and the paper's, the accuracy of the best constant prediction, and unusual rows, which
    are imported as they are (their numbers: `list --json`). Exits with 1 if a number of rows is not the paper's.

    \b
    datacreate benchmarks import piqa boolq_open
    datacreate benchmarks import --from DIR
    datacreate benchmarks import piqa --from DIR
    """
    from datacreate.benchmarks import find_benchmark, find_benchmarks_in, import_benchmark

    if folder is None and not names:
        raise click.UsageError("name the benchmarks to download, or give a folder with --from DIR")
    chosen = [find_benchmark(name) for name in names]  # a wrong name is an error before the first import
    counts_agree = True
    for benchmark in chosen or find_benchmarks_in(folder or Path()):
        if folder is None:
            say(f"{benchmark.name}: downloading from the Hub")
        report = import_benchmark(benchmark, folder, **options)
        _print_report(report)
        counts_agree &= report.counts_agree
    if not (counts_agree or options["allow_count_mismatch"]):
        sys.exit(1)


def _print_report(report: ImportReport) -> None:
    """Print a line per split."""
    echo(f"{report.name}, from {report.source}")
    lines = [("SPLIT", "ROWS", "PAPER", "STATE", "CONSTANT", "REMARKS")]
    for split in report.splits:
        rows, constant, remarks = "-", "-", [split.remark] if split.remark else []
        if findings := split.findings:
            rows, constant = f"{findings.rows:,}", f"{findings.constant:.1%}"
            unusual = {remark: len(getattr(findings, name)) for name, remark in _UNUSUAL.items()}
            remarks += [f"{count:,} {remark}" for remark, count in unusual.items() if count]
        lines.append((split.split, rows, f"{split.expected:,}", split.state, constant, "; ".join(remarks)))
    print_columns(lines)
    if any(split.state == "refused" for split in report.splits):
        echo("not imported, since a number of rows is not the paper's; --allow-count-mismatch imports it anyway")
