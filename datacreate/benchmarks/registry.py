"""data/benchmarks.yaml, typed."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal

import yaml
from pydantic import Field, StringConstraints

from datacreate.errors import UnknownBenchmark
from datacreate.formats.task_format import Head
from datacreate.messages import did_you_mean
from datacreate.paths import shipped
from datacreate.settings import FrozenModel

Category = Literal["mcqa_2", "mcqa_5", "yesno_open", "yesno_close"]
Split = Literal["train", "dev", "test"]

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


class Columns(FrozenModel):
    """Columns of the Hub data set for ours. A dotted name is a path; a list of texts is joined by spaces."""

    question: str
    label: str
    context: str | None = None
    options: str | tuple[str, ...] | None = None  # one column with a list, or one column per option
    option_keys: str | None = None  # letters of the options, if the answer is one of them


class HubDataset(FrozenModel):
    """A data set of the Hub, and how its columns and splits map to ours."""

    id: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str = "main"
    config: str | None = None
    columns: Columns
    answer: Literal["index", "number", "key", "truth"]
    falsehoods: tuple[str, ...] = ()  # further words for False
    splits: dict[str, tuple[Split, ...]]


class BenchmarkSource(FrozenModel):
    """Where a benchmark comes from."""

    site: str
    paper: str
    reference: str  # its folder in the paper's repository
    hub: HubDataset | None
    remark: str | None = None


class Benchmark(FrozenModel):
    """One test set with its training set."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
    title: str
    about: str
    category: Category
    format_name: str = Field(alias="format")  # a shipped task format
    options: int = Field(ge=2)  # per question; 2 for yes/no
    rows: dict[Split, int] = Field(min_length=3)  # the paper's number per split
    out_of_distribution: tuple[str, ...]  # other test sets for a model trained on this one
    license: str
    source: BenchmarkSource

    @property
    def head(self) -> Head:
        """The classification head that an encoder needs."""
        return "multiple_choice" if self.category.startswith("mcqa") else "sequence_classification"


@cache
def load_registry() -> dict[str, Benchmark]:
    """All benchmarks by name, in the registry's order."""
    text = shipped("data", "benchmarks.yaml").read_text("utf-8")
    entries = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {name: Benchmark.model_validate({"name": name, **entry}) for name, entry in entries.items()}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name; UnknownBenchmark, with similar names, if there is none."""
    registry = load_registry()
    if name in registry:
        return registry[name]
    hint = did_you_mean(name.replace("-", "_"), registry)
    raise UnknownBenchmark(f"unknown benchmark {name!r}{hint}: `datacreate benchmarks list` shows all ten")
