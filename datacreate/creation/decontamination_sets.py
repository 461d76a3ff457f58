"""The sets of `--decontaminate`: benchmarks, files and runs whose rows examples must not repeat."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from datacreate.benchmarks import Benchmark, has_split, load_registry, read_split, split_sha256
from datacreate.errors import UsageError
from datacreate.filters import FilterOptions
from datacreate.filters.filter import DecontaminationRow, DecontaminationSet, DecontaminationSetSpec
from datacreate.formats.candidate import Candidate
from datacreate.formats.example import Json, values_in
from datacreate.formats.row_file import RowFile
from datacreate.formats.task_format import TaskFormat
from datacreate.messages import EMPTY_PATH, did_you_mean
from datacreate.runs.directory import RunDirectory
from datacreate.runs.log import example_line

_TEST_SPLITS = ("dev", "test")  # the splits of a benchmark that examples must not repeat


def find_decontamination_sets(
    names: Sequence[str], task_format: TaskFormat, stored_sets: Sequence[DecontaminationSetSpec] | None = None
) -> tuple[DecontaminationSet, ...]:
    """The sets with these names, for examples of a format: benchmarks in the registry's order, then files and runs.

    `all` stands for all imported benchmarks; in an existing run for the benchmarks that it was compared with before. A
    registered name is a benchmark, any other name a file or a run directory. Raises UsageError if it is neither,
    BenchmarkError if a benchmark is not imported (the message says how to import it) or damaged, RunError if a run is.
    """
    registry, requested = load_registry(), set(names)
    if stored_sets is not None and "all" in names:
        requested = requested - {"all"} | {spec.name for spec in stored_sets if spec.split}
    sets: list[DecontaminationSet] = []
    for name, benchmark in registry.items():
        if requested & {name, "all"}:
            sets += _sets_of_benchmark(benchmark, task_format, is_required=name in requested)
    for path in dict.fromkeys(_existing_path(name) for name in names if name != "all" and name not in registry):
        read = _set_of_run if RunDirectory(path).exists else _set_of_file
        sets.append(read(path, task_format))
    return tuple(sets)


def with_names(options: FilterOptions, sets: Sequence[DecontaminationSet]) -> FilterOptions:
    """The options of the filters with the names of the sets, without folders, for `--decontaminate`."""
    names = tuple(dict.fromkeys(each.spec.name for each in sets))
    return FilterOptions(**options.model_dump(include=set(FilterOptions.model_fields)) | {"decontaminate": names})


def _sets_of_benchmark(
    benchmark: Benchmark, task_format: TaskFormat, *, is_required: bool
) -> Iterator[DecontaminationSet]:
    """The imported splits of a benchmark. Raises BenchmarkError if there is none and the benchmark is required."""
    splits = [split for split in _TEST_SPLITS if has_split(benchmark, split)]
    if not splits and is_required:
        splits = ["test"]  # missing: `split_sha256` raises the error that says how to import it
    for split in splits:
        spec = DecontaminationSetSpec(name=benchmark.name, split=split, digest=split_sha256(benchmark, split))
        read = partial(_rows_of_split, benchmark, split, has_passages=task_format.passage_field is not None)
        yield DecontaminationSet(spec, read)


def _rows_of_split(benchmark: Benchmark, split: str, *, has_passages: bool) -> Iterator[DecontaminationRow]:
    for row in read_split(benchmark, split):
        passage = (row["context"] or "") if has_passages else ""
        yield DecontaminationRow(tuple(filter(None, (row["question"], passage))), passage)


def _existing_path(name: str) -> Path:
    if not name:
        raise UsageError(f"--decontaminate: {EMPTY_PATH}")
    path = Path(name)
    if not path.exists() and os.sep not in name:
        raise UsageError(
            f"--decontaminate {name}: no such file, and no benchmark of that name"
            f"{did_you_mean(name.replace('-', '_'), load_registry())}; `datacreate benchmarks list` shows them"
        )
    return path


def _set_of_file(path: Path, task_format: TaskFormat) -> DecontaminationSet:
    file = RowFile(path)
    spec = DecontaminationSetSpec(name=path.name, split=None, digest=file.sha256())
    return DecontaminationSet(
        spec, lambda: (_decontamination_row(values, task_format) for values in file.read_objects())
    )


def _set_of_run(path: Path, task_format: TaskFormat) -> DecontaminationSet:
    """The rows of a run, from its log: after a kill, train.jsonl may be missing or have fewer rows."""
    rows, hashed = [], hashlib.sha256()
    for values in RunDirectory(path).examples():
        rows.append(_decontamination_row(values, task_format))
        hashed.update(f"{example_line(values)}\n".encode())  # as in train.jsonl
    if not rows:
        raise UsageError(f"{path}: the run has no examples yet; run its `datacreate create` again first")
    # The name ends like that of a folder, since there may be a benchmark of that name.
    spec = DecontaminationSetSpec(name=f"{path.resolve().name}{os.sep}", split=None, digest=hashed.hexdigest())
    return DecontaminationSet(spec, lambda: rows, by_ngram=False)


def _decontamination_row(values: Mapping[str, Json], task_format: TaskFormat) -> DecontaminationRow:
    """The inputs of a row that has the input fields of the format; of another row all values, as its question."""
    fields = {path[0] for path in task_format.roles.inputs}
    required = fields & set(task_format.schema.get("required", fields))
    if required <= values.keys() and fields & values.keys():
        with suppress(KeyError, TypeError):  # a value of another type
            candidate = Candidate.of(values, task_format)
            return DecontaminationRow(candidate.inputs, candidate.passage)
    return DecontaminationRow(("\n".join(values_in(values)),), "")
