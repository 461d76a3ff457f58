"""`datacreate benchmarks`: list, show, import and verify the test sets. Results on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datacreate.cli.options import Command, json_option, option
from datacreate.cli.terminal import print_columns, say

if TYPE_CHECKING:
    from datacreate.benchmarks import Findings, ImportReport, SplitReport, VerifyReport

_SHOWN_ROWS = 5


@click.group()
def benchmarks() -> None:
    """List, import and verify the ten test sets (benchmarks)."""


@benchmarks.command("list", cls=Command)
@json_option()
def list_(as_json: bool) -> None:
    """All benchmarks, their sizes in the paper, and which are imported."""
    from datacreate.benchmarks import SPLITS, has_split, load_registry, state

    rows = [(benchmark, state(benchmark)) for benchmark in load_registry().values()]
    if as_json:
        keys = {
            "name",
            "title",
            "category",
            "format_name",
            "options",
            "rows",
            "out_of_distribution",
            "license",
        }
        shown = [{**b.model_dump(mode="json", include=keys), "head": b.head, "state": s} for b, s in rows]
        click.echo(json.dumps(shown, indent=2))
        return
    lines: list[tuple[str, ...]] = [
        ("NAME", "CATEGORY", "OPTIONS", "TRAIN", "DEV", "TEST", "ALSO TESTED ON", "STATE")
    ]
    for benchmark, found in rows:
        counts = [str(benchmark.rows[split]) for split in SPLITS]
        others = ", ".join(benchmark.out_of_distribution) or "-"
        missing = [split for split in SPLITS if found == "incomplete" and not has_split(benchmark, split)]
        remark = f"without {', '.join(missing)}" if missing else found
        lines.append((benchmark.name, benchmark.category, str(benchmark.options), *counts, others, remark))
    print_columns(lines)


@benchmarks.command(cls=Command)
@click.argument("name")
@json_option()
def show(name: str, as_json: bool) -> None:
    """The registry's entry of a benchmark, and what is imported."""
    import yaml

    from datacreate.benchmarks import find_benchmark, read_manifest, state, store

    benchmark = find_benchmark(name)
    found = state(benchmark)
    document: dict[str, Any] = benchmark.model_dump(mode="json", exclude_none=True, by_alias=True)
    document |= {"head": benchmark.head, "state": found}
    if found in ("present", "incomplete"):
        manifest = read_manifest(benchmark)
        imported = manifest.model_dump(mode="json", exclude_none=True) if manifest else {}
        document |= {"path": str(store.folder(benchmark)), "imported": imported}
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "default_flow_style": None}
    click.echo(yaml.safe_dump(_shortened(document), width=110, **options).rstrip())


