"""From a plan to its cells, and from a cell to its steps: one `datacreate` command each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import product
from pathlib import PurePath
from typing import Any

from datacreate.benchmarks import Benchmark, find_benchmark, has_split, split_sha256
from datacreate.checkpoints import resolve
from datacreate.engines.factory import resolve_checkpoint
from datacreate.engines.settings import RunEngineOptions
from datacreate.errors import DatacreateError
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.train import TrainConfig
from datacreate.improve import REPEATED_OPTIONS
from datacreate.runs.config import CreateConfig
from datacreate.selection.strategies import STRATEGIES
from datacreate.settings import as_arguments
from datacreate.sweep.plan import HUMAN, HUMAN_FULL, MIXED, SweepPlan, Variant, engine_options, short_name, split_recipe

Argument = str | PurePath  # a PurePath is relative to the folder of the sweep, which can therefore be moved


@dataclass(frozen=True)
class Step:
    """One `datacreate` command."""

    name: str  # unique in the cell
    arguments: tuple[Argument, ...]  # they decide the result
    folder: PurePath  # of what it creates or evaluates
    engine_arguments: tuple[str, ...] = ()  # how models are run (--nproc of a training); may change
    depends_on: Step | None = None
    generator: str | None = None  # the model that it runs
    verifier: str | None = None  # another model that it runs
    examples: int = 0  # to create

    @property
    def kind(self) -> str:
        """The command: create, improve, train or evaluate."""
        return str(self.arguments[0])

    @property
    def command(self) -> tuple[str, ...]:
        """The arguments of `datacreate`, with paths relative to the folder of the sweep."""
        return (*map(str, self.arguments), *self.engine_arguments)

    @cached_property
    def identity(self) -> tuple[str, ...]:
        """Everything that decides the result, with the steps before it."""
        earlier = (*self.depends_on.identity, "|") if self.depends_on else ()
        return (*earlier, *map(str, self.arguments))


@dataclass(frozen=True)
class SweepCell:
    """What one job does: one set of rows, and everything that is trained on it."""

    index: int
    name: str
    steps: tuple[Step, ...]  # each after the one that it depends on


@dataclass(frozen=True)
class _Rows:
    """Training rows: `sample` of them, drawn by `seed`; None means all."""

    condition: str
    human: bool  # the train split of the benchmark
    created: Step | None  # with the step that it depends on
    sample: int | None = None
    seed: int = 0
    human_sample: int | None = None  # of the human rows; None means all
    options: Mapping[str, Any] = field(default_factory=dict)  # of `train`, beside those of the plan

    @property
    def creations(self) -> list[Step]:
        """The steps that create these rows, in order."""
        return [step for step in (self.created and self.created.depends_on, self.created) if step]

    @property
    def label(self) -> str:
        """The number of rows, for names of files. It changes when a created set is extended."""
        created = [str(sum(step.examples for step in self.creations))] if self.creations else []
        if self.sample:
            return "-of-".join([str(self.sample), *created])
        return "+".join([*([str(self.human_sample or "full")] if self.human else []), *created])


def build_cells(plan: SweepPlan) -> tuple[SweepCell, ...]:
    """All cells of a plan: by benchmark, human rows first."""
    benchmarks = map(find_benchmark, plan.benchmarks)
    named = [cell for benchmark in benchmarks for cell in _Builder(plan, benchmark).cells()]
    return tuple(SweepCell(index, name, tuple(steps)) for index, (name, steps) in enumerate(named))


def missing(plan: SweepPlan) -> list[str]:
    """Lines that say what the plan needs and this machine lacks, and what to do. Reads no rows and no weights."""
    variants = [variant for name in plan.conditions if (variant := plan.variant(name))]
    default_embedder = CreateConfig.model_fields["embedding_model"].default
    generators, embedders = list(plan.generators), list[str]()
    for variant in variants:
        options = plan.create | variant.create
        if options.get("verifier"):
            generators.append(options["verifier"])
        if STRATEGIES[variant.strategy].needs_embedder:
            embedders.append(str(options.get("embedding_model", default_embedder)))
    engine = engine_options(plan.create)
    checks: list[Callable[[], object]] = [
        partial(split_sha256, benchmark, split) for benchmark, split in _needed_splits(plan, variants)
    ]
    checks += [partial(resolve_checkpoint, name, engine) for name in generators]
    checks += [partial(resolve, name, "encoder") for name in (*plan.encoders, *embedders)]
    problems: list[str] = []
    for check in checks:
        try:
            check()
        except DatacreateError as error:
            problems.append(str(error))
    return list(dict.fromkeys(problems))


def _needed_splits(plan: SweepPlan, variants: Sequence[Variant]) -> Iterator[tuple[Benchmark, str]]:
    """The splits that the steps of a plan read."""
    needs_human_rows = any(name in (HUMAN, HUMAN_FULL) or name.startswith(MIXED) for name in plan.conditions)
    trainings = [plan.train, *(plan.train | variant.train for variant in variants)]
    selections = [
        options.get("model_selection", "human" if options.get("recipe") == "paper" else None) for options in trainings
    ]
    for benchmark in map(find_benchmark, plan.benchmarks):
        if variants:  # they need a formatting example
            yield benchmark, "train" if has_split(benchmark, "train") else "dev"
        if needs_human_rows:
            yield benchmark, "train"
        if plan.encoders and "human" in selections:
            yield benchmark, "dev"
        if plan.encoders:
            yield from ((find_benchmark(test), "test") for test in plan.tests(benchmark))


class _Builder:
    """Builds the cells of one benchmark."""

    def __init__(self, plan: SweepPlan, benchmark: Benchmark) -> None:
        self.plan, self.benchmark = plan, benchmark
        self.count, self.tests = plan.rows(benchmark), plan.tests(benchmark)
        sizes = [self.count if size == "all" else min(size, self.count) for size in plan.sizes]
        self.sizes = list(dict.fromkeys(sizes))
        self.engine_arguments = self._create_arguments(plan.create, engine=True)

    def _create_arguments(self, options: Mapping[str, Any], *, engine: bool) -> tuple[str, ...]:
        """The arguments for those of these options that are of the engine, or for all others."""
        names = [name for name in options if (name in RunEngineOptions.model_fields) == engine]
        return tuple(as_arguments(CreateConfig, {name: options[name] for name in names}))

    def cells(self) -> Iterator[tuple[str, Sequence[Step]]]:
        """Name and steps of each cell."""
        yield from self._human_cells()
        plan = self.plan
        for generator, variants, seed in product(plan.generators, self._created_sets(), plan.example_seeds):
            first_condition, first_variant = next(iter(variants.items()))
            name = f"{self.benchmark.name}-{short_name(generator)}-{first_condition}-{seed}"
            creations = self._creations(name, generator, first_variant, seed)
            rows: list[_Rows] = []
            for condition, variant in variants.items():
                rows += self._created_rows(creations[-1], condition, variant, seed)
            yield name, [*creations, *self._trainings(name, rows)]

    def _human_cells(self) -> Iterator[tuple[str, Sequence[Step]]]:
        if HUMAN_FULL in self.plan.conditions:
            name = f"{self.benchmark.name}-{HUMAN_FULL}"
            yield name, self._trainings(name, [_Rows(HUMAN_FULL, True, None)])
        for seed in self.plan.example_seeds if HUMAN in self.plan.conditions else ():
            if rows := self._human_rows(seed):
                name = f"{self.benchmark.name}-{HUMAN}-{seed}"
                yield name, self._trainings(name, rows)

    def _created_sets(self) -> list[dict[str, Variant]]:
        """The variants of each created set, by condition. Variants that differ only in `train` share a set."""
        names = dict.fromkeys(condition.removeprefix(MIXED) for condition in self.plan.conditions)
        sets: dict[str, dict[str, Variant]] = {}
        for name in names:
            if variant := self.plan.variant(name):
                key = variant.model_copy(update={"train": {}}).model_dump_json()
                sets.setdefault(key, {})[name] = variant
        return list(sets.values())

    def _human_rows(self, seed: int) -> list[_Rows]:
        """Nested samples of the human rows. All rows are the same for each seed: they appear once."""
        whole = self.benchmark.rows["train"]
        samples = [size if size < whole else None for size in self.sizes]
        is_repeated = HUMAN_FULL in self.plan.conditions or seed != self.plan.example_seeds[0]
        return [_Rows(HUMAN, True, None, size, seed) for size in samples if size or not is_repeated]

    def _created_rows(self, create: Step, condition: str, variant: Variant, seed: int) -> list[_Rows]:
        """Samples of a created set, and the set together with as many human rows, or all if there are fewer."""
        samples = [size if size < self.count else None for size in self.sizes]
        rows = [_Rows(condition, False, create, size, seed, options=variant.train) for size in samples]
        human = self.count if self.count < self.benchmark.rows["train"] else None
        mixed = _Rows(MIXED + condition, True, create, None, seed, human, variant.train)
        return [sample for sample in (*rows, mixed) if sample.condition in self.plan.conditions]

    def _creations(self, cell: str, generator: str, variant: Variant, seed: int) -> list[Step]:
        """The step that creates the set; with `improve` those of its first and its second half."""
        if not variant.improve:
            return [self._creation(cell, generator, variant, seed, self.count)]
        improved = self.count // 2
        create = self._creation(cell, generator, variant, seed, self.count - improved)
        all_options = self.plan.create | variant.create
        repeated = {name: all_options[name] for name in REPEATED_OPTIONS if name in all_options}
        options, encoder = as_arguments(CreateConfig, repeated), self.plan.encoders[0]
        folder = PurePath("runs", f"{cell}-improved")
        arguments: list[Argument] = ["improve", create.folder, "--count", str(improved), "--encoder", encoder]
        step = replace(
            create,
            name="improve",
            arguments=(*arguments, "--model", generator, *options, "--run-dir", folder),
            folder=folder,
            depends_on=create,
            examples=improved,
        )
        return [create, step]

    def _creation(self, cell: str, generator: str, variant: Variant, seed: int, count: int) -> Step:
        options, folder = self.plan.create | variant.create, PurePath("runs", cell)
        grid = {"benchmark": self.benchmark.name, "strategy": variant.strategy, "count": count}
        arguments = as_arguments(CreateConfig, {**grid, "model": generator, "seed": seed})
        return Step(
            "create",
            ("create", *arguments, *self._create_arguments(options, engine=False), "--run-dir", folder),
            folder,
            self.engine_arguments,
            generator=generator,
            verifier=options.get("verifier"),
            examples=count,
        )

    def _trainings(self, cell: str, sets: Sequence[_Rows]) -> list[Step]:
        """The steps that train every encoder on every set of rows."""
        pairs = product(self.plan.encoders, sets)
        return [step for encoder, rows in pairs for step in self._training(cell, rows, encoder)]

    def _training(self, cell: str, rows: _Rows, encoder: str) -> tuple[Step, Step]:
        """The steps that train an encoder on rows and evaluate its models."""
        name = f"{rows.condition}-{short_name(encoder)}-{rows.label}"
        folder = PurePath("trained", cell, name)
        recipe, other_options = split_recipe({**self.plan.train, **rows.options})
        nproc = as_arguments(TrainConfig, {"nproc": other_options.pop("nproc", None)})
        if rows.created is None:
            recipe.pop("soft_labels", None)  # human rows have no scores
        arguments: list[Argument] = ["train"]
        if rows.human:
            arguments.append(self.benchmark.name)
        arguments += [step.folder for step in rows.creations]
        if rows.condition.removeprefix(MIXED) in self.plan.variants:
            arguments += ["--condition", rows.condition]
        options = as_arguments(Hyperparameters, recipe) + as_arguments(TrainConfig, other_options)
        arguments += ["--encoder", encoder, *options]
        for flag, sample in (("--count", rows.sample), ("--human-count", rows.human_sample)):
            if sample:
                arguments += [flag, str(sample), "--sample-seed", str(rows.seed)]
        arguments += ["--out", folder, "--seeds", ",".join(map(str, self.plan.train_seeds))]
        train = Step(f"train-{name}", tuple(arguments), folder, tuple(nproc), rows.created)
        tests = (word for test in self.tests for word in ("--benchmark", test))
        return train, Step(f"evaluate-{name}", ("evaluate", folder, *tests), folder, depends_on=train)
