"""What created examples are compared with: the dev and test splits of imported benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from datacreate.benchmarks import digest, find_benchmark, has_split, load_registry, read_split
from datacreate.errors import BenchmarkError
from datacreate.formats.example import Json

HELD_OUT: tuple[Literal["dev", "test"], ...] = ("dev", "test")


@dataclass(frozen=True)
class HeldOutSet:
    """A split that nothing created may repeat; `digest` is its file's SHA-256 when it was chosen."""

    benchmark: str
    split: str
    digest: str


def held_out_sets(names: Sequence[str] | Literal["all"]) -> tuple[HeldOutSet, ...]:
    """The dev and test splits of the named benchmarks, or of all that are imported, in the registry's order.

    `all` finds nothing where nothing is imported. Raises BenchmarkError if a named benchmark is
    unknown or not imported (saying how to import it), or the manifest of one is damaged.
    """
    registry = load_registry()
    wanted = set(registry) if names == "all" else {find_benchmark(name).name for name in names}
    found: list[HeldOutSet] = []
    for name, benchmark in registry.items():
        if name not in wanted:
            continue
        splits = [split for split in HELD_OUT if has_split(benchmark, split)]
        if not splits and names != "all":
            splits = ["test"]  # it is not there, and `digest` says how it can be brought
        found += [HeldOutSet(name, split, digest(benchmark, split)) for split in splits]
    return tuple(found)


def rows_of(opponent: HeldOutSet) -> Iterator[dict[str, Json]]:
    """The opponent's rows; BenchmarkError if they are no longer those that were chosen."""
    benchmark = find_benchmark(opponent.benchmark)
    if digest(benchmark, opponent.split) != opponent.digest:
        raise BenchmarkError(
            f"benchmark {opponent.benchmark}: the {opponent.split} split was imported anew in the meantime; "
            "run the command again"
        )
    yield from read_split(benchmark, opponent.split)