@benchmarks.command("import", cls=Command)
@click.argument("names", nargs=-1, metavar="NAME...")
@option(
    "--from",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    group="input",
    help="Folder in the reference's layout (without NAME: all in it), or a copy of NAME's Hub data set.  "
    "[default: download from the Hub]",
)
@option("--allow-count-mismatch", is_flag=True, help="Import even if a number of rows is not the paper's.")
@option("--replace", is_flag=True, help="Replace splits that are imported already.")
@option(
    "--seed", type=int, default=42, show_default=True, help="Seed that divides one Hub split into several."
)
@json_option()
def import_(
    names: tuple[str, ...],
    folder: Path | None,
    allow_count_mismatch: bool,
    replace: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Import benchmarks from the Hub or from a folder.

    Prints rows, label ratios, the accuracy of the best constant prediction, and unusual rows, which are
    imported as they are. Exits with 1 if a number of rows is not the paper's.

    \b
    datacreate benchmarks import piqa boolq_open
    datacreate benchmarks import --from DIR
    datacreate benchmarks import piqa --from DIR
    """
    from datacreate.benchmarks import ImportOptions, find_benchmark, from_folder, from_hub

    if folder is None and not names:
        raise click.UsageError("name the benchmarks to download, or give a folder with --from DIR")
    chosen = [find_benchmark(name) for name in names]  # a wrong name is an error before the first import
    options = ImportOptions(allow_count_mismatch, replace, seed)

    def reports() -> Iterator[ImportReport]:
        if folder is not None:
            yield from from_folder(folder, chosen, options)
            return
        for benchmark in chosen:
            say(f"{benchmark.name}: downloading from the Hub")
            yield from_hub(benchmark, options)

    done: list[ImportReport] = []
    try:
        for report in reports():
            done.append(report)
            if not as_json:
                _print_report(report)
    finally:
        if as_json:
            click.echo(json.dumps([_document(report) for report in done], indent=2, ensure_ascii=False))
    if not allow_count_mismatch and not all(report.counts_agree for report in done):
        sys.exit(1)


@benchmarks.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@json_option()
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Hash all files again and count the rows; without names, of all imported benchmarks.

    Exits with 1 if one is absent, changed, or does not have the paper's number of rows.
    """
    from datacreate.benchmarks import find_benchmark, load_registry, state
    from datacreate.benchmarks import verify as verify_one

    chosen = [find_benchmark(name) for name in names]
    if not names:
        chosen = [benchmark for benchmark in load_registry().values() if state(benchmark) != "absent"]
    reports = [verify_one(benchmark) for benchmark in chosen]
    if as_json:
        click.echo(json.dumps([{**asdict(report), "good": report.good} for report in reports], indent=2))
    else:
        for report in reports:
            click.echo(_verdict(report))
        if not reports:
            click.echo("no benchmark is imported: run `datacreate benchmarks import NAME`")
    if not all(report.good for report in reports):
        sys.exit(1)


def _print_report(report: ImportReport) -> None:
    click.echo(f"{report.name}, from {report.source}")
    for split in report.splits:
        click.echo(f"  {split.split:<5}  {_state(split)}")
        details = _findings(split.findings) if split.findings else []
        for line in [*details, *([split.remark] if split.remark else [])]:
            click.echo(f"         {line}")
    if report.refused:
        click.echo("  not imported; --allow-count-mismatch imports it anyway")


def _state(split: SplitReport) -> str:
    if split.findings is None:
        return f"missing (the paper's has {split.expected:,} rows)"
    agrees = "as in the paper" if split.counts_agree else f"NOT the paper's {split.expected:,}"
    return f"{split.findings.rows:,} rows, {agrees}; {split.state}"


def _findings(findings: Findings) -> list[str]:
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
    return lines + [f"{_rows(rows)} {what}: {_numbers(rows)}" for what, rows in unusual.items() if rows]


def _document(report: ImportReport) -> dict[str, Any]:
    splits = [
        {**vars(split), "counts_agree": split.counts_agree}
        | {"findings": split.findings.model_dump(mode="json") if split.findings else None}
        for split in report.splits
    ]
    figures = {"refused": report.refused, "counts_agree": report.counts_agree}
    return {"name": report.name, "source": report.source, **figures, "splits": splits}


def _shortened(value: Any) -> Any:
    """The document with long lists of row numbers cut."""
    if isinstance(value, dict):
        return {key: _shortened(part) for key, part in value.items()}
    if isinstance(value, list) and len(value) > _SHOWN_ROWS and all(isinstance(n, int) for n in value):
        return f"{_rows(value)}: {_numbers(value)}"
    return value


def _verdict(report: VerifyReport) -> str:
    if not report.good:
        return f"{report.name}: {report.state}: {'; '.join(report.problems)}"
    without = f", without {', '.join(report.missing)}" if report.missing else ""
    return f"{report.name}: good, {report.hashed_bytes / 1e6:.1f} MB hashed{without}"


def _rows(rows: tuple[int, ...] | list[int]) -> str:
    return f"{len(rows):,} row{'s' if len(rows) > 1 else ''}"


def _numbers(rows: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, rows[:_SHOWN_ROWS])) + (", …" if len(rows) > _SHOWN_ROWS else "")
