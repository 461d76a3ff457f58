"""A folder in the layout of the reference's repository: <category>/<name>/{train,dev,test}.jsonl."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from datacreate.benchmarks.registry import SPLITS, Benchmark, Split
from datacreate.benchmarks.rows import Row, row_of
from datacreate.errors import BenchmarkError


@dataclass(frozen=True)
class Brought:
    """What a source gives of one benchmark."""

    source: str  # in words, for the manifest
    rows: dict[Split, list[Row]]
    notes: dict[Split, str] = field(default_factory=dict)
    apart_from: dict[Split, dict[Split, str]] = field(default_factory=dict)  # see SplitRecord


def read_reference(folder: Path, benchmark: Benchmark) -> Brought | None:
    """The splits of the benchmark that the folder holds; None if it holds none of them.

    Raises BenchmarkError, naming file and line, at the first row that is no row of this benchmark.
    """
    place = folder / benchmark.source.reference
    paths = {split: place / f"{split}.jsonl" for split in SPLITS}
    rows = {split: read_rows(path, benchmark) for split, path in paths.items() if path.is_file()}
    return Brought(f"reference {place}", rows) if rows else None


def read_rows(path: Path, benchmark: Benchmark) -> list[Row]:
    """The rows of one file; BenchmarkError naming the line that is wrong."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BenchmarkError(
            f"{path}: cannot be read ({error.strerror}); fix that, or copy it again"
        ) from None
    rows = parse_rows(content, str(path), benchmark)
    if not rows:
        raise BenchmarkError(f"{path}: no rows in it; copy the file again, or take it out")
    return rows


def parse_rows(content: bytes, where: str, benchmark: Benchmark) -> list[Row]:
    """The rows of a file's bytes; BenchmarkError naming the line that is wrong."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BenchmarkError(f"{where}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    rows = []
    # Not splitlines(): texts may hold U+2028.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(row_of(json.loads(line), benchmark))
        except (ValueError, RecursionError) as error:
            said = "not JSON" if isinstance(error, json.JSONDecodeError) else str(error)
            raise BenchmarkError(
                f"{where}, line {number}: {said}; is it a file of {benchmark.title}? fix it, or take it out"
            ) from None
    return rows
