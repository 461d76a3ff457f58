"""What a plan says: the grid of a sweep, typed. A wrong one is told before anything is run."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from datacreate.benchmarks import Benchmark, find_benchmark
from datacreate.errors import BenchmarkError
from datacreate.finetuning.record import Selection
from datacreate.selection.strategies import STRATEGIES
from datacreate.sweep.names import checked_model, distinct, near
from datacreate.sweep.options import TrainOptions, checked_create, engine_options

HUMAN, HUMAN_FULL, ZERO_SHOT = "human", "human-full", "zero-shot"
MIXED = "human+"
"""In front of a strategy: the whole human train split and the created set together."""

ARMS = (HUMAN, HUMAN_FULL, ZERO_SHOT, *STRATEGIES, *(MIXED + name for name in STRATEGIES))

T = TypeVar("T", bound=Hashable)


def _once(values: tuple[T, ...]) -> tuple[T, ...]:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ValueError(f"{value} is there twice")
    return values


def _number_or_word(value: object, word: str) -> object:
    if value == word or (type(value) is int and value > 0):
        return value
    raise ValueError(f"{value!r} is neither a number of rows above 0 nor the word {word}")


def _benchmark(value: object) -> str:
    try:
        return find_benchmark(str(value)).name
    except BenchmarkError as error:
        raise ValueError(str(error)) from None


def _arm(value: object) -> str:
    if value in ARMS:
        return str(value)
    known = ", ".join(STRATEGIES)
    raise ValueError(
        f"no condition {value!r}{near(str(value), ARMS)}: {HUMAN}, {HUMAN_FULL}, {ZERO_SHOT}, one of {known}, "
        f"or {MIXED} before one of these"
    )


Seed = Annotated[int, Field(strict=True, ge=0)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_once)]
BenchmarkNames = Annotated[
    tuple[Annotated[str, BeforeValidator(_benchmark)], ...], Field(min_length=1), AfterValidator(_once)
]
Arms = Annotated[
    tuple[Annotated[str, BeforeValidator(_arm)], ...], Field(min_length=1), AfterValidator(_once)
]
Count = Annotated[int | Literal["train"], BeforeValidator(lambda value: _number_or_word(value, "train"))]
Size = Annotated[int | Literal["all"], BeforeValidator(lambda value: _number_or_word(value, "all"))]


class Plan(BaseModel):
    """A grid: benchmarks x arms x generators x example seeds, x encoders x sizes x train seeds.

    Checkpoints' paths are absolute here; in the file they are relative to it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*$")]  # the file's, unless it says otherwise
    description: str = ""
    benchmarks: BenchmarkNames
    conditions: Arms
    create: dict[str, Any] = {}  # further options of `datacreate create`; the engine's are for zero-shot, too
    generators: tuple[str, ...] = ()  # instruct checkpoints; behind `urls`, what servers call them
    example_seeds: Seeds = (42,)  # draw the formatting example, and the human arm's sample
    count: Count = "train"  # rows of a set; train: as many as the benchmark's train split
    encoders: tuple[str, ...] = ()  # to fine-tune; none: the sets are created, and that is all
    sizes: Annotated[tuple[Size, ...], Field(min_length=1), AfterValidator(_once)] = ("all",)
    train_seeds: Seeds = (1, 2, 3)
    settings: Literal["datacreate", "paper"] = "datacreate"
    model_selection: Selection | None = None  # None: as `train` chooses, which depends on the settings
    train: TrainOptions = TrainOptions()
    test: BenchmarkNames | None = None  # test sets; None: a benchmark's own and those out of distribution
    keep_weights: bool = False  # of models that are measured

    @property
    def selection(self) -> Selection:
        """Which rows choose the best model."""
        return self.model_selection or ("human" if self.settings == "paper" else "held-out")

    def rows(self, benchmark: Benchmark) -> int:
        """Rows of a set for this benchmark."""
        return benchmark.rows["train"] if self.count == "train" else self.count

    def tests(self, benchmark: Benchmark) -> tuple[str, ...]:
        """The test sets for models of this benchmark; of those named, all that their head can answer."""
        if self.test is None:
            return (benchmark.name, *benchmark.out_of_distribution)
        named = [find_benchmark(name) for name in self.test]
        return tuple(
            one.name for one in named if (one.head, one.options) == (benchmark.head, benchmark.options)
        )

    @field_validator("generators", "encoders")
    @classmethod
    def _checkpoints(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        kind: Literal["instruct", "encoder"] = "encoder" if info.field_name == "encoders" else "instruct"
        served = kind == "instruct" and engine_options(info.data.get("create", {})).served
        found = _once(tuple(checked_model(name, kind, _folder(info), served=served) for name in names))
        distinct(found)
        return found

    @field_validator("create")
    @classmethod
    def _create_options(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return checked_create(given, _folder(info))

    @field_validator("test", mode="before")
    @classmethod
    def _test_sets(cls, value: object) -> object:
        return None if value == "default" else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        written = [condition for condition in self.conditions if condition not in (HUMAN, HUMAN_FULL)]
        if written and not self.generators:
            raise ValueError(f"generators: the arm {written[0]} needs a model; name one or more")
        trained = [
            condition
            for condition in self.conditions
            if condition != ZERO_SHOT and condition not in STRATEGIES
        ]
        if trained and not self.encoders:
            raise ValueError(f"encoders: the arm {trained[0]} is for training; name one or more encoders")
        for size in self.sizes:
            if size != "all" and self.count != "train" and size > self.count:
                raise ValueError(f"sizes: {size} is more than the count of {self.count}")
        for name in self.benchmarks:
            if not self.tests(find_benchmark(name)):
                raise ValueError(f"test: none of these can be answered by a model for {name}")
        return self


def _folder(info: ValidationInfo) -> Path:
    """The folder of the plan's file."""
    return Path((info.context or {}).get("folder", "."))
