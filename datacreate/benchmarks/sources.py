"""The three ways in: the reference's files, a copy of a Hub data set, the Hub itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datacreate.benchmarks.dealing import deal
from datacreate.benchmarks.hub import fetch
from datacreate.benchmarks.importing import ImportReport, import_reference, put
from datacreate.benchmarks.registry import Benchmark, HubSource, load_registry
from datacreate.benchmarks.snapshot import read_snapshot
from datacreate.errors import BenchmarkError


@dataclass(frozen=True)
class ImportOptions:
    """How to import."""

    any_count: bool = False  # accept numbers of rows other than the paper's
    replace: bool = False  # replace splits that are imported already
    seed: int = 42  # for dividing a split of the Hub into several


def from_reference(
    folder: Path, chosen: Sequence[Benchmark], options: ImportOptions
) -> Iterator[ImportReport]:
    """Import the chosen benchmarks, or all that the folder holds, one after the other.

    One whose files are wrong does not keep the others out. Raises BenchmarkError at the end, naming the
    first such file, or at once if a chosen one is not there at all.
    """
    failures: list[tuple[str, BenchmarkError]] = []
    held = False
    for benchmark in chosen or load_registry().values():
        try:
            report = import_reference(folder, benchmark, any_count=options.any_count, replace=options.replace)
        except BenchmarkError as error:
            failures.append((benchmark.name, error))
            continue
        if report is not None:
            held = True
            yield report
        elif chosen:
            raise BenchmarkError(
                f"{folder}: no {benchmark.source.reference}/{{train,dev,test}}.jsonl in it; "
                "give the folder in the reference's layout"
            )
    if failures:
        more = "".join(f"; {name} is wrong, too" for name, _ in failures[1:])
        raise BenchmarkError(f"{failures[0][1]}{more}")
    if not held:
        raise BenchmarkError(
            f"{folder}: no benchmark in the reference's layout (mcqa_5/csqa/test.jsonl); for a copy of a Hub data "
            "set name its benchmark: `datacreate benchmarks import NAME --from DIR`"
        )


def from_folder(folder: Path, chosen: Sequence[Benchmark], options: ImportOptions) -> Iterator[ImportReport]:
    """Import from a folder in the reference's layout, or from a copy of the one chosen benchmark's Hub data set.

    Raises BenchmarkError as `from_reference` and `from_snapshot` do.
    """
    known = any((folder / benchmark.source.reference).is_dir() for benchmark in load_registry().values())
    if len(chosen) == 1 and not known:
        yield from_snapshot(folder, chosen[0], options)
    else:
        yield from from_reference(folder, chosen, options)


def from_snapshot(folder: Path, benchmark: Benchmark, options: ImportOptions) -> ImportReport:
    """Import one benchmark from a copy of its Hub data set.

    Splits that are here are kept, and their rows left out of the others, unless `options.replace`.
    Raises BenchmarkError if the folder holds something else, or the benchmark is not on the Hub.
    """
    return _from_copy(folder, f"hub-snapshot {folder}", benchmark, _hub(benchmark), options)


def from_hub(benchmark: Benchmark, options: ImportOptions) -> ImportReport:
    """Fetch one benchmark's data set from the Hub and import it as `from_snapshot` does."""
    hub = _hub(benchmark)
    with tempfile.TemporaryDirectory(prefix="datacreate-hub-") as folder:
        commit = fetch(benchmark, hub, Path(folder))
        return _from_copy(Path(folder), f"hub {hub.id}@{commit}", benchmark, hub, options)


def _from_copy(
    folder: Path, source: str, benchmark: Benchmark, hub: HubSource, options: ImportOptions
) -> ImportReport:
    pools = read_snapshot(folder, benchmark, hub)
    return put(
        benchmark,
        lambda here: deal(source, pools, here, benchmark, hub, options.seed),
        options.any_count,
        options.replace,
    )


def _hub(benchmark: Benchmark) -> HubSource:
    if benchmark.source.hub is None:
        how = f"`datacreate benchmarks import {benchmark.name} --from DIR`"
        raise BenchmarkError(f"{benchmark.name}: {benchmark.source.remark}; then {how}")
    return benchmark.source.hub
