"""Imported benchmarks in the data directory.

data_dir()/benchmarks/NAME/        train.jsonl, dev.jsonl, test.jsonl, manifest.json; replaced as a whole
data_dir()/benchmarks/.NAME.new    being made
data_dir()/benchmarks/.NAME.old    being replaced
data_dir()/benchmarks/.lock        held by the process that imports
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import filelock
from pydantic import ValidationError

from datacreate.benchmarks import manifest as manifests
from datacreate.benchmarks.manifest import Manifest, SplitRecord
from datacreate.benchmarks.registry import Benchmark, Split
from datacreate.benchmarks.rows import Row
from datacreate.errors import BenchmarkError
from datacreate.files import storage_error, write_synced
from datacreate.formats.example import Json
from datacreate.paths import data_dir

_LOCK_SECONDS = 120.0
"""Longer than any import from files takes."""


def folder(benchmark: Benchmark) -> Path:
    """Where the benchmark lies when it is imported."""
    return data_dir() / "benchmarks" / benchmark.name


def read_manifest(benchmark: Benchmark) -> Manifest | None:
    """The manifest, or None where nothing is imported; BenchmarkError if it is damaged."""
    path = folder(benchmark) / manifests.NAME
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise _damaged(benchmark, f"{path} cannot be read") from None


def has_split(benchmark: Benchmark, split: str) -> bool:
    """Whether the split is imported; BenchmarkError if the manifest is damaged."""
    found = read_manifest(benchmark)
    return found is not None and split in found.splits


def digest(benchmark: Benchmark, split: str) -> str:
    """The SHA-256 of the imported split, from the manifest; BenchmarkError where it is not there."""
    return record_of(benchmark, split).sha256


def record_of(benchmark: Benchmark, split: str) -> SplitRecord:
    """What the manifest says of a split; BenchmarkError, saying how to bring it, where it is not there."""
    found = read_manifest(benchmark)
    if found is None:
        raise BenchmarkError(
            f"benchmark {benchmark.name} is not imported: run `datacreate benchmarks import {benchmark.name} --from "
            f"DIR`, where DIR holds {benchmark.source.reference}/test.jsonl"
        )
    for name, record in found.splits.items():
        if name == split:
            return record
    how = how_to_bring(benchmark, split)
    raise BenchmarkError(f"benchmark {benchmark.name} has no {split} split here: {how}")


def read_split(benchmark: Benchmark, split: str) -> list[dict[str, Json]]:
    """The rows of an imported split: question, context, options, label, normalised.

    Raises BenchmarkError if the benchmark is not imported, the split is missing (saying how it can
    be brought), or the file is not what was put there.
    """
    text = read_bytes(benchmark, split).decode("utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def read_bytes(benchmark: Benchmark, split: str) -> bytes:
    """The file of an imported split, proven by its hash. Raises as `read_split` does."""
    record = record_of(benchmark, split)
    path = folder(benchmark) / f"{split}.jsonl"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _damaged(benchmark, f"{path} cannot be read ({error.strerror})") from None
    if sha256(content) != record.sha256:
        raise _damaged(benchmark, f"{path} is not what was imported (its sha256 differs)")
    return content


def content_of(rows: Iterable[Row]) -> bytes:
    """A split's file, as bytes."""
    return "".join(row.line() for row in rows).encode("utf-8")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_of(rows: Iterable[Row]) -> str:
    """The hash of the file that holds these rows."""
    return sha256(content_of(rows))


def how_to_bring(benchmark: Benchmark, split: str) -> str:
    """What a user can do about a missing split, in words."""
    name, hub = benchmark.name, benchmark.source.hub
    if hub is not None and any(split in ours for ours in hub.splits.values()):
        return (
            f"run `datacreate benchmarks import {name}` to download it from the Hub ({hub.id}), or with --from DIR "
            "for a copy of that data set"
        )
    file = f"DIR/{benchmark.source.reference}/{split}.jsonl"
    return f"run `datacreate benchmarks import {name} --from DIR`, where it is {file}"


@contextlib.contextmanager
def locked(benchmark: Benchmark) -> Iterator[None]:
    """Hold the benchmark for writing. StorageError if it cannot be written."""
    place = folder(benchmark)
    lock = filelock.FileLock(place.with_name(".lock"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_LOCK_SECONDS)
    except filelock.Timeout:
        raise BenchmarkError(
            f"another process has been importing benchmarks for {_LOCK_SECONDS:.0f} s; wait for it"
        ) from None
    except OSError as error:
        raise storage_error(place.parent, error) from None
    try:
        _finish_a_killed_replace(place)
        yield
    finally:
        lock.release()


def replace(benchmark: Benchmark, manifest: Manifest, splits: Mapping[Split, bytes]) -> None:
    """Put a benchmark in place as a whole, or not at all; the caller holds the lock."""
    place = folder(benchmark)
    new, old = place.with_name(f".{place.name}.new"), place.with_name(f".{place.name}.old")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        for split, content in splits.items():
            write_synced(new / f"{split}.jsonl", content)
        write_synced(new / manifests.NAME, (manifest.model_dump_json(indent=2) + "\n").encode("utf-8"))
        if place.exists():
            place.rename(old)
        new.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        with contextlib.suppress(OSError):
            _finish_a_killed_replace(place)
        raise storage_error(place, error) from None


def _finish_a_killed_replace(place: Path) -> None:
    old = place.with_name(f".{place.name}.old")
    if old.exists():
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(place)


def _damaged(benchmark: Benchmark, what: str) -> BenchmarkError:
    return BenchmarkError(f"{what}; run `datacreate benchmarks import {benchmark.name} --replace`")
