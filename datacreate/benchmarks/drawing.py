"""The formatting example of a benchmark: one row, drawn by a seed."""

from __future__ import annotations

import random

from datacreate.benchmarks.registry import Benchmark, Split
from datacreate.benchmarks.store import has_split, how_to_bring, read_split, record_of
from datacreate.errors import BenchmarkError, ExampleError
from datacreate.formats.example import Example, Json
from datacreate.formats.task_format import TaskFormat, bind, load_format

_MOST_DRAWS = 1000


def formatting_example(benchmark: Benchmark, seed: int) -> tuple[dict[str, Json], str]:
    """A well-formed row of the train split (of dev, where train is not here), and a note on which it is.

    It is `random.seed(seed); random.choice(rows)`, as in the reference implementation; a row
    that is no example of its own format (repeated options, say) is drawn again. Raises BenchmarkError if
    neither split is here, or if none of many rows will do.
    """
    split: Split = "train"
    if not has_split(benchmark, "train"):
        record_of(benchmark, "dev")  # not imported, or without dev: says what to do
        split = "dev"
    rows = read_split(benchmark, split)
    format = load_format(benchmark.format_name)
    rng = random.Random(seed)
    for draws in range(_MOST_DRAWS):
        number = rng.choice(range(len(rows)))  # the same choice as of the rows themselves
        if _will_do(rows[number], format):
            return rows[number], _note(benchmark, split, number + 1, seed, draws)
    raise BenchmarkError(
        f"benchmark {benchmark.name}: none of {_MOST_DRAWS} rows drawn from {split} is an example of its "
        f"format ({benchmark.format_name}); look at it with `datacreate benchmarks show {benchmark.name}`"
    )


def _will_do(row: dict[str, Json], format: TaskFormat) -> bool:
    try:
        bind(format, Example(row))
    except ExampleError:
        return False
    return True


def _note(benchmark: Benchmark, split: Split, number: int, seed: int, redrawn: int) -> str:
    note = f"formatting example: row {number} of {benchmark.name}'s {split} split, drawn by seed {seed}"
    if redrawn:
        note += f" after {redrawn} malformed row{'s' if redrawn > 1 else ''}"
    if split != "train":
        note += f"; its train split is not here ({how_to_bring(benchmark, 'train')})"
    return note
