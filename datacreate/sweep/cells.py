"""From a plan to its cells, and from a cell to its steps: one `datacreate` command each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Literal

from datacreate.benchmarks import Benchmark, digest, find_benchmark, has_split
from datacreate.checkpoints import resolve
from datacreate.engines.settings import EngineOptions
from datacreate.errors import DatacreateError
from datacreate.finetuning.record import EVALUATION
from datacreate.runs.config import CreateConfig
from datacreate.selection.strategies import STRATEGIES
from datacreate.settings import as_arguments
from datacreate.sweep.plan import (
    HUMAN,
    HUMAN_FULL,
    MIXED,
    ZERO_SHOT,
    Plan,
    TrainOptions,
    engine_options,
    short_name,
)

Argument = str | PurePath
"""A PurePath is relative to the folder of the sweep, which can therefore be moved."""


@dataclass(frozen=True)
class Need:
    """What a step needs on this machine: a split, a split for the formatting example, or a checkpoint."""

    kind: Literal["split", "example", "instruct", "encoder"]
    name: str
    split: str = ""
    trust_remote_code: bool = False

    def missing(self) -> str | None:
        """Why it is missing and what to do; None if it is there. Reads no rows and no weights."""
        try:
            if self.kind == "instruct" or self.kind == "encoder":
                resolve(self.name, self.kind, trust_remote_code=self.trust_remote_code)
                return None
            benchmark = find_benchmark(self.name)
            if self.kind == "split":
                digest(benchmark, self.split)
            elif not has_split(benchmark, "train"):
                digest(benchmark, "dev")
        except DatacreateError as error:
            return str(error)
        return None


@dataclass(frozen=True)
class Step:
    """One `datacreate` command.

    `extendable` are arguments that can grow while existing results stay valid: the number of rows, the
    training seeds, the test sets. `engine` says how models are run, which may change at any time. All other
    arguments decide the result.
    """

    kind: Literal["create", "train", "evaluate", "zero-shot"]
    name: str  # unique in the cell
    arguments: tuple[Argument, ...]
    extendable: tuple[str, ...]
    folder: PurePath  # of what it creates or evaluates
    needs: tuple[Need, ...]
    follows: Step | None = None
    evaluations: tuple[PurePath, ...] = ()  # files that the evaluation writes into the folder of a model
    engine: tuple[str, ...] = ()

    @property
    def command(self) -> tuple[str, ...]:
        """The arguments of `datacreate`, with paths relative to the folder of the sweep."""
        return (*map(str, self.arguments), *self.engine, *self.extendable)

    @cached_property
    def identity(self) -> tuple[str, ...]:
        """Everything that decides the result, except what is extendable."""
        own = tuple(map(str, self.arguments))
        if self.follows is None:
            return own
        # A sample of more rows is another sample; more seeds or test sets change nothing that follows.
        rows = self.follows.extendable if self.follows.kind == "create" else ()
        return (*self.follows.identity, *rows, "|", *own)


@dataclass(frozen=True)
class Cell:
    """What one job does: one set of rows, and everything that is trained on it."""

    index: int
    name: str
    steps: tuple[Step, ...]  # each after the one that it follows


@dataclass(frozen=True)
class Rows:
    """Training rows: `sample` of them, drawn by `seed`; None means all."""

    condition: str
    human: bool  # the train split of the benchmark
    created: Step | None
    sample: int | None = None
    seed: int = 0

    @property
    def label(self) -> str:
        """The number of rows in names of files: a created set that grew is another one."""
        parts = [
            *(["full"] if self.human else []),
            *([self.created.extendable[-1]] if self.created else []),
        ]
        return str(self.sample or "+".join(parts))


def cells_of(plan: Plan) -> tuple[Cell, ...]:
    """All cells of a plan: by benchmark, human rows first."""
    named = [cell for name in plan.benchmarks for cell in _cells_for(plan, find_benchmark(name))]
    return tuple(Cell(index, name, tuple(steps)) for index, (name, steps) in enumerate(named))


def _cells_for(plan: Plan, benchmark: Benchmark) -> Iterator[tuple[str, Sequence[Step]]]:
    if HUMAN_FULL in plan.conditions:
        name = f"{benchmark.name}-{HUMAN_FULL}"
        yield name, _trainings(plan, benchmark, [Rows(HUMAN_FULL, True, None)], name)
    for seed in plan.example_seeds if HUMAN in plan.conditions else ():
        if rows := _human_rows(plan, benchmark, seed):
            name = f"{benchmark.name}-{HUMAN}-{seed}"
            yield name, _trainings(plan, benchmark, rows, name)
    for generator in plan.generators:
        if ZERO_SHOT in plan.conditions:
            name = f"{benchmark.name}-{short_name(generator)}-{ZERO_SHOT}"
            yield name, [_zero_shot(plan, benchmark, generator, name)]
        for strategy in dict.fromkeys(condition.removeprefix(MIXED) for condition in plan.conditions):
            for seed in plan.example_seeds if strategy in STRATEGIES else ():
                name = f"{benchmark.name}-{short_name(generator)}-{strategy}-{seed}"
                create = _creation(plan, benchmark, generator, strategy, seed, name)
                rows = _created_rows(plan, benchmark, create, strategy, seed)
                yield name, [create, *_trainings(plan, benchmark, rows, name)]


def _human_rows(plan: Plan, benchmark: Benchmark, seed: int) -> list[Rows]:
    """Nested samples of the human rows. A sample of all rows is the same for each seed: it appears once."""
    whole = benchmark.rows["train"]
    samples = [size if size < whole else None for size in _sizes(plan, plan.rows(benchmark))]
    whole_is_covered = HUMAN_FULL in plan.conditions or seed != plan.example_seeds[0]
    return [Rows(HUMAN, True, None, size, seed) for size in samples if size or not whole_is_covered]


def _created_rows(plan: Plan, benchmark: Benchmark, create: Step, strategy: str, seed: int) -> list[Rows]:
    """Samples of a created set, and the set together with all human rows."""
    count, rows = plan.rows(benchmark), []
    if strategy in plan.conditions:
        samples = [size if size < count else None for size in _sizes(plan, count)]
        rows += [Rows(strategy, False, create, size, seed) for size in samples]
    if MIXED + strategy in plan.conditions:
        rows.append(Rows(MIXED + strategy, True, create))
    return rows


def _sizes(plan: Plan, count: int) -> list[int]:
    """The distinct numbers of rows to train on, at most `count`."""
    return list(dict.fromkeys(count if size == "all" else min(size, count) for size in plan.sizes))


def _trainings(plan: Plan, benchmark: Benchmark, sets: Sequence[Rows], cell: str) -> list[Step]:
    return [
        step
        for encoder in plan.encoders
        for rows in sets
        for step in _training(plan, benchmark, rows, encoder, cell)
    ]


def _creation(plan: Plan, benchmark: Benchmark, generator: str, strategy: str, seed: int, cell: str) -> Step:
    needs = [Need("example", benchmark.name), *_generator(plan, generator)]
    if STRATEGIES[strategy].needs_similarity:
        default = CreateConfig.model_fields["embedding_model"].default
        needs.append(Need("encoder", str(plan.create.get("embedding_model", default))))
    model = ("--model", generator, "--seed", str(seed))
    folder = PurePath("runs", cell)
    arguments: tuple[Argument, ...] = ("create", "--benchmark", benchmark.name, "--strategy", strategy)
    arguments += (*model, *_options(plan, engine=False), "--run-dir", folder)
    count = ("--count", str(plan.rows(benchmark)))
    return Step(
        "create", "create", arguments, count, folder, tuple(needs), engine=_options(plan, engine=True)
    )


def _training(plan: Plan, benchmark: Benchmark, rows: Rows, encoder: str, cell: str) -> tuple[Step, Step]:
    """Training an encoder on rows, and evaluating its models."""
    name = f"{rows.condition}-{short_name(encoder)}-{rows.label}"
    folder, tests = PurePath("trained", cell, name), plan.tests(benchmark)
    evaluations = tuple(PurePath("evaluations", f"{test}-test", EVALUATION) for test in tests)
    selection = plan.train.selection
    needs = (
        *(rows.created.needs if rows.created else ()),
        *([Need("split", benchmark.name, "train")] if rows.human else []),
        *([Need("split", benchmark.name, "dev")] if selection == "human" else []),
        *(Need("split", test, "test") for test in tests),
        Need("encoder", encoder),
    )
    options = plan.train.model_dump(exclude_none=True) | {"model_selection": selection}
    options["soft_labels"] = plan.train.soft_labels and rows.created is not None
    if rates := plan.train.learning_rates:
        options["learning_rates"] = ",".join(map(str, rates))
    arguments: list[Argument] = ["train", *([benchmark.name] if rows.human else [])]
    arguments += [rows.created.folder] if rows.created else []
    arguments += ["--encoder", encoder, *as_arguments(TrainOptions, options)]
    arguments += ["--count", str(rows.sample), "--sample-seed", str(rows.seed)] if rows.sample else []
    command, seeds = (*arguments, "--out", folder), ("--seeds", ",".join(map(str, plan.train_seeds)))
    train = Step("train", f"train-{name}", command, seeds, folder, needs, rows.created, evaluations)
    named, command = tuple(word for test in tests for word in ("--benchmark", test)), ("evaluate", folder)
    evaluate = Step("evaluate", f"evaluate-{name}", command, named, folder, needs, train, evaluations)
    return train, evaluate


def _zero_shot(plan: Plan, benchmark: Benchmark, generator: str, cell: str) -> Step:
    """The generator itself on the test set."""
    folder = PurePath(ZERO_SHOT, cell)
    arguments = ("evaluate", "--zero-shot", generator, "--benchmark", benchmark.name, "--out", folder)
    needs = (*_generator(plan, generator), Need("split", benchmark.name, "test"))
    return Step("zero-shot", ZERO_SHOT, arguments, (), folder, needs, engine=_options(plan, engine=True))


def _generator(plan: Plan, name: str) -> tuple[Need, ...]:
    """A generator must be on this machine, unless servers have it."""
    options = engine_options(plan.create)
    return () if options.served else (Need("instruct", name, trust_remote_code=options.trust_remote_code),)


def _options(plan: Plan, *, engine: bool) -> tuple[str, ...]:
    """The options of `create` in the plan: those of the engine, or all others."""
    names = [name for name in plan.create if (name in EngineOptions.model_fields) == engine]
    return tuple(as_arguments(CreateConfig, {name: plan.create[name] for name in names}))
