"""`datacreate benchmarks`: which test sets there are, bring them here, check them.

Results go to stdout, progress to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datacreate.cli.terminal import print_columns, say

if TYPE_CHECKING:
    from datacreate.benchmarks import Benchmark, ImportReport, RequestedSettings

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")


@click.group()
def benchmarks() -> None:
    """List, import and check the ten test sets (benchmarks)."""


@benchmarks.command("list")
@_AS_JSON
def list_(as_json: bool) -> None:
    """All benchmarks, their sizes in the paper, and which of them are here."""
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
        said = [{**b.model_dump(mode="json", include=keys), "head": b.head, "state": s} for b, s in rows]
        click.echo(json.dumps(said, indent=2))
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


@benchmarks.command()
@click.argument("name")
@_AS_JSON
def show(name: str, as_json: bool) -> None:
    """Everything the registry says of a benchmark, and what is imported of it."""
    import yaml

    from datacreate.benchmarks import find_benchmark, state, store
    from datacreate.cli.benchmark_words import shortened

    benchmark = find_benchmark(name)
    everything: dict[str, Any] = benchmark.model_dump(mode="json", exclude_none=True, by_alias=True)
    found = state(benchmark)
    everything |= {"head": benchmark.head, "state": found}
    if found in ("present", "incomplete"):
        manifest = store.read_manifest(benchmark)
        said = manifest.model_dump(mode="json", exclude_none=True) if manifest else {}
        everything |= {"path": str(store.folder(benchmark)), "imported": said}
    if as_json:
        click.echo(json.dumps(everything, indent=2, ensure_ascii=False))
    else:
        text = yaml.safe_dump(
            shortened(everything), sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
        )
        click.echo(text.rstrip())


@benchmarks.command("import")
@click.argument("arguments", nargs=-1, metavar="[DIR] [NAME...]")
@click.option(
    "--from",
    "kind",
    type=click.Choice(["reference", "hub-snapshot", "hub"]),
    default="reference",
    show_default=True,
    help="DIR is in the reference's layout, or is a Hub data set on disk; `hub` fetches and has no DIR.",
)
@click.option(
    "--allow-count-mismatch", is_flag=True, help="Take it even if a number of rows is not the paper's."
)
@click.option("--replace", is_flag=True, help="Replace splits that are here; without it they are kept.")
@click.option(
    "--seed", type=int, default=42, show_default=True, help="Of dealing a Hub split into several of ours."
)
@_AS_JSON
def import_(
    arguments: tuple[str, ...], kind: str, allow_count_mismatch: bool, replace: bool, seed: int, as_json: bool
) -> None:
    """Import benchmarks from DIR: those named, or all that it holds.

    Reports rows, label shares, the accuracy of the best constant prediction, and odd rows, which are
    kept. Exits with 1 when a number of rows is not the paper's.

    \b
    datacreate benchmarks import DIR
    datacreate benchmarks import DIR piqa --from hub-snapshot
    datacreate benchmarks import piqa boolq_open --from hub
    """
    from datacreate.benchmarks import RequestedSettings, find_benchmark
    from datacreate.cli.benchmark_words import document, print_report

    if kind != "hub" and not arguments:
        raise click.UsageError("name the folder to import from")
    names = arguments if kind == "hub" else arguments[1:]
    if kind != "reference" and not names:
        raise click.UsageError(f"--from {kind} wants the names of the benchmarks")
    chosen = [find_benchmark(name) for name in names]  # a misspelt name is told before anything is done
    reports: list[ImportReport] = []
    try:
        for report in _imported(
            kind, Path(arguments[0]), chosen, RequestedSettings(allow_count_mismatch, replace, seed)
        ):
            reports.append(report)
            if not as_json:
                print_report(report)
    finally:
        if as_json:
            click.echo(json.dumps([document(report) for report in reports], indent=2, ensure_ascii=False))
    if not allow_count_mismatch and not all(report.counts_agree for report in reports):
        sys.exit(1)


def _imported(
    kind: str, folder: Path, chosen: list[Benchmark], wishes: RequestedSettings
) -> Iterator[ImportReport]:
    from datacreate.benchmarks import from_hub, from_reference, from_snapshot

    if kind == "reference":
        yield from from_reference(folder, chosen, wishes)
        return
    for benchmark in chosen:
        if kind == "hub":
            say(f"{benchmark.name}: fetching from the Hub")
        yield from_hub(benchmark, wishes) if kind == "hub" else from_snapshot(folder, benchmark, wishes)


@benchmarks.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@_AS_JSON
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Hash every byte again and count the rows; without names, of all that are here.

    Exits with 1 when anything is absent, not what it was, or not of the paper's size.
    """
    from datacreate.benchmarks import find_benchmark, load_registry, state
    from datacreate.benchmarks import verify as verify_one
    from datacreate.cli.benchmark_words import verdict, verified

    chosen = [find_benchmark(name) for name in names]
    if not names:
        chosen = [benchmark for benchmark in load_registry().values() if state(benchmark) != "absent"]
    reports = [verify_one(benchmark) for benchmark in chosen]
    if as_json:
        click.echo(json.dumps([verified(report) for report in reports], indent=2))
    else:
        for report in reports:
            click.echo(verdict(report))
        if not reports:
            click.echo("no benchmark is here yet: run `datacreate benchmarks import DIR`")
    if not all(report.good for report in reports):
        sys.exit(1)
