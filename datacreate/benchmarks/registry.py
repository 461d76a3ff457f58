"""The registry: what `data/benchmarks.yaml` says of each test set, typed."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from datacreate.errors import BenchmarkError
from datacreate.paths import shipped

Category = Literal["mcqa_2", "mcqa_5", "yesno_open", "yesno_close"]
Head = Literal["multiple_choice", "sequence_classification"]
Split = Literal["train", "dev", "test"]

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


class _Strict(BaseModel):
    """Frozen, and an unknown key is an error: a misspelt one must not be ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Columns(_Strict):
    """Our columns from the Hub's. A dotted name leads into a structure; a list of texts is joined."""

    question: str
    label: str
    context: str | None = None
    options: str | tuple[str, ...] | None = None  # one column that holds a list, or a column each
    option_keys: str | None = None  # the letters of the options, where the answer is one of them


class HubSource(_Strict):
    """A repository of the Hub, and how its columns and splits become ours."""

    id: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str = "main"
    config: str | None = None
    columns: Columns
    answer: Literal["index", "number", "key", "truth"]
    truths: tuple[str, ...] = ("true", "yes", "1")
    falsehoods: tuple[str, ...] = ("false", "no", "0")
    splits: dict[str, tuple[Split, ...]]


class Source(_Strict):
    """Where a benchmark comes from."""

    site: str
    paper: str
    reference: str  # its folder in the layout of the reference's repository
    hub: HubSource | None
    remark: str | None = None


class Benchmark(_Strict):
    """One test set with its training set. `options` is the number of options; 2 for yes/no."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
    title: str
    about: str
    category: Category
    format_name: str = Field(alias="format")  # a shipped schema
    options: int = Field(ge=2)
    rows: dict[Split, int]  # the paper's counts
    out_of_distribution: tuple[str, ...]  # names of the other test sets for a model trained on this one
    license: str
    source: Source

    @property
    def labels(self) -> tuple[bool, ...] | None:
        """The fixed labels of a yes/no set; None where every row has options of its own."""
        return None if self.head == "multiple_choice" else (True, False)

    @property
    def head(self) -> Head:
        """The head that an encoder needs."""
        return "multiple_choice" if self.category.startswith("mcqa") else "sequence_classification"

    @property
    def open_book(self) -> bool:
        """Whether each question comes with a passage that answers it."""
        return self.category == "yesno_open"

    @model_validator(mode="after")
    def _whole(self) -> Benchmark:
        if set(self.rows) != set(SPLITS):
            raise ValueError(f"rows: give {', '.join(SPLITS)}")
        return self


@cache
def load_registry(path: Path | None = None) -> dict[str, Benchmark]:
    """All benchmarks by name, in the registry's order; by default the shipped registry.

    Raises BenchmarkError naming the entry and the key when one is wrong.
    """
    path = path or shipped("data", "benchmarks.yaml")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    registry: dict[str, Benchmark] = {}
    for name, entry in yaml.load(path.read_text(encoding="utf-8"), Loader=loader).items():
        try:
            registry[name] = Benchmark.model_validate({"name": name, **entry})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the entry"
            raise BenchmarkError(f"{path}: {name}: {where}: {first['msg']}") from error
    for benchmark in registry.values():
        if unknown := [other for other in benchmark.out_of_distribution if other not in registry]:
            raise BenchmarkError(f"{path}: {benchmark.name}: out_of_distribution: no entry {unknown[0]!r}")
    return registry


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name; BenchmarkError with near names when there is none."""
    registry = load_registry()
    if name in registry:
        return registry[name]
    near = difflib.get_close_matches(name.lower().replace("-", "_"), registry, n=3, cutoff=0.5)
    near = near or [other for other in registry if other.startswith(name.lower().partition("_")[0])]
    meant = f" (did you mean {', '.join(near)}?)" if near else ""
    raise BenchmarkError(f"unknown benchmark {name!r}{meant}: `datacreate benchmarks list` shows all ten")
