"""Imports a benchmark: from files of the paper's repository, from the Hub, or from a copy of a Hub data set.

Where the paper made several splits from one of the Hub's (PIQA's test set is a part of the Hub's train split),
only its own files say which rows are which. Rows of splits that are already imported are removed from the
others; without them a fixed seed splits the rows into the paper's sizes, and the report says so.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

from datacreate.benchmarks import store
from datacreate.benchmarks.registry import (
    SPLITS,
    YES_NO_OPTIONS,
    Benchmark,
    BenchmarkRow,
    Findings,
    HubDataset,
    Split,
    find_problems,
    load_registry,
    parse_row,
)
from datacreate.benchmarks.store import SplitRows
from datacreate.errors import BenchmarkError
from datacreate.formats.example import Json, field_at
from datacreate.formats.reader import RowFile
from datacreate.formats.text_normalization import normalize_text
from datacreate.libraries import offline_variable, online_environment
from datacreate.locking import locked

_SEED = 42  # of the division of one Hub split into several of ours

SplitState = Literal["imported", "kept", "refused", "missing"]
Rows = list[BenchmarkRow]


class SplitReport(NamedTuple):
    """The result for one split. `expected` is the paper's number of rows."""

    split: Split
    state: SplitState
    expected: int
    findings: Findings | None  # None if it is missing
    remark: str | None


class ImportReport(NamedTuple):
    """The result of one import."""

    name: str
    source: str
    splits: tuple[SplitReport, ...]

    @property
    def counts_agree(self) -> bool:
        """Whether all splits that are not missing have the paper's number of rows."""
        return all(split.findings is None or split.findings.rows == split.expected for split in self.splits)


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
    `allow_count_mismatch`. Raises BenchmarkError or UsageError for missing or wrong files, RunLocked if another process
    imports the benchmark, StorageError.
    """
    hub, files = benchmark.source.hub, _reference_files(folder, benchmark) if folder else {}
    with locked(store.benchmark_folder(benchmark)) as lock:
        before = {} if replace else store.imported_splits(benchmark)
        if files:
            source = f"files {folder}"
            new = {split: SplitRows(_read(path, benchmark), source) for split, path in files.items()}
        elif hub is None:
            how = store.how_to_import(benchmark, "test")
            raise BenchmarkError(f"{benchmark.name}: {benchmark.source.remark}; then {how}")
        else:
            copy = folder or download(benchmark, hub)
            source = f"copy {folder}" if folder else f"hub {hub.id}@{copy.name}"
            new = _assign(source, read_copy(copy, benchmark, hub), before, benchmark, hub)
        lock.check()
        return _write(benchmark, source, before, new, allow_count_mismatch)


def _reference_files(folder: Path, benchmark: Benchmark) -> dict[Split, Path]:
    paths = {split: folder / benchmark.source.reference / f"{split}.jsonl" for split in SPLITS}
    return {split: path for split, path in paths.items() if path.is_file()}


def _read(path: Path, benchmark: Benchmark) -> Rows:
    rows = []
    for row in RowFile(path).read():
        try:
            if row.error:
                raise ValueError(row.error)
            rows.append(parse_row(row.values, benchmark))
        except ValueError as error:
            where = f"{path}: line {row.number}"
            raise BenchmarkError(
                f"{where}: {error}; is it a file of {benchmark.title}? fix or remove it"
            ) from None
    return rows


def _write(
    benchmark: Benchmark,
    source: str,
    before: Mapping[Split, SplitRows],
    new: Mapping[Split, SplitRows],
    allow_count_mismatch: bool,
) -> ImportReport:
    """Combine old and new splits, write them if the new sizes are right, and report."""
    fresh = new.keys() - before.keys()
    combined = {**new, **before}
    refused = not allow_count_mismatch and any(len(new[s].rows) != benchmark.rows[s] for s in fresh)
    reports = []
    for split in SPLITS:
        state: SplitState = "missing"
        remark: str | None = store.how_to_import(benchmark, split)
        findings = None
        if found := combined.get(split):
            state = "kept" if split in before else "refused" if refused else "imported"
            remark = "--replace imports it again" if split in before and split in new else found.note
            findings = find_problems(found.rows)
        reports.append(SplitReport(split, state, benchmark.rows[split], findings, remark))
    if fresh and not refused:
        store.write(benchmark, combined)
    return ImportReport(benchmark.name, source, tuple(reports))


def _assign(
    source: str,
    raw: Mapping[str, Rows],
    imported: Mapping[Split, SplitRows],
    benchmark: Benchmark,
    hub: HubDataset,
) -> dict[Split, SplitRows]:
    """Our splits from the Hub's, without those that are `imported` and without their rows."""
    assigned: dict[Split, SplitRows] = {}
    for name, rows in raw.items():
        wanted = [split for split in hub.splits[name] if split not in imported]
        notes = []
        for split in hub.splits[name]:
            if split in imported:
                rows, note = _without(rows, imported[split].rows, split)
                notes.append(note)
        if len(wanted) > 1:
            notes.append(f"split by seed {_SEED} into the paper's sizes, as the paper's rows are not known")
        parts = _divided(rows, [benchmark.rows[split] for split in wanted])
        for split, part in zip(wanted, parts, strict=True):
            assigned[split] = SplitRows(part, source, "; ".join(notes) or None)
    return assigned


