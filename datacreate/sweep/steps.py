"""The steps of a cell: one `datacreate` command each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Literal

from datacreate.benchmarks import Benchmark
from datacreate.finetuning.record import EVALUATION
from datacreate.selection.strategies import STRATEGIES
from datacreate.sweep.names import short_name
from datacreate.sweep.needs import Need
from datacreate.sweep.options import (
    as_arguments,
    deciding_arguments,
    engine_arguments,
    engine_options,
    similarity_encoder,
)
from datacreate.sweep.plan import ZERO_SHOT, Plan

Argument = str | PurePath
"""A path lies in the sweep's folder; so a sweep that is moved is still the same."""


@dataclass(frozen=True)
class Step:
    """One `datacreate` command.

    `grows` are arguments that may grow without making anything wrong that is there: the number of
    created rows, the training seeds, the test sets. `engine` are those that say how a model is asked, which
    may be another every time. All others decide the result.
    """

    kind: Literal["create", "train", "evaluate", "zero-shot"]
    name: str  # within its cell, and that of its log
    arguments: tuple[Argument, ...]
    grows: tuple[str, ...]
    folder: PurePath  # of what it makes, or measures
    needs: tuple[Need, ...]
    follows: Step | None = None
    measures: tuple[PurePath, ...] = ()  # of a model: the evaluations that are to be beside it
    engine: tuple[str, ...] = ()

    @property
    def told(self) -> tuple[str, ...]:
        """The arguments as text, the same wherever the sweep lies."""
        return (*(str(one) for one in self.arguments), *self.engine, *self.grows)

    @cached_property
    def decided_by(self) -> tuple[str, ...]:
        """Everything that decides the result, besides what may grow."""
        own = tuple(str(one) for one in self.arguments)
        if self.follows is None:
            return own
        # A draw from more rows is another draw; more seeds or test sets change nothing that follows.
        rows = self.follows.grows if self.follows.kind == "create" else ()
        return (*self.follows.decided_by, *rows, "|", *own)


def creation(plan: Plan, benchmark: Benchmark, generator: str, strategy: str, seed: int, cell: str) -> Step:
    """A created set; `seed` draws the formatting example."""
    needs = [Need("example", benchmark.name), *_generator(plan, generator)]
    if STRATEGIES[strategy].needs_similarity:
        needs.append(Need("encoder", similarity_encoder(plan.create)))
    folder = PurePath("runs", cell)
    arguments: list[Argument] = ["create", "--benchmark", benchmark.name, "--strategy", strategy]
    arguments += [
        "--model",
        generator,
        "--seed",
        str(seed),
        *deciding_arguments(plan.create),
        "--run-dir",
        folder,
    ]
    count = ("--count", str(plan.rows(benchmark)))
    engine = engine_arguments(plan.create)
    return Step("create", "create", tuple(arguments), count, folder, tuple(needs), engine=engine)


def _generator(plan: Plan, name: str) -> tuple[Need, ...]:
    """A generator must be here, unless servers have it."""
    options = engine_options(plan.create)
    return () if options.served else (Need("instruct", name, trust_remote_code=options.trust_remote_code),)


@dataclass(frozen=True)
class Rows:
    """What is trained on. `drawn` rows of it by `seed`, or all where that is None."""

    condition: str
    human: bool  # the benchmark's train split
    created: Step | None
    drawn: int | None = None
    seed: int = 0

    @property
    def named(self) -> str:
        """How many, in a name: a created set may grow, and is then another."""
        everything = [*(["full"] if self.human else []), *([self.created.grows[-1]] if self.created else [])]
        return str(self.drawn or "+".join(everything))


def training(plan: Plan, benchmark: Benchmark, rows: Rows, encoder: str, cell: str) -> tuple[Step, Step]:
    """Fine-tuning an encoder on rows, and measuring its models."""
    name = f"{rows.condition}-{short_name(encoder)}-{rows.named}"
    folder, tests = PurePath("trained", cell, name), plan.tests(benchmark)
    measures = tuple(PurePath("evaluations", f"{test}-test", EVALUATION) for test in tests)
    needs = [
        *(rows.created.needs if rows.created else ()),
        *([Need("split", benchmark.name, "train")] if rows.human else []),
        *([Need("split", benchmark.name, "dev")] if plan.selection == "human" else []),
        *(Need("split", test, "test") for test in tests),
        Need("encoder", encoder),
    ]
    arguments: list[Argument] = ["train", *([benchmark.name] if rows.human else [])]
    arguments += [rows.created.folder] if rows.created else []
    arguments += ["--encoder", encoder, "--recipe", plan.settings, "--model-selection", plan.selection]
    told = plan.train if rows.created else plan.train.model_copy(update={"soft_labels": False})
    arguments += as_arguments(told.model_dump())
    arguments += ["--count", str(rows.drawn), "--sample-seed", str(rows.seed)] if rows.drawn else []
    seeds = ("--seeds", ",".join(map(str, plan.train_seeds)))
    made_by = (*arguments, "--out", folder)
    train = Step("train", f"train-{name}", made_by, seeds, folder, tuple(needs), rows.created, measures)
    named = tuple(word for test in tests for word in ("--benchmark", test))
    measured = ("evaluate", folder)
    evaluate = Step("evaluate", f"evaluate-{name}", measured, named, folder, tuple(needs), train, measures)
    return train, evaluate


def zero_shot(plan: Plan, benchmark: Benchmark, generator: str, cell: str) -> Step:
    """The generator itself on the test set."""
    folder = PurePath(ZERO_SHOT, cell)
    arguments = ("evaluate", "--zero-shot", generator, "--benchmark", benchmark.name, "--out", folder)
    needs = (*_generator(plan, generator), Need("split", benchmark.name, "test"))
    return Step("zero-shot", ZERO_SHOT, arguments, (), folder, needs, engine=engine_arguments(plan.create))
