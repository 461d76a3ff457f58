"""Is what lies in the home still what was imported, and what the registry promises?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datacreate.benchmarks import manifest as manifests
from datacreate.benchmarks import store
from datacreate.benchmarks.registry import SPLITS, Benchmark
from datacreate.errors import BenchmarkError

State = Literal["present", "incomplete", "absent", "damaged"]


@dataclass(frozen=True)
class VerifyReport:
    """What a full verification found; `problems` is empty exactly when what is here is as it should be."""

    name: str
    state: State
    problems: tuple[str, ...]
    missing: tuple[str, ...]  # splits that are not here; no problem in itself
    hashed_bytes: int

    @property
    def good(self) -> bool:
        return self.state in ("present", "incomplete")


def state(benchmark: Benchmark) -> State:
    """The cheap look: the manifest, and the files' sizes."""
    try:
        found = store.read_manifest(benchmark)
    except BenchmarkError:
        return "damaged"
    if found is None:
        return "absent"
    for split, record in found.splits.items():
        path = store.folder(benchmark) / f"{split}.jsonl"
        if not path.is_file() or path.stat().st_size != record.size:
            return "damaged"
    return "present" if len(found.splits) == len(SPLITS) else "incomplete"


def verify(benchmark: Benchmark) -> VerifyReport:
    """Hash every byte against the manifest, and count the rows against the registry."""
    name = benchmark.name
    try:
        found = store.read_manifest(benchmark)
    except BenchmarkError as error:
        return VerifyReport(name, "damaged", (str(error),), (), 0)
    if found is None:
        return VerifyReport(name, "absent", ("not imported",), tuple(SPLITS), 0)
    problems, hashed = [], 0
    for split in found.splits:
        try:
            content = store.read_bytes(benchmark, split)
        except BenchmarkError as error:
            problems.append(str(error))
            continue
        hashed += len(content)
        rows, expected = content.count(b"\n"), benchmark.rows[split]
        if rows != expected:
            problems.append(f"{split} has {rows:,} rows, the paper's has {expected:,}")
    expected_files = {manifests.NAME, *(f"{split}.jsonl" for split in found.splits)}
    strangers = sorted(p.name for p in store.folder(benchmark).iterdir() if p.name not in expected_files)
    problems += [f"{stranger} was not imported" for stranger in strangers]
    missing = tuple(split for split in SPLITS if split not in found.splits)
    good: State = "incomplete" if missing else "present"
    return VerifyReport(name, "damaged" if problems else good, tuple(problems), missing, hashed)
