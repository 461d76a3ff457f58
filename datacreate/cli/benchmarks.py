"""`datacreate benchmarks`: list, show and import the test sets. Results on stdout, progress on stderr."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datacreate.cli.options import Command, json_option, option
from datacreate.cli.terminal import echo, print_columns, print_json, say

if TYPE_CHECKING:
    from datacreate.benchmarks import Benchmark, Findings, ImportReport

_SHOWN_ROWS = 5


@click.group()
def benchmarks() -> None:
    """List and import the ten test sets (benchmarks)."""


@benchmarks.command("list", cls=Command)
@json_option()
def list_(as_json: bool) -> None:
    """All benchmarks, their sizes in the paper, and which are imported."""
    from datacreate.benchmarks import SPLITS, has_split, load_registry

    entries = [(one, _entry(one)) for one in load_registry().values()]
    if as_json:
        print_json([{k: v for k, v in entry.items() if k != "source"} for _, entry in entries])
        return
    lines = [["NAME", "CATEGORY", "OPTIONS", "TRAIN", "DEV", "TEST", "ALSO TESTED ON", "STATE"]]
    for one, entry in entries:
        counts = [str(one.rows[split]) for split in SPLITS]
        others, remark = ", ".join(one.out_of_distribution) or "-", entry["state"]
        if remark == "incomplete":
            remark = f"without {', '.join(split for split in SPLITS if not has_split(one, split))}"
        lines.append([one.name, one.category, str(one.options), *counts, others, remark])
    print_columns(lines)


@benchmarks.command(cls=Command)
@click.argument("name")
def show(name: str) -> None:
    """The registry's entry of a benchmark, and what is imported, as JSON."""
    from datacreate.benchmarks import benchmark_folder, find_benchmark, read_manifest

    benchmark = find_benchmark(name)
    document = _entry(benchmark)
    if document["state"] in ("present", "incomplete") and (manifest := read_manifest(benchmark)):
        imported = manifest.model_dump(mode="json", exclude_none=True)
        document |= {"path": str(benchmark_folder(benchmark)), "imported": imported}
    print_json(document)


def _entry(benchmark: Benchmark) -> dict[str, Any]:
    from datacreate.benchmarks import import_state

    entry = benchmark.model_dump(mode="json", exclude_none=True, by_alias=True)
    return entry | {"head": benchmark.head, "state": import_state(benchmark)}


@benchmarks.command("import", cls=Command)
@click.argument("names", nargs=-1, metavar="NAME...")
@option(
    "--from",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    group="input",
    help="Folder with the structure of the paper's repository (without NAME: all in it), or a copy of NAME's Hub "
    "data set.  [default: download from the Hub]",
)
@option("--allow-count-mismatch", is_flag=True, help="Import even if a number of rows is not the paper's.")
@option("--replace", is_flag=True, help="Remove the splits that are imported already first.")
def import_(names: tuple[str, ...], folder: Path | None, **options: bool) -> None:
    """Import benchmarks from the Hub or from a folder.

    Prints rows, label ratios, the accuracy of the best constant prediction, and unusual rows, which are
    imported as they are. Exits with 1 if a number of rows is not the paper's.

    \b
    datacreate benchmarks import piqa boolq_open
    datacreate benchmarks import --from DIR
    datacreate benchmarks import piqa --from DIR
    """
    from datacreate.benchmarks import benchmarks_in, find_benchmark, import_benchmark

    if folder is None and not names:
        raise click.UsageError("name the benchmarks to download, or give a folder with --from DIR")
    chosen = [find_benchmark(name) for name in names]  # a wrong name is an error before the first import
    counts_agree = True
    for benchmark in chosen or benchmarks_in(folder or Path()):
        if folder is None:
            say(f"{benchmark.name}: downloading from the Hub")
        report = import_benchmark(benchmark, folder, **options)
        _print_report(report)
        counts_agree &= report.counts_agree
    if not (counts_agree or options["allow_count_mismatch"]):
        sys.exit(1)


def _print_report(report: ImportReport) -> None:
    echo(f"{report.name}, from {report.source}")
    for split in report.splits:
        size = f"missing (the paper has {split.expected:,} rows)"
        if split.findings:
            agrees = "as in the paper" if split.counts_agree else f"NOT the paper's {split.expected:,}"
            size = f"{split.findings.rows:,} rows, {agrees}; {split.state}"
        echo(f"  {split.split:<5}  {size}")
        details = _describe(split.findings) if split.findings else []
        for line in filter(None, (*details, split.remark)):
            echo(f"         {line}")
    if any(split.state == "refused" for split in report.splits):
        echo("  not imported; --allow-count-mismatch imports it anyway")


def _describe(findings: Findings) -> list[str]:
    # Positions of the right option are shown as #1, #2; labels of a yes/no set as they are.
    names = {label: f"#{label}" if label.isdecimal() else label for label in findings.labels}
    ratio = ", ".join(f"{names[label]} {share:.1%}" for label, share in findings.labels.items())
    unusual = {
        "with two equal options": findings.repeated_options,
        "whose answer is not an option": findings.answer_not_an_option,
        "with the question of an earlier row": findings.repeated_questions,
        "with a question of the test split": findings.in_test,
    }
    lines = [f"right answers: {ratio}; best constant prediction {findings.constant:.1%}"]
    for what, rows in unusual.items():
        numbers = ", ".join(map(str, rows[:_SHOWN_ROWS])) + (", …" if len(rows) > _SHOWN_ROWS else "")
        lines += [f"{len(rows):,} row{'s' * (len(rows) > 1)} {what}: {numbers}"] if rows else []
    return lines
