"""The three ways in: the reference's files, a copy of a Hub data set, the Hub itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datacreate.benchmarks.dealing import deal
from datacreate.benchmarks.hub import fetch
from datacreate.benchmarks.importing import ImportReport, import_reference, put
from datacreate.benchmarks.registry import Benchmark, HubSource, load_registry
from datacreate.benchmarks.snapshot import read_snapshot
from datacreate.errors import BenchmarkError

Kind = Literal["reference", "hub-snapshot", "hub"]


@dataclass(frozen=True)
class RequestedSettings:
    """How to import."""

    any_count: bool = False  # take numbers of rows that are not the paper's
    replace: bool = False  # replace what is here; without it, it is kept
    seed: int = 42  # of dealing a Hub split into several of ours


def from_reference(
    folder: Path, chosen: Sequence[Benchmark], wishes: RequestedSettings
) -> Iterator[ImportReport]:
    """Import the chosen benchmarks, or all that the folder holds, one after the other.

    One whose files are wrong does not keep the others out. Raises BenchmarkError at the end, naming the
    first such file, or at once if a chosen one is not there at all.
    """
    failures: list[tuple[str, BenchmarkError]] = []
    held = False
    for benchmark in chosen or load_registry().values():
        try:
            report = import_reference(folder, benchmark, any_count=wishes.any_count, replace=wishes.replace)
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
            f"{folder}: no benchmark in the reference's layout (mcqa_5/csqa/test.jsonl and the like); a copy "
            "of a Hub data set is imported with NAME --from hub-snapshot"
        )


def from_snapshot(folder: Path, benchmark: Benchmark, wishes: RequestedSettings) -> ImportReport:
    """Import one benchmark from a copy of its Hub data set.

    Splits that are here are kept, and their rows left out of the others, unless `wishes.replace`.
    Raises BenchmarkError if the folder holds something else, or the benchmark is not on the Hub.
    """
    return _from_copy(folder, f"hub-snapshot {folder}", benchmark, _hub(benchmark), wishes)


def from_hub(benchmark: Benchmark, wishes: RequestedSettings) -> ImportReport:
    """Fetch one benchmark's data set from the Hub and import it as `from_snapshot` does."""
    hub = _hub(benchmark)
    with tempfile.TemporaryDirectory(prefix="datacreate-hub-") as folder:
        commit = fetch(benchmark, hub, Path(folder))
        return _from_copy(Path(folder), f"hub {hub.id}@{commit}", benchmark, hub, wishes)


def _from_copy(
    folder: Path, source: str, benchmark: Benchmark, hub: HubSource, wishes: RequestedSettings
) -> ImportReport:
    pools = read_snapshot(folder, benchmark, hub)
    return put(
        benchmark,
        lambda here: deal(source, pools, here, benchmark, hub, wishes.seed),
        wishes.any_count,
        wishes.replace,
    )


def _hub(benchmark: Benchmark) -> HubSource:
    if benchmark.source.hub is None:
        how = f"`datacreate benchmarks import DIR {benchmark.name}`"
        raise BenchmarkError(f"{benchmark.name}: {benchmark.source.remark}; then {how}")
    return benchmark.source.hub
