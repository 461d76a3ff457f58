"""Imported benchmarks in the data directory.

data_dir()/benchmarks/NAME/    train.jsonl, dev.jsonl, test.jsonl, manifest.json
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import random
import shlex
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from datacreate.benchmarks.registry import SPLITS, Benchmark, Split, SplitStatistics
from datacreate.errors import BenchmarkError, ExampleError
from datacreate.files import data_dir, replace_files
from datacreate.formats.example import Example, Json, value_at
from datacreate.formats.task_format import TaskFormat, load_format, specialize
from datacreate.selection.shots import draw_balanced

MANIFEST = "manifest.json"

ImportState = Literal["present", "incomplete", "absent", "damaged"]

_MAX_SAMPLES = 1000  # of malformed formatting examples


class SplitRecord(BaseModel, frozen=True):
    """One imported split in the manifest."""

    sha256: str
    source: str
    note: str | None = None
    findings: SplitStatistics


class Manifest(BaseModel, frozen=True):
    """manifest.json."""

    name: str
    splits: dict[str, SplitRecord]
    when: str  # of the import, ISO 8601, UTC
    datacreate: str  # version


def benchmark_folder(benchmark: Benchmark) -> Path:
    return data_dir() / "benchmarks" / benchmark.name


def read_manifest(benchmark: Benchmark) -> Manifest | None:
    """The manifest; None if nothing is imported. BenchmarkError if it is damaged."""
    path = benchmark_folder(benchmark) / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError):
        raise _damaged(benchmark, f"{path} cannot be read") from None


def has_split(benchmark: Benchmark, split: str) -> bool:
    """Whether the split is imported; BenchmarkError if the manifest is damaged."""
    manifest = read_manifest(benchmark)
    return manifest is not None and split in manifest.splits


def split_sha256(benchmark: Benchmark, split: str) -> str:
    """SHA-256 of an imported split; BenchmarkError, saying how to import it, if it is missing."""
    return _record(benchmark, split).sha256


def _record(benchmark: Benchmark, split: str) -> SplitRecord:
    """The record of an imported split. Raises what `split_sha256` raises."""
    manifest = read_manifest(benchmark)
    if manifest and (record := manifest.splits.get(split)):
        return record
    problem = f"has no {split} split" if manifest else "is not imported"
    raise BenchmarkError(f"benchmark {benchmark.name} {problem}: {how_to_import(benchmark, split)}")


def read_split(benchmark: Benchmark, split: str) -> list[dict[str, Json]]:
    """The rows of an imported split: question, context, options, label.

    Raises BenchmarkError if the split is not imported (saying how to import it) or was changed since.
    """
    record, path = _record(benchmark, split), benchmark_folder(benchmark) / f"{split}.jsonl"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _damaged(benchmark, f"{path} cannot be read ({error.strerror})", record.source) from None
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise _damaged(benchmark, f"{path} was changed after the import (its sha256 differs)", record.source)
    return [json.loads(line) for line in content.decode("utf-8").split("\n") if line]


def how_to_import(benchmark: Benchmark, split: str) -> str:
    """The advice for a missing split: the command that imports it."""
    command, hub = f"datacreate benchmarks import {benchmark.name}", benchmark.source.hub
    if hub is not None and any(split in splits for splits in hub.splits.values()):
        return f"run `{command}`, which downloads {hub.id} from the Hub"
    return f"run `{command} --from DIR`, which reads DIR/{benchmark.source.reference}/{split}.jsonl"


def formatting_examples(benchmark: Benchmark, seed: int, count: int = 1) -> tuple[list[dict[str, Json]], str]:
    """Well-formed, different rows of the train split (without one, of dev), and a note that names them.

    The first is the same as `random.seed(seed); random.choice(rows)` of the reference implementation; a row that
    does not fit its format (repeated options, say) is sampled again. The others have the labels about equally often.
    Raises BenchmarkError if neither split is imported, or if too few rows fit.
    """
    split: Split = "train" if has_split(benchmark, "train") else "dev"
    rows, task_format, rng = read_split(benchmark, split), load_format(benchmark.format_name), random.Random(seed)
    sampled = (rng.choice(range(len(rows))) for _ in range(_MAX_SAMPLES))  # as random as choosing a row
    malformed, first = next(((n, row) for n, row in enumerate(sampled) if _fits(task_format, rows[row])), (0, None))
    if first is None:
        raise BenchmarkError(
            f"benchmark {benchmark.name}: none of {_MAX_SAMPLES} rows sampled from {split} fits its format "
            f"({benchmark.format_name}); see `datacreate benchmarks list --json`"
        )
    chosen = [first, *_other_examples(task_format, rows, first, count - 1, rng)]
    if len(chosen) < count:
        raise BenchmarkError(
            f"benchmark {benchmark.name}: only {len(chosen)} different rows of {split} fit the format of the first; "
            "use a smaller --examples"
        )
    numbers = ", ".join(str(index + 1) for index in chosen)
    words = "formatting example: row" if count == 1 else f"{count} formatting examples: rows"
    note = f"{words} {numbers} of {benchmark.name}'s {split} split, seed {seed}"
    note += f", after {malformed} malformed row{'s' * (malformed > 1)}" if malformed else ""
    if split != "train":
        note += f"; its train split is not imported ({how_to_import(benchmark, 'train')})"
    return [rows[index] for index in chosen], note


def _other_examples(
    task_format: TaskFormat, rows: Sequence[Mapping[str, Json]], first: int, count: int, rng: random.Random
) -> list[int]:
    """The indices of `count` more formatting examples: different rows that fit the format of the first one."""
    seen = {Example(rows[first]).id}

    def is_new(index: int) -> bool:
        is_repeated = (example_id := Example(rows[index]).id) in seen
        seen.add(example_id)
        return not is_repeated and _fits(task_format, rows[first], rows[index])

    answer = task_format.roles.answer if task_format.labels else None
    others = [index for index in range(len(rows)) if index != first] if count else []
    return draw_balanced(others, count, rng, lambda index: value_at(rows[index], answer), [first], is_new)


def _fits(task_format: TaskFormat, first: Mapping[str, Json], *others: Mapping[str, Json]) -> bool:
    """Whether rows of a benchmark can be formatting examples of one run."""
    try:
        specialize(task_format, *map(Example, (first, *others)))
    except ExampleError:
        return False
    return True


def import_state(benchmark: Benchmark) -> ImportState:
    """The state that the manifest shows; the content of files is checked when they are read."""
    try:
        manifest = read_manifest(benchmark)
    except BenchmarkError:
        return "damaged"
    if manifest is None:
        return "absent"
    return "present" if len(manifest.splits) == len(SPLITS) else "incomplete"


def write(benchmark: Benchmark, records: Mapping[str, SplitRecord], texts: Mapping[str, str]) -> None:
    """Write the files of new splits, and the manifest of all; remove other splits. StorageError.

    The caller holds the lock of the folder. Splits of an earlier manifest stay valid until the new one is written,
    unless their content changes.
    """
    folder = benchmark_folder(benchmark)
    when, version = dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), metadata.version("datacreate")
    splits: dict[str, SplitRecord] = {split: records[split] for split in SPLITS if split in records}
    manifest = Manifest(name=benchmark.name, splits=splits, when=when, datacreate=version)
    files = {folder / f"{split}.jsonl": text for split, text in texts.items()}
    replace_files(files | {folder / MANIFEST: manifest.model_dump_json(indent=2) + "\n"})
    for split in set(SPLITS) - records.keys():
        (folder / f"{split}.jsonl").unlink(missing_ok=True)


def _damaged(benchmark: Benchmark, problem: str, source: str = "") -> BenchmarkError:
    """The error for a damaged file; the advice names the folder in `source`, where the manifest has one."""
    origin, _, folder = source.partition(" ")
    option = f" --from {shlex.quote(folder)}" if origin in ("files", "copy") else ""
    return BenchmarkError(f"{problem}; run `datacreate benchmarks import {benchmark.name} --replace{option}`")
