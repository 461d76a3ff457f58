"""Benchmarks: which are imported, whether they are whole, and of the paper's size."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from datacreate.benchmarks import (
    SPLITS,
    Benchmark,
    has_split,
    how_to_bring,
    load_registry,
    read_manifest,
    state,
    store,
)
from datacreate.doctor.line import Line, Work, apart
from datacreate.errors import BenchmarkError

SECTION = "benchmarks"


def benchmark_lines(
    note: Callable[[str], None], needed: Mapping[str, tuple[Work, ...]], *, hashed: bool
) -> list[Line]:
    """One line for all that are imported, one for all that are not, and one for each that is odd.

    `needed` and `hashed` as in `preset_lines`.
    """
    registry = load_registry()
    found = {name: state(benchmark) for name, benchmark in registry.items()}
    here = [name for name, how in found.items() if how != "absent"]
    if not here:
        said = f"none of {len(registry)} is imported"
        return [Line(SECTION, "imported", "note", said, "datacreate benchmarks import DIR")]
    if hashed:
        note("reading all of the benchmarks")
    damaged = {name: problem for name in here if (problem := _damage(registry[name], hashed=hashed))}
    whole = [name for name in here if name not in damaged]
    rows = sum(sum(_counts(registry[name]).values()) for name in whole)
    looked = "every byte verified" if hashed else "looking whole"
    said = f"{len(whole)} of {len(registry)}, {rows:,} rows, {looked}: {', '.join(whole) or 'none'}"
    lines = [Line(SECTION, "imported", "ok" if whole else "note", said)]
    lines += [
        # `create` compares what is written with every benchmark that is imported.
        Line(SECTION, name, "red", problem, _again(name), ("create", "ask", *needed.get(name, ())))
        for name, problem in damaged.items()
    ]
    lines += [line for name in whole if (line := _odd(registry[name]))]
    if absent := [name for name, how in found.items() if how == "absent"]:
        said = ", ".join(absent)
        lines.append(Line(SECTION, "not here", "note", said, "datacreate benchmarks import DIR"))
    return lines


def _again(name: str) -> str:
    return f"datacreate benchmarks import DIR {name} --replace"


def _damage(benchmark: Benchmark, *, hashed: bool) -> str | None:
    """What is wrong with its files; that it has other counts than the paper is no damage."""
    try:
        manifest = read_manifest(benchmark)
        for split in manifest.splits if manifest and hashed else ():
            store.read_bytes(benchmark, split)
    except BenchmarkError as error:
        return f"damaged: {apart(str(error))[0]}"
    return "damaged: a file is missing or not of its size" if state(benchmark) == "damaged" else None


def _counts(benchmark: Benchmark) -> dict[str, int]:
    manifest = read_manifest(benchmark)
    return {split: record.rows for split, record in manifest.splits.items()} if manifest else {}


def _odd(benchmark: Benchmark) -> Line | None:
    """A line for one that lacks a split or has other counts than the paper; None for all others."""
    counts = _counts(benchmark)
    other = [
        f"{split} has {counts[split]:,} rows, the paper's has {benchmark.rows[split]:,}"
        for split in SPLITS
        if split in counts and counts[split] != benchmark.rows[split]
    ]
    missing = [split for split in SPLITS if not has_split(benchmark, split)]
    if missing:
        how, fix = apart(how_to_bring(benchmark, missing[0]))
        other.append(f"without {', '.join(missing)}" + (f"; {how}" if how else ""))
        return Line(SECTION, benchmark.name, "note", "; ".join(other), fix)
    return Line(SECTION, benchmark.name, "note", "; ".join(other)) if other else None
