"""Imports a benchmark: from files of the paper's repository, from the Hub, or from a copy of a Hub data set.

Where the paper made several splits from one of the Hub's (PIQA's test set is a part of the Hub's train split),
only its own files say which rows are which. Rows of splits that are already imported are removed from the
others; without them a fixed seed splits the rows into the paper's sizes, and the report says so.
"""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from datacreate.benchmarks import store
from datacreate.benchmarks.hub import download, read_copy
from datacreate.benchmarks.registry import SPLITS, Benchmark, HubDataset, Split, load_registry
from datacreate.benchmarks.rows import BenchmarkRow, Findings, find_problems, parse_rows
from datacreate.benchmarks.store import Manifest, SplitRecord
from datacreate.errors import BenchmarkError
from datacreate.formats.text_normalization import normalize_text
from datacreate.locking import locked

_SEED = 42  # of the division of one Hub split into several of ours

SplitState = Literal["imported", "kept", "refused", "missing"]


@dataclass(frozen=True)
class SplitReport:
    """The result for one split. `expected` is the paper's number of rows."""

    split: Split
    state: SplitState
    expected: int
    findings: Findings | None = None  # None if it is missing
    remark: str | None = None

    @property
    def counts_agree(self) -> bool:
        """Whether it has the paper's number of rows; True for a missing split."""
        return self.findings is None or self.findings.rows == self.expected


@dataclass(frozen=True)
class ImportReport:
    """The result of one import."""

    name: str
    source: str
    splits: tuple[SplitReport, ...]

    @property
    def counts_agree(self) -> bool:
        return all(split.counts_agree for split in self.splits)


class _Split(NamedTuple):
    """A split in memory."""

    rows: list[BenchmarkRow]
    source: str
    note: str | None = None

    @property
    def content(self) -> bytes:
        return "".join(row.line() for row in self.rows).encode("utf-8")


def benchmarks_in(folder: Path) -> list[Benchmark]:
    """The benchmarks that a folder holds in the folder structure of the paper's repository.

    Raises BenchmarkError if there is none.
    """
    found = [benchmark for benchmark in load_registry().values() if _reference_files(folder, benchmark)]
    if not found:
        raise BenchmarkError(
            f"{folder}: no benchmark in the folder structure of the paper's repository "
            "(mcqa_5/csqa/test.jsonl, ...); name the benchmark to import a copy of a Hub data set"
        )
    return found


def import_benchmark(
    benchmark: Benchmark,
    folder: Path | None = None,
    *,
    allow_count_mismatch: bool = False,
    replace: bool = False,
) -> ImportReport:
    """Import a benchmark from a folder, or from the Hub if it is None.

    The folder is in the folder structure of the paper's repository, or a copy of the Hub data set. Splits that are
    imported already are kept; `replace` removes them. Nothing is written if a number of rows is not the paper's, unless
    `allow_count_mismatch`. Raises BenchmarkError for missing or wrong files, RunLocked if another process imports the
    benchmark, StorageError.
    """
    hub, files = benchmark.source.hub, _reference_files(folder, benchmark) if folder else {}
    with locked(store.folder_of(benchmark)) as lock:
        before = {} if replace else _imported(benchmark)
        if files:
            source = f"files {folder}"
            new = {split: _Split(_read(path, benchmark), source) for split, path in files.items()}
        elif hub is None:
            raise BenchmarkError(
                f"{benchmark.name}: {benchmark.source.remark}; then `datacreate benchmarks import {benchmark.name} "
                f"--from DIR` reads DIR/{benchmark.source.reference}/test.jsonl"
            )
        else:
            copy = folder or download(benchmark, hub)
            source = f"copy {folder}" if folder else f"hub {hub.id}@{copy.name}"
            new = _assign(source, read_copy(copy, benchmark, hub), before, benchmark, hub)
        lock.check()
        return _write(benchmark, source, before, new, allow_count_mismatch)


def _reference_files(folder: Path, benchmark: Benchmark) -> dict[Split, Path]:
    paths = {split: folder / benchmark.source.reference / f"{split}.jsonl" for split in SPLITS}
    return {split: path for split, path in paths.items() if path.is_file()}


def _read(path: Path, benchmark: Benchmark) -> list[BenchmarkRow]:
    try:
        return parse_rows(path.read_bytes(), str(path), benchmark)
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be read ({error.strerror}); copy it again") from None


