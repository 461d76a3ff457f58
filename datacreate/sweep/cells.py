"""A plan -> its cells, each with its steps in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from datacreate.benchmarks import Benchmark, find_benchmark
from datacreate.selection.strategies import STRATEGIES
from datacreate.sweep.names import short_name
from datacreate.sweep.plan import HUMAN, HUMAN_FULL, MIXED, ZERO_SHOT, Plan
from datacreate.sweep.steps import Rows, Step, creation, training, zero_shot


@dataclass(frozen=True)
class Cell:
    """What one job does by itself: one set of rows and all that is learned from it."""

    index: int
    name: str
    steps: tuple[Step, ...]  # each after the one that it follows


def cells_of(plan: Plan) -> tuple[Cell, ...]:
    """All cells of a plan: benchmark after benchmark, human rows first."""
    named = [cell for name in plan.benchmarks for cell in _cells_for(plan, find_benchmark(name))]
    return tuple(Cell(index, name, tuple(steps)) for index, (name, steps) in enumerate(named))


def _cells_for(plan: Plan, benchmark: Benchmark) -> Iterator[tuple[str, Sequence[Step]]]:
    if HUMAN_FULL in plan.conditions:
        name = f"{benchmark.name}-{HUMAN_FULL}"
        yield name, _trainings(plan, benchmark, [Rows(HUMAN_FULL, True, None)], name)
    for seed in plan.example_seeds if HUMAN in plan.conditions else ():
        if rows := _human(plan, benchmark, seed):
            name = f"{benchmark.name}-{HUMAN}-{seed}"
            yield name, _trainings(plan, benchmark, rows, name)
    for generator in plan.generators:
        if ZERO_SHOT in plan.conditions:
            name = f"{benchmark.name}-{short_name(generator)}-{ZERO_SHOT}"
            yield name, [zero_shot(plan, benchmark, generator, name)]
        for strategy in dict.fromkeys(condition.removeprefix(MIXED) for condition in plan.conditions):
            for seed in plan.example_seeds if strategy in STRATEGIES else ():
                name = f"{benchmark.name}-{short_name(generator)}-{strategy}-{seed}"
                create = creation(plan, benchmark, generator, strategy, seed, name)
                rows = _created(plan, benchmark, create, strategy, seed)
                yield name, [create, *_trainings(plan, benchmark, rows, name)]


def _human(plan: Plan, benchmark: Benchmark, seed: int) -> list[Rows]:
    """Draws from the human rows, all of one seed nested.

    A draw of all rows is the same for every seed, and as the arm of all human rows: it is there once.
    """
    whole = benchmark.rows["train"]
    drawn = [size if size < whole else None for size in _sizes(plan, plan.rows(benchmark))]
    elsewhere = HUMAN_FULL in plan.conditions or seed != plan.example_seeds[0]
    return [Rows(HUMAN, True, None, size, seed) for size in drawn if size or not elsewhere]


def _created(plan: Plan, benchmark: Benchmark, create: Step, strategy: str, seed: int) -> list[Rows]:
    """Draws from a created set, and the set together with all human rows."""
    count, rows = plan.rows(benchmark), []
    if strategy in plan.conditions:
        drawn = [size if size < count else None for size in _sizes(plan, count)]
        rows += [Rows(strategy, False, create, size, seed) for size in drawn]
    if MIXED + strategy in plan.conditions:
        rows.append(Rows(MIXED + strategy, True, create))
    return rows


def _sizes(plan: Plan, count: int) -> list[int]:
    """Rows to train on, each number once: a size that is more than there is, is all there is."""
    return list(dict.fromkeys(count if size == "all" else min(size, count) for size in plan.sizes))


def _trainings(plan: Plan, benchmark: Benchmark, sets: Sequence[Rows], cell: str) -> list[Step]:
    """Training and evaluation of every encoder on all of the rows."""
    return [
        step
        for encoder in plan.encoders
        for rows in sets
        for step in training(plan, benchmark, rows, encoder, cell)
    ]
