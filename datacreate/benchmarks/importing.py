"""Imports benchmarks: from files of the paper's repository, from the Hub, or from a copy of a Hub data set.

The paper made several splits from one split of the Hub (PIQA's test set is a part of the Hub's train split), and only
its own files show which rows are in which split. So rows of splits that are already imported are removed from the
others. Where none is imported, a fixed seed splits the rows into the paper's sizes, and the report says so.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from lzma import LZMAError
from pathlib import Path
from tarfile import TarError
from typing import Any, Literal, NamedTuple
from zipfile import BadZipFile

from yaml import YAMLError

from datacreate.benchmarks import store
from datacreate.benchmarks.registry import (
    SPLITS,
    YES_NO_OPTIONS,
    Benchmark,
    BenchmarkRow,
    HubDataset,
    Split,
    SplitStatistics,
    load_registry,
    measure_split,
    parse_row,
)
from datacreate.benchmarks.store import SplitRecord
from datacreate.checkpoints.hub import SourceFailed, download
from datacreate.errors import BenchmarkError
from datacreate.files import DISK_FULL, storage_error
from datacreate.formats.example import Json, field_at
from datacreate.formats.row_file import RowFile
from datacreate.formats.text_normalization import normalize_text
from datacreate.locking import locked

_UNREADABLE = (
    OSError, EOFError, ValueError, TypeError, LookupError, RuntimeError, zlib.error, LZMAError, BadZipFile, TarError,
    YAMLError,
)  # fmt: skip
"""The errors of `datasets` for damaged, missing or refused files, besides its `DatasetsError`."""

_SEED = 42  # of the division of one Hub split into several of ours

SplitState = Literal["imported", "kept", "refused", "missing"]
Rows = list[BenchmarkRow]
NewSplits = Mapping[Split, tuple[Rows, str | None]]
"""The rows of each split, and how they were chosen if they are a part of the source."""


class SplitReport(NamedTuple):
    """The result for one split."""

    split: Split
    state: SplitState
    expected: int  # the paper's number of rows
    findings: SplitStatistics | None  # None if it is missing
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


def find_benchmarks_in(folder: Path) -> list[Benchmark]:
    """The benchmarks that a folder holds in the folder structure of the paper's repository.

    Raises BenchmarkError if there is none.
    """
    benchmarks = [benchmark for benchmark in load_registry().values() if _reference_files(folder, benchmark)]
    if not benchmarks:
        raise BenchmarkError(
            f"{folder}: no benchmark in the folder structure of the paper's repository "
            "(mcqa_5/csqa/test.jsonl, ...); name the benchmark to import a copy of a Hub data set"
        )
    return benchmarks


def import_benchmark(
    benchmark: Benchmark, folder: Path | None = None, *, allow_count_mismatch: bool = False, replace: bool = False
) -> ImportReport:
    """Import a benchmark from a folder, or from the Hub if it is None.

    The folder is in the folder structure of the paper's repository, or a copy of the Hub data set. Splits that are
    imported already are kept; `replace` removes them. Nothing is written if a number of rows is not the paper's, unless
    `allow_count_mismatch`. Raises BenchmarkError or UsageError for missing or wrong files, RunLocked if another process
    imports the benchmark, StorageError.
    """
    hub, files = benchmark.source.hub, _reference_files(folder, benchmark) if folder else {}
    with locked(store.benchmark_folder(benchmark)) as lock:
        manifest = None if replace else store.read_manifest(benchmark)
        kept = manifest.splits if manifest else {}
        kept_rows = {
            split: list(map(BenchmarkRow.model_validate, store.read_split(benchmark, split))) for split in kept
        }
        new: NewSplits
        if files:
            source = f"files {folder}"
            new = {split: (_read(path, benchmark), None) for split, path in files.items()}
        elif hub is None:
            command = store.how_to_import(benchmark, "test")
            raise BenchmarkError(f"{benchmark.name}: {benchmark.source.remark}; then {command}")
        else:
            copy = folder or _download(benchmark, hub)
            source = f"copy {folder}" if folder else f"hub {hub.id}@{copy.name}"
            new = _assign(read_copy(copy, benchmark, hub), kept_rows, benchmark, hub)
        lock.check()
        return _write(benchmark, source, kept, new, allow_count_mismatch=allow_count_mismatch)


def _reference_files(folder: Path, benchmark: Benchmark) -> dict[Split, Path]:
    """The files of a benchmark in the folder structure of the paper's repository."""
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
            problem = f"{path}: line {row.number}: {error}"
            raise BenchmarkError(f"{problem}; is it a file of {benchmark.title}? fix or remove it") from None
    return rows


