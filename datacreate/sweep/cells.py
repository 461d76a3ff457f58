"""The cells of a plan, and their steps: one `datacreate` command each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path, PurePath
from typing import Any

from datacreate.benchmarks import Benchmark, find_benchmark, has_split
from datacreate.commands.improve import REPEATED_OPTIONS
from datacreate.engines import RunEngineOptions
from datacreate.filters import FilterOptions, filters_need_embedder
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.records import HUMAN, MIXED
from datacreate.finetuning.train import TrainConfig
from datacreate.runs.config import CreateConfig
from datacreate.selection.strategies import STRATEGIES
from datacreate.settings import as_arguments
from datacreate.sweep.plan import HUMAN_FULL, SweepPlan, Variant, short_name, split_train_options

Argument = str | PurePath  # a PurePath is relative to the folder of the sweep, which can therefore be moved

Need = tuple[str, str]
"""What must be on this machine: ("model", name), ("encoder", name), or (split, name) for a split of a benchmark."""


@dataclass(frozen=True)
class Step:
    """One `datacreate` command."""

    cell: str  # name of the cell
    name: str  # unique in the cell
    arguments: tuple[Argument, ...]  # they decide the result
    folder: PurePath  # of what it creates or evaluates
    needs: tuple[Need, ...]
    engine_arguments: tuple[str, ...] = ()  # how models are run (--nproc of a training); may change
    depends_on: Step | None = None
    generator: str | None = None  # the model that writes; it is the first of `needs`
    examples: int = 0  # to create

    @property
    def subcommand(self) -> str:
        """create, improve, train or evaluate."""
        return str(self.arguments[0])

    @property
    def command(self) -> tuple[str, ...]:
        """The arguments of `datacreate`, with paths relative to the folder of the sweep."""
        return (*map(str, self.arguments), *self.engine_arguments)

    @cached_property
    def identity(self) -> tuple[str, ...]:
        """The arguments that decide the result: those of the steps that it depends on, and its own."""
        earlier = (*self.depends_on.identity, "|") if self.depends_on else ()
        return (*earlier, *map(str, self.arguments))


@dataclass(frozen=True)
class SweepCell:
    """One set of rows, everything that is trained on it, and the evaluations."""

    index: int
    name: str
    steps: tuple[Step, ...]  # each after the one that it depends on


@dataclass(frozen=True)
class _Rows:
    """The rows of one training: human rows, the rows of a created set, or both."""

    condition: str
    with_human_rows: bool  # those of the train split of the benchmark
    creations: Sequence[Step] = ()  # the steps that create the other rows, in order
    sample: int | None = None  # rows that are drawn from all of them; None: all
    seed: int = 0  # of the sample
    human_sample: int | None = None  # rows that are drawn from the human ones; None: all
    options: Mapping[str, Any] = field(default_factory=dict)  # of `train`, besides those of the plan

    @property
    def label(self) -> str:
        """The number of rows, for names of files. It changes when a created set is extended."""
        created = [str(sum(step.examples for step in self.creations))] if self.creations else []
        if self.sample:
            return "-of-".join([str(self.sample), *created])
        return "+".join([*([str(self.human_sample or "full")] if self.with_human_rows else []), *created])


def build_cells(plan: SweepPlan) -> tuple[SweepCell, ...]:
    """All cells of a plan: by benchmark, human rows first."""
    cells = [steps for name in plan.benchmarks for steps in _Builder(plan, find_benchmark(name)).cells()]
    return tuple(SweepCell(index, steps[0].cell, tuple(steps)) for index, steps in enumerate(cells))


class _Builder:
    """Builds the cells of one benchmark."""

    def __init__(self, plan: SweepPlan, benchmark: Benchmark) -> None:
        self.plan, self.benchmark = plan, benchmark
        self.count = plan.rows(benchmark)
        sizes = [self.count if size == "all" else min(size, self.count) for size in plan.sizes]
        self.sizes = list(dict.fromkeys(sizes))

    def cells(self) -> Iterator[Sequence[Step]]:
        """The steps of each cell, in order."""
        plan = self.plan
        if HUMAN_FULL in plan.conditions:
            yield self._trainings(f"{self.benchmark.name}-{HUMAN_FULL}", [_Rows(HUMAN_FULL, with_human_rows=True)])
        for seed in plan.example_seeds if HUMAN in plan.conditions else ():
            if rows := self._human_rows(seed):
                yield self._trainings(f"{self.benchmark.name}-{HUMAN}-{seed}", rows)
        for generator, variants, seed in product(plan.generators, self._created_sets(), plan.example_seeds):
            first_condition, first_variant = next(iter(variants.items()))
            name = f"{self.benchmark.name}-{short_name(generator)}-{first_condition}-{seed}"
            creations = self._creations(name, generator, first_variant, seed)
            rows = []
            for condition, variant in variants.items():
                rows += self._created_rows(creations, condition, variant, seed)
            yield [*creations, *self._trainings(name, rows)]

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
        """Nested samples of the human rows. The sample of all rows is the same for each seed, so it appears once."""
        whole = self.benchmark.rows["train"]
        samples = dict.fromkeys(size if size < whole else None for size in self.sizes)
        is_repeated = HUMAN_FULL in self.plan.conditions or seed != self.plan.example_seeds[0]
        return [
            _Rows(HUMAN, with_human_rows=True, sample=size, seed=seed) for size in samples if size or not is_repeated
        ]

    def _created_rows(self, creations: Sequence[Step], condition: str, variant: Variant, seed: int) -> list[_Rows]:
        """Samples of a created set, and the set together with as many human rows, or all if there are fewer."""
        samples = [size if size < self.count else None for size in self.sizes]
        rows = [
            _Rows(condition, with_human_rows=False, creations=creations, sample=size, seed=seed, options=variant.train)
            for size in samples
        ]
        human = self.count if self.count < self.benchmark.rows["train"] else None
        mixed = _Rows(
            MIXED + condition,
            with_human_rows=True,
            creations=creations,
            seed=seed,
            human_sample=human,
            options=variant.train,
        )
        return [sample for sample in (*rows, mixed) if sample.condition in self.plan.conditions]

    def _creations(self, cell: str, generator: str, variant: Variant, seed: int) -> list[Step]:
        """The step that creates the set; with `improve` those of its first and its second half."""
        options, folder = self.plan.create | variant.create, PurePath("runs", cell)
        engine = {name: options.pop(name) for name in list(options) if name in RunEngineOptions.model_fields}
        improved = self.count // 2 if variant.improve else 0
        grid = {"benchmark": self.benchmark.name, "strategy": variant.strategy, "count": self.count - improved}
        arguments = as_arguments(CreateConfig, {**grid, "model": generator, "seed": seed, **options})
        needs = [("model", model) for model in (generator, options.get("verifier")) if model]
        needs.append(("train" if has_split(self.benchmark, "train") else "dev", self.benchmark.name))
        filter_options = {name: value for name, value in options.items() if name in FilterOptions.model_fields}
        if STRATEGIES[variant.strategy].needs_embedder or filters_need_embedder(FilterOptions(**filter_options)):
            default = CreateConfig.model_fields["embedding_model"].default
            needs.append(("encoder", options.get("embedding_model", default)))
        create = Step(
            cell,
            "create",
            ("create", *arguments, "--run-dir", folder),
            folder,
            tuple(needs),
            tuple(as_arguments(CreateConfig, engine)),
            generator=generator,
            examples=self.count - improved,
        )
        if not improved:
            return [create]
        encoder, improved_folder = self.plan.encoders[0], PurePath("runs", f"{cell}-improved")
        arguments = ["--count", str(improved), "--encoder", encoder, "--model", generator]
        repeated = {name: options[name] for name in REPEATED_OPTIONS if name in options}
        arguments += as_arguments(CreateConfig, repeated)
        improve = replace(
            create,
            name="improve",
            arguments=("improve", folder, *arguments, "--run-dir", improved_folder),
            folder=improved_folder,
            needs=(*create.needs, ("encoder", encoder)),
            depends_on=create,
            examples=improved,
        )
        return [create, improve]

    def _trainings(self, cell: str, sets: Sequence[_Rows]) -> list[Step]:
        """The steps that train every encoder on every set of rows."""
        pairs = product(self.plan.encoders, sets)
        return [step for encoder, rows in pairs for step in self._training(cell, rows, encoder)]

    def _training(self, cell: str, rows: _Rows, encoder: str) -> tuple[Step, Step]:
        """The steps that train an encoder on rows and evaluate its models."""
        name, benchmark = f"{rows.condition}-{short_name(encoder)}-{rows.label}", self.benchmark.name
        folder = PurePath("trained", cell, name)
        hyperparameters, other_options = split_train_options({**self.plan.train, **rows.options})
        nproc = as_arguments(TrainConfig, {"nproc": other_options.pop("nproc", None)})
        if not rows.creations:
            hyperparameters.pop("soft_labels", None)  # human rows have no scores
        sources: list[Argument] = [benchmark] if rows.with_human_rows else []
        arguments: list[Argument] = ["train", *sources, *(step.folder for step in rows.creations)]
        if rows.condition.removeprefix(MIXED) in self.plan.variants:
            arguments += ["--condition", rows.condition]
        arguments += ["--encoder", encoder]
        arguments += as_arguments(Hyperparameters, hyperparameters) + as_arguments(TrainConfig, other_options)
        for flag, sample in (("--count", rows.sample), ("--human-count", rows.human_sample)):
            if sample:
                arguments += [flag, str(sample), "--sample-seed", str(rows.seed)]
        arguments += ["--out", folder, "--seeds", ",".join(map(str, self.plan.train_seeds))]
        needs = [("train", benchmark)] if rows.with_human_rows else []
        config = TrainConfig.of(
            sources=("",), out=Path(), hyperparameters=Hyperparameters(**hyperparameters), **other_options
        )
        if config.selection == "human":
            needs.append(("dev", benchmark))
        before = rows.creations[-1] if rows.creations else None
        train = Step(
            cell, f"train-{name}", tuple(arguments), folder, (*needs, ("encoder", encoder)), tuple(nproc), before
        )
        tests = self.plan.tests(self.benchmark)
        flags = (word for test in tests for word in ("--benchmark", test))
        needed = tuple(("test", test) for test in tests)
        return train, Step(cell, f"evaluate-{name}", ("evaluate", folder, *flags), folder, needed, depends_on=train)
