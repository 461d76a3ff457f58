"""Reads the rows of a source: a run, a file, or the human train split of a benchmark."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, repeat
from pathlib import Path

from datacreate.benchmarks import find_benchmark, load_registry, read_split
from datacreate.errors import TrainingError, UsageError
from datacreate.finetuning.records import IMPROVED, PAPER_METHOD
from datacreate.formats.candidate import RejectReason
from datacreate.formats.example import Json, canonical_json
from datacreate.formats.options import FormatOptions
from datacreate.formats.reader import is_row_file
from datacreate.formats.task_format import TaskFormat, load_format
from datacreate.runs.directory import RunDirectory
from datacreate.runs.rows import Row, read_rows
from datacreate.verification.scoring import Probabilities


@dataclass(frozen=True)
class SourceRow:
    """A row of a source."""

    values: Mapping[str, Json]
    family: str  # rows of one family stay on one side of a split
    probabilities: Probabilities | None = None  # of the verifier, if they are read
    problem: str = ""  # why it is not valid in the format; a model may still be tested on it


@dataclass(frozen=True)
class Source:
    """The rows of one source."""

    name: str
    condition: str  # human, a strategy, or a file's name
    format: TaskFormat
    rows: Sequence[SourceRow]
    benchmark: str | None = None
    is_human: bool = False  # whether it is the train split of a benchmark
    is_sample: bool = False  # whether the source has more rows
    generator: str | None = None
    example: str | None = None

    @property
    def values(self) -> list[Mapping[str, Json]]:
        return [row.values for row in self.rows]

    def sample(self, count: int, seed: int) -> Source:
        """The human source with `count` of its rows. Raises UsageError if it has fewer."""
        if count > len(self.rows):
            raise UsageError(f"--human-count {count}: {self.name} has {len(self.rows)} train rows; lower it")
        chosen = random.Random(seed).sample(self.rows, len(self.rows))[:count]
        return replace(self, rows=chosen, is_sample=count < len(self.rows))


def read_source(
    name_or_path: str, *, verifier_probabilities: bool = False, options: FormatOptions | None = None
) -> Source:
    """Read the rows of a benchmark (given by its name), a run directory or a file.

    `verifier_probabilities` also reads those of a run; `options` say how to read a file. Raises UsageError,
    BenchmarkError, RunError or TrainingError if the source is missing, unfinished, empty or malformed.
    """
    path = Path(name_or_path)
    if name_or_path in load_registry():
        benchmark = find_benchmark(name_or_path)
        rows = [SourceRow(row, canonical_json(row["question"])) for row in read_split(benchmark, "train")]
        format = load_format(benchmark.format_name)
        return Source(benchmark.name, "human", format, rows, benchmark.name, is_human=True)
    if is_row_file(path):
        return read_file(path, options or FormatOptions())
    if path.is_dir():
        return _read_run(path, verifier_probabilities)
    raise UsageError(f"{name_or_path}: no run directory, file or benchmark (`datacreate benchmarks list`)")


def check_distinct(sources: Iterable[str]) -> None:
    """Raise UsageError if a source is given twice, also by another path."""
    seen: set[str] = set()
    for source in sources:
        name = source if source in load_registry() else os.path.realpath(source)
        if name in seen:
            raise UsageError(f"{source.rstrip(os.sep)}: given twice; give it once")
        seen.add(name)


def _read_run(path: Path, verifier_probabilities: bool) -> Source:
    run = RunDirectory(path)
    config = run.read_config()
    spec = config.spec
    probabilities = run.verifier_probabilities() if verifier_probabilities else repeat(None)
    columns = zip(run.examples(), map(str, run.families()), probabilities, strict=False)
    rows = [SourceRow(*row) for row in islice(columns, config.count)]
    if len(rows) < config.count:
        raise TrainingError(
            f"{path}: not finished ({len(rows)} of {config.count} examples); run its `datacreate create` again first"
        )
    method = PAPER_METHOD if spec.recipe == "paper" else ""
    return Source(
        name=str(path),
        condition=IMPROVED if spec.improves else spec.strategy + method,
        format=config.format,
        rows=rows,
        benchmark=spec.benchmark,
        generator=spec.model,
        example=spec.improves or spec.examples_id,
    )


def read_file(path: Path, options: FormatOptions, known_formats: Sequence[TaskFormat] = ()) -> Source:
    """Read all rows of a file or of a run. Raises UsageError if a row is not JSON, and what `read_rows` raises.

    Rows that have the fields of one of the `known_formats` are read in that format.
    """
    reader = read_rows(path, options, known_formats)
    rows: list[SourceRow] = []
    first_of_kind: dict[tuple[RejectReason, str], str] = {}
    for row in reader.read():
        family = str(len(rows))
        if isinstance(row, Row):
            rows.append(SourceRow(json.loads(row.line), family))
        elif row.reason is RejectReason.INVALID_JSON:
            raise UsageError(f"{path}: line {row.number}: {row.detail}; fix or remove it")
        else:
            problem = first_of_kind.setdefault(row.kind, f"like line {row.number}: {row.detail}")
            rows.append(SourceRow(row.values, family, problem=problem))
    return Source(str(path), path.stem, reader.format, rows)
