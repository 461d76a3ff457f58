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
from datacreate.finetuning.recipe import Recipe
from datacreate.finetuning.records import EVALUATION
from datacreate.finetuning.train import TrainConfig
from datacreate.runs.config import CreateConfig
from datacreate.selection.strategies import STRATEGIES
from datacreate.settings import as_arguments
from datacreate.sweep.plan import (
    HUMAN,
    HUMAN_FULL,
    MIXED,
    ZERO_SHOT,
    Plan,
    engine_options,
    short_name,
    split_recipe,
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
    training seeds, the test sets. `engine` says how models are run (for a training: --nproc), which may change
    at any time. All other arguments decide the result.
    """

    kind: Literal["create", "train", "evaluate", "zero-shot"]
    name: str  # unique in the cell
    arguments: tuple[Argument, ...]
    extendable: tuple[str, ...]
    folder: PurePath  # of what it creates or evaluates
    needs: tuple[Need, ...]
    engine: tuple[str, ...] = ()
    follows: Step | None = None
    evaluations: tuple[PurePath, ...] = ()  # files that the evaluation writes into the folder of a model

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
class _Rows:
    """Training rows: `sample` of them, drawn by `seed`; None means all."""

    condition: str
    human: bool  # the train split of the benchmark
    created: Step | None
    sample: int | None = None
    seed: int = 0

    @property
    def label(self) -> str:
        """The number of rows in names of files: a created set that grew is another one."""
        created = [self.created.extendable[-1]] if self.created else []
        return str(self.sample or "+".join([*(["full"] if self.human else []), *created]))


def cells_of(plan: Plan) -> tuple[Cell, ...]:
    """All cells of a plan: by benchmark, human rows first."""
    benchmarks = map(find_benchmark, plan.benchmarks)
    named = [cell for benchmark in benchmarks for cell in _Builder(plan, benchmark).cells()]
    return tuple(Cell(index, name, tuple(steps)) for index, (name, steps) in enumerate(named))


class _Builder:
    """Builds the cells of one benchmark."""

    def __init__(self, plan: Plan, benchmark: Benchmark) -> None:
        self.plan, self.benchmark = plan, benchmark
        self.count, self.tests = plan.rows(benchmark), plan.tests(benchmark)
        sizes = [self.count if size == "all" else min(size, self.count) for size in plan.sizes]
        self.sizes = list(dict.fromkeys(sizes))
        self.engine, self.options = self._create_options(True), self._create_options(False)

    def _create_options(self, engine: bool) -> tuple[str, ...]:
        """The options of `create` in the plan: those of the engine, or all others."""
        given = self.plan.create
        names = [name for name in given if (name in EngineOptions.model_fields) == engine]
        return tuple(as_arguments(CreateConfig, {name: given[name] for name in names}))

    def cells(self) -> Iterator[tuple[str, Sequence[Step]]]:
        """Name and steps of each cell."""
        plan, conditions = self.plan, self.plan.conditions
        if HUMAN_FULL in conditions:
            name = f"{self.benchmark.name}-{HUMAN_FULL}"
            yield name, self._trainings(name, [_Rows(HUMAN_FULL, True, None)])
        for seed in plan.example_seeds if HUMAN in conditions else ():
            if rows := self._human_rows(seed):
                name = f"{self.benchmark.name}-{HUMAN}-{seed}"
                yield name, self._trainings(name, rows)
        for generator in plan.generators:
            prefix = f"{self.benchmark.name}-{short_name(generator)}"
            if ZERO_SHOT in conditions:
                yield f"{prefix}-{ZERO_SHOT}", [self._zero_shot(f"{prefix}-{ZERO_SHOT}", generator)]
            for strategy in dict.fromkeys(condition.removeprefix(MIXED) for condition in conditions):
                for seed in plan.example_seeds if strategy in STRATEGIES else ():
                    name = f"{prefix}-{strategy}-{seed}"
                    create = self._creation(name, generator, strategy, seed)
                    rows = self._created_rows(create, strategy, seed)
                    yield name, [create, *self._trainings(name, rows)]

    def _human_rows(self, seed: int) -> list[_Rows]:
        """Nested samples of the human rows. All rows are the same for each seed: they appear once."""
        whole = self.benchmark.rows["train"]
        samples = [size if size < whole else None for size in self.sizes]
        is_repeated = HUMAN_FULL in self.plan.conditions or seed != self.plan.example_seeds[0]
        return [_Rows(HUMAN, True, None, size, seed) for size in samples if size or not is_repeated]

    def _created_rows(self, create: Step, strategy: str, seed: int) -> list[_Rows]:
        """Samples of a created set, and the set together with all human rows."""
        samples = [size if size < self.count else None for size in self.sizes]
        rows = [_Rows(strategy, False, create, size, seed) for size in samples]
        mixed = _Rows(MIXED + strategy, True, create)
        return [one for one in (*rows, mixed) if one.condition in self.plan.conditions]

    def _creation(self, cell: str, generator: str, strategy: str, seed: int) -> Step:
        needs = [Need("example", self.benchmark.name), *self._generator(generator)]
        if STRATEGIES[strategy].needs_similarity:
            default = CreateConfig.model_fields["embedding_model"].default
            needs.append(Need("encoder", str(self.plan.create.get("embedding_model", default))))
        folder, count = PurePath("runs", cell), ("--count", str(self.count))
        grid = ("--benchmark", self.benchmark.name, "--strategy", strategy, "--model", generator)
        arguments: tuple[Argument, ...] = ("create", *grid, "--seed", str(seed), *self.options)
        arguments += ("--run-dir", folder)
        return Step("create", "create", arguments, count, folder, tuple(needs), self.engine)

    def _trainings(self, cell: str, sets: Sequence[_Rows]) -> list[Step]:
        encoders = self.plan.encoders
        return [step for encoder in encoders for rows in sets for step in self._training(cell, rows, encoder)]

    def _training(self, cell: str, rows: _Rows, encoder: str) -> tuple[Step, Step]:
        """Training an encoder on rows, and evaluating its models."""
        name = f"{rows.condition}-{short_name(encoder)}-{rows.label}"
        folder, (recipe, rest) = PurePath("trained", cell, name), split_recipe(self.plan.train)
        engine = {name: rest.pop(name) for name in ("nproc",) if name in rest}
        if rows.created is None:
            recipe.pop("soft_labels", None)  # human rows have no scores
        selection = rest.get("model_selection") or ("human" if recipe.get("name") == "paper" else "held-out")
        needs = (
            *(rows.created.needs if rows.created else ()),
            *([Need("split", self.benchmark.name, "train")] if rows.human else []),
            *([Need("split", self.benchmark.name, "dev")] if selection == "human" else []),
            *(Need("split", test, "test") for test in self.tests),
            Need("encoder", encoder),
        )
        arguments: list[Argument] = ["train", *([self.benchmark.name] if rows.human else [])]
        arguments += [rows.created.folder] if rows.created else []
        arguments += ["--encoder", encoder, *as_arguments(Recipe, recipe), *as_arguments(TrainConfig, rest)]
        arguments += ["--count", str(rows.sample), "--sample-seed", str(rows.seed)] if rows.sample else []
        arguments += ["--out", folder]
        seeds = ("--seeds", ",".join(map(str, self.plan.train_seeds)))
        files = tuple(PurePath("evaluations", f"{test}-test", EVALUATION) for test in self.tests)
        nproc, command = tuple(as_arguments(TrainConfig, engine)), tuple(arguments)
        train = Step("train", f"train-{name}", command, seeds, folder, needs, nproc, rows.created, files)
        tests = tuple(word for test in self.tests for word in ("--benchmark", test))
        name, command = f"evaluate-{name}", ("evaluate", folder)
        return train, Step("evaluate", name, command, tests, folder, needs, (), train, files)

    def _zero_shot(self, cell: str, generator: str) -> Step:
        """The generator itself on the test set."""
        folder, test = PurePath(ZERO_SHOT, cell), self.benchmark.name
        arguments = ("evaluate", "--zero-shot", generator, "--benchmark", test, "--out", folder)
        needs = (*self._generator(generator), Need("split", test, "test"))
        return Step("zero-shot", ZERO_SHOT, arguments, (), folder, needs, self.engine)

    def _generator(self, name: str) -> tuple[Need, ...]:
        """A generator must be on this machine, unless servers have it."""
        options = engine_options(self.plan.create)
        trust = options.trust_remote_code
        return () if options.served else (Need("instruct", name, trust_remote_code=trust),)