def _imported(benchmark: Benchmark) -> dict[Split, _Split]:
    """The splits that are imported already."""
    splits: dict[Split, _Split] = {}
    for split in SPLITS:
        if store.has_split(benchmark, split):
            content, record = store.read_bytes(benchmark, split), store.record_of(benchmark, split)
            rows = parse_rows(content, str(store.folder_of(benchmark)), benchmark)
            splits[split] = _Split(rows, record.source, record.note)
    return splits


def _write(
    benchmark: Benchmark,
    source: str,
    before: Mapping[Split, _Split],
    new: Mapping[Split, _Split],
    allow_count_mismatch: bool,
) -> ImportReport:
    """Combine old and new splits, write them if the new sizes are right, and report."""
    fresh = new.keys() - before.keys()
    combined = {**new, **before}
    refused = not allow_count_mismatch and any(len(new[s].rows) != benchmark.rows[s] for s in fresh)
    test = combined["test"].rows if "test" in combined else []
    findings = {s: find_problems(data.rows, () if s == "test" else test) for s, data in combined.items()}
    reports = []
    for split in SPLITS:
        state: SplitState = "kept"
        remark = combined[split].note if split in combined else store.how_to_import(benchmark, split)
        if split not in combined:
            state = "missing"
        elif split in fresh:
            state = "refused" if refused else "imported"
        elif split in new and new[split].content != before[split].content:
            remark = f"differs from {source}; --replace takes that instead"
        reports.append(SplitReport(split, state, benchmark.rows[split], findings.get(split), remark))
    if fresh and not refused:
        contents = {split: new[split].content for split in fresh}
        records: dict[Split, SplitRecord] = {}
        for split, found in findings.items():
            if split in before:
                records[split] = store.record_of(benchmark, split).model_copy(update={"findings": found})
                continue
            data, content = new[split], contents[split]
            records[split] = SplitRecord(
                size=len(content),
                sha256=store.sha256(content),
                source=data.source,
                note=data.note,
                findings=found,
            )
        now, version = dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), metadata.version("datacreate")
        manifest = Manifest(name=benchmark.name, splits=records, when=now, datacreate=version)
        store.write(benchmark, manifest, contents)
    return ImportReport(benchmark.name, source, tuple(reports))


def _assign(
    source: str,
    raw: Mapping[str, list[BenchmarkRow]],
    imported: Mapping[Split, _Split],
    benchmark: Benchmark,
    hub: HubDataset,
) -> dict[Split, _Split]:
    """Our splits from the Hub's, without those that are `imported` and without their rows."""
    assigned: dict[Split, _Split] = {}
    for name, rows in raw.items():
        wanted = [split for split in hub.splits[name] if split not in imported]
        notes = []
        for split in hub.splits[name]:
            if split in imported:
                rows, note = _without(rows, imported[split].rows, split)
                notes.append(note)
        if len(wanted) > 1:
            notes.append(
                f"split by seed {_SEED} into the paper's sizes, since the paper's own rows are not known"
            )
        parts = _divided(rows, [benchmark.rows[split] for split in wanted])
        for split, part in zip(wanted, parts, strict=True):
            assigned[split] = _Split(part, source, "; ".join(notes) or None)
    return assigned


def _without(
    rows: Sequence[BenchmarkRow], other: Sequence[BenchmarkRow], name: str
) -> tuple[list[BenchmarkRow], str]:
    """The rows without those of another split, each as often as it occurs there.

    A row of the other split that has no exact match removes the rows with its question.
    """

    def key(row: BenchmarkRow) -> tuple[str, ...]:
        return (normalize_text(row.question), *sorted(map(normalize_text, row.options)))

    left = Counter(map(key, other))
    rest = []
    for row in rows:
        if left[key(row)]:
            left[key(row)] -= 1
        else:
            rest.append(row)
    note = f"without the {len(rows) - len(rest)} rows of {name}"
    if questions := {question for (question, *_), number in left.items() if number}:
        kept = [row for row in rest if normalize_text(row.question) not in questions]
        note += f" (of {len(other)}; {len(rest) - len(kept)} more have the questions of those not found)"
        rest = kept
    return rest, note


def _divided(rows: Sequence[BenchmarkRow], sizes: Sequence[int]) -> list[list[BenchmarkRow]]:
    """Random parts in proportion to `sizes`, each in the original order."""
    order = list(range(len(rows)))
    random.Random(_SEED).shuffle(order)
    total = sum(sizes) or 1
    ends = [len(rows) * sum(sizes[:n]) // total for n in range(len(sizes) + 1)]
    return [[rows[i] for i in sorted(order[a:b])] for a, b in pairwise(ends)]