def _write(
    benchmark: Benchmark, source: str, kept: Mapping[str, SplitRecord], new: NewSplits, *, allow_count_mismatch: bool
) -> ImportReport:
    """Write the new splits besides those that are kept, if their sizes are right; returns a report of all splits."""
    added = {split: rows for split, (rows, _) in new.items() if split not in kept}
    is_refused = not allow_count_mismatch and any(len(rows) != benchmark.rows[split] for split, rows in added.items())
    texts: dict[str, str] = {split: "".join(row.line() for row in rows) for split, rows in added.items()}
    records = dict(kept)
    for split, rows in added.items():
        sha256 = hashlib.sha256(texts[split].encode("utf-8")).hexdigest()
        records[split] = SplitRecord(sha256=sha256, source=source, note=new[split][1], findings=measure_split(rows))
    new_state: SplitState = "refused" if is_refused else "imported"
    reports = []
    for split in SPLITS:
        state: SplitState = "kept" if split in kept else new_state
        record = records.get(split)
        remark = record.note if record else store.how_to_import(benchmark, split)
        if split in kept and split in new:
            remark = "--replace imports it again"
        findings = record.findings if record else None
        reports.append(SplitReport(split, state if record else "missing", benchmark.rows[split], findings, remark))
    if added and not is_refused:
        store.write(benchmark, records, texts)
    return ImportReport(benchmark.name, source, tuple(reports))


def _assign(
    raw: Mapping[str, Rows], kept: Mapping[str, Rows], benchmark: Benchmark, hub: HubDataset
) -> dict[Split, tuple[Rows, str | None]]:
    """Our splits from the Hub's, without those that are `kept` and without their rows."""
    assigned: dict[Split, tuple[Rows, str | None]] = {}
    for hub_split, rows in raw.items():
        notes = []
        for split in filter(kept.__contains__, hub.splits[hub_split]):
            rest = _without(rows, kept[split])
            notes.append(f"without {len(rows) - len(rest)} of the {len(kept[split])} rows of {split}")
            rows = rest
        missing = [split for split in hub.splits[hub_split] if split not in kept]
        if len(missing) > 1:
            notes.append(f"split by seed {_SEED} into the paper's sizes, as the paper's rows are not known")
        parts = _divided(rows, [benchmark.rows[split] for split in missing])
        assigned |= {split: (part, "; ".join(notes) or None) for split, part in zip(missing, parts, strict=True)}
    return assigned


def _without(rows: Rows, other: Rows) -> Rows:
    """The rows without those of another split, each as often as it occurs there."""
    left, rest = Counter(map(_comparison_key, other)), []
    for row in rows:
        key = _comparison_key(row)
        if left[key] <= 0:
            rest.append(row)
        left[key] -= 1
    return rest


def _comparison_key(row: BenchmarkRow) -> tuple[str, ...]:
    return (normalize_text(row.question), *sorted(map(normalize_text, row.options)))