def _without(rows: Rows, other: Rows, name: str) -> tuple[Rows, str]:
    """The rows without those of another split, each as often as it occurs there, and a note."""

    def key(row: BenchmarkRow) -> tuple[str, ...]:
        return (normalize_text(row.question), *sorted(map(normalize_text, row.options)))

    left = Counter(map(key, other))
    rest = []
    for row in rows:
        if left[key(row)]:
            left[key(row)] -= 1
        else:
            rest.append(row)
    return rest, f"without {len(rows) - len(rest)} of the {len(other)} rows of {name}"


def _divided(rows: Rows, sizes: Sequence[int]) -> list[Rows]:
    """Random parts in proportion to `sizes`, each in the original order."""
    order = list(range(len(rows)))
    random.Random(_SEED).shuffle(order)
    total = sum(sizes) or 1
    ends = [len(rows) * sum(sizes[:n]) // total for n in range(len(sizes) + 1)]
    return [[rows[i] for i in sorted(order[a:b])] for a, b in pairwise(ends)]


def download(benchmark: Benchmark, hub: HubDataset) -> Path:
    """The folder of a data set in the Hub's cache; its name is the commit. Only the child process goes online.

    Raises BenchmarkError if the Hub cannot serve, saying how to import a copy.
    """
    if not (reason := offline_variable() and f"{offline_variable()} is set"):
        within = f"*{hub.config}*" if hub.config else "*"
        command = [sys.executable, "-m", "huggingface_hub.cli.hf", "download", hub.id, "--quiet"]
        command += ["--repo-type", "dataset", "--revision", hub.revision]
        for suffix in (".parquet", ".jsonl", ".json", ".csv"):
            command += ["--include", within + suffix]
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        child = subprocess.run(command, env=online_environment(), **streams)
        if child.returncode == 0:
            return Path(child.stdout.strip().splitlines()[-1])
        reason = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1][:200]
    raise BenchmarkError(
        f"cannot download {hub.id} ({reason}); on a machine with a network run `hf download {hub.id} --repo-type "
        f"dataset --revision {hub.revision} --local-dir DIR`, copy DIR here, and run `datacreate benchmarks import "
        f"{benchmark.name} --from DIR`"
    )


def read_copy(folder: Path, benchmark: Benchmark, hub: HubDataset) -> dict[str, Rows]:
    """The rows of the Hub's splits that the registry names."""
    data = folder / hub.config if hub.config and (folder / hub.config).is_dir() else folder
    found: dict[str, Rows] = {}
    for split, rows in _hub_rows(data, hub).items():
        found[split] = []
        for number, values in enumerate(rows, 1):
            try:
                found[split].append(parse_row(_mapped(values, hub), benchmark))
            except ValueError as error:
                where = f"{data}: {split}, row {number}"
                raise BenchmarkError(f"{where}: {error}; is it a copy of {hub.id}?") from None
    return found


def _hub_rows(data: Path, hub: HubDataset) -> dict[str, list[Any]]:
    """The rows of the splits in a folder, as they are there."""
    import datasets

    datasets.logging.set_verbosity(datasets.logging.CRITICAL + 1)  # errors are reported below
    found = {}
    with tempfile.TemporaryDirectory() as cache:  # keeps no second copy in the user's cache
        try:
            splits = datasets.load_dataset(str(data), cache_dir=cache, streaming=True)
            for split in filter(splits.__contains__, hub.splits):
                found[split] = list(splits[split])
        except Exception:  # noqa: BLE001 (the library has no common error for damaged files)
            raise BenchmarkError(f"{data}: cannot be read; give a complete copy of {hub.id}") from None
    if missing := [split for split in hub.splits if split not in found]:
        has = ", ".join(hub.splits)
        raise BenchmarkError(f"{data}: no split {missing[0]!r}; a copy of {hub.id} has {has}")
    return found


def _mapped(values: Mapping[str, Json], hub: HubDataset) -> dict[str, Json]:
    """A row of the Hub in our columns."""
    columns = hub.columns
    options: list[Json] = YES_NO_OPTIONS
    if isinstance(columns.options, str):
        options = list(_at(values, columns.options))
    elif columns.options is not None:
        options = [_at(values, name) for name in columns.options]
    context = None if columns.context is None else _at(values, columns.context)
    if isinstance(context, list):
        context = " ".join(map(str, context))
    answer = str(_at(values, columns.label))
    position = hub.answers.get(answer.lower(), len(options))
    if position >= len(options):
        raise ValueError(f"the answer {answer[:40]!r} is none of {', '.join(hub.answers)}; it may be hidden")
    question = _at(values, columns.question)
    return {"question": question, "context": context, "options": options, "label": options[position]}


def _at(values: Mapping[str, Json], path: str) -> Any:
    try:
        return field_at(values, tuple(path.split(".")))
    except (KeyError, TypeError):
        raise ValueError(f"no column {path!r}; the columns are {', '.join(map(str, values))}") from None