def _divided(rows: Rows, sizes: Sequence[int]) -> list[Rows]:
    """Random parts in proportion to `sizes`, each in the original order."""
    order = list(range(len(rows)))
    random.Random(_SEED).shuffle(order)
    bounds = [len(rows) * total // (sum(sizes) or 1) for total in accumulate(sizes, initial=0)]
    return [[rows[index] for index in sorted(order[start:end])] for start, end in pairwise(bounds)]


def _download(benchmark: Benchmark, hub: HubDataset) -> Path:
    """The folder of a data set in the Hub's cache; its name is the commit.

    Raises BenchmarkError, with the way to import a copy, if the Hub cannot be used; StorageError.
    """
    path = f"*{hub.config}*" if hub.config else "*"
    try:
        include = [path + suffix for suffix in (".parquet", ".jsonl", ".json", ".csv")]
        return download(hub.id, hub.revision, include, repo_type="dataset")
    except SourceFailed as error:
        raise BenchmarkError(
            f"cannot download {hub.id} ({error}); on a machine with a network run `hf download {hub.id} --repo-type "
            f"dataset --revision {hub.revision} --local-dir DIR`, copy DIR here, and run `datacreate benchmarks import "
            f"{benchmark.name} --from DIR`"
        ) from None


def read_copy(folder: Path, benchmark: Benchmark, hub: HubDataset) -> dict[str, Rows]:
    """The rows of the Hub's splits that the registry names."""
    data = folder / hub.config if hub.config and (folder / hub.config).is_dir() else folder
    rows_by_split: dict[str, Rows] = {}
    for split, hub_rows in _hub_rows(data, hub).items():
        rows_by_split[split] = []
        for number, values in enumerate(hub_rows, 1):
            try:
                rows_by_split[split].append(parse_row(_mapped(values, hub), benchmark))
            except ValueError as error:
                problem = f"{data}: {split}, row {number}: {error}"
                raise BenchmarkError(f"{problem}; is it a copy of {hub.id}?") from None
    return rows_by_split


def _hub_rows(data: Path, hub: HubDataset) -> dict[str, list[Any]]:
    """The rows of the Hub's splits in a folder, unchanged."""
    import datasets.exceptions

    datasets.logging.set_verbosity(datasets.logging.CRITICAL + 1)  # errors are reported below
    rows_by_split = {}
    with tempfile.TemporaryDirectory() as cache:  # keeps no second copy in the user's cache
        try:
            splits = datasets.load_dataset(str(data), cache_dir=cache, streaming=True)
            for split in filter(splits.__contains__, hub.splits):
                rows_by_split[split] = list(splits[split])
        except (*_UNREADABLE, datasets.exceptions.DatasetsError) as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise storage_error(Path(error.filename or cache), error) from None
            reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
            raise BenchmarkError(f"{data}: cannot be read{reason}; give a complete copy of {hub.id}") from None
    if missing := [split for split in hub.splits if split not in rows_by_split]:
        expected = ", ".join(hub.splits)
        raise BenchmarkError(f"{data}: no split {missing[0]!r}; a copy of {hub.id} has {expected}")
    return rows_by_split


def _mapped(values: Mapping[str, Json], hub: HubDataset) -> dict[str, Json]:
    """A row of the Hub in our columns. ValueError if a column is missing or the answer is not known."""
    columns = hub.columns
    options: list[Json] = YES_NO_OPTIONS
    if isinstance(columns.options, str):
        options = list(_value(values, columns.options))
    elif columns.options is not None:
        options = [_value(values, name) for name in columns.options]
    context = None if columns.context is None else _value(values, columns.context)
    if isinstance(context, list):
        context = " ".join(map(str, context))
    answer = str(_value(values, columns.label))
    position = hub.answers.get(answer.lower(), len(options))
    if position >= len(options):
        raise ValueError(f"the answer {answer[:40]!r} is none of {', '.join(hub.answers)}; it may be hidden")
    question = _value(values, columns.question)
    return {"question": question, "context": context, "options": options, "label": options[position]}


def _value(values: Mapping[str, Json], path: str) -> Any:
    """The value of a column or, with a dotted path, of a field in it."""
    try:
        return field_at(values, tuple(path.split(".")))
    except (KeyError, TypeError):
        raise ValueError(f"no column {path!r}; the columns are {', '.join(map(str, values))}") from None
