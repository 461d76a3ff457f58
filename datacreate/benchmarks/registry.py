"""Benchmarks: their entries in data/benchmarks.yaml, and rows with normalized text and one spelling of the label."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, Field, StrictBool, StringConstraints, ValidationError

from datacreate.errors import UnknownBenchmark
from datacreate.files import shipped
from datacreate.formats.example import Json
from datacreate.formats.task_format import Head
from datacreate.messages import did_you_mean
from datacreate.settings import FrozenModel, SettingsProblem

Category = Literal["mcqa_2", "mcqa_5", "yesno_open", "yesno_close"]
Split = Literal["train", "dev", "test"]

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


class Columns(FrozenModel):
    """The columns of the Hub data set that become ours. A dotted name is a path; lists of texts are joined."""

    question: str
    label: str
    context: str | None = None
    options: str | tuple[str, ...] | None = None  # one column with a list, or one column per option


class HubDataset(FrozenModel):
    """A data set of the Hub, and how its columns and splits map to ours."""

    id: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str = "main"
    config: str | None = None
    columns: Columns
    answers: dict[str, int]  # the label in lower case -> position of the right option (of True and False)
    splits: dict[str, tuple[Split, ...]]  # split of the Hub -> our splits in it


class BenchmarkSource(FrozenModel):
    """Where a benchmark comes from."""

    site: str
    paper: str
    reference: str  # its folder in the paper's repository
    hub: HubDataset | None
    remark: str | None = None  # how its splits differ from the Hub's; without a Hub data set, why there is none


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


YES_NO = {"true": True, "yes": True, "false": False, "no": False}
YES_NO_OPTIONS = ["True", "False"]

_LINE_BREAKS = re.compile("\r\n|[\r\x0b\x0c\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def clean(text: str) -> str:
    """The text in NFC with `\\n` as its only line break, without control characters and lone surrogates.

    C1 controls are decoded as Windows-1252: 0x92, for example, is an apostrophe.
    """
    return unicodedata.normalize("NFC", _CONTROLS.sub(_printable, _LINE_BREAKS.sub("\n", text)))


def _printable(match: re.Match[str]) -> str:
    character = match.group()
    if "\x80" <= character <= "\x9f":
        return character.encode("latin-1").decode("cp1252", "ignore") or " "
    return "\N{REPLACEMENT CHARACTER}" if character >= "\ud800" else " "


Text = Annotated[str, AfterValidator(clean)]


class BenchmarkRow(BaseModel, frozen=True):
    """A normalized row; `label` is a boolean in yes/no sets, otherwise the text of an option."""

    question: Annotated[Text, StringConstraints(pattern=r"\S")]
    context: Text | None
    options: tuple[Text, ...]
    label: Text | StrictBool

    @property
    def position(self) -> int | None:
        """The index of the right option, the first if it occurs twice; None if the label is none of the options."""
        return self.options.index(str(self.label)) if str(self.label) in self.options else None

    def line(self) -> str:
        """The row as a line of a split's file."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False) + "\n"


def parse_row(values: Json, benchmark: Benchmark) -> BenchmarkRow:
    """The row in a JSON object. ValueError, in words, if columns, options or label are wrong.

    Repeated options, and an answer that is not among the options, are accepted: published test sets have them.
    """
    if benchmark.head == "sequence_classification" and isinstance(values, dict):
        label = str(values.get("label"))
        values = {**values, "options": YES_NO_OPTIONS, "label": YES_NO.get(label.strip().lower(), label)}
    try:
        row = BenchmarkRow.model_validate(values)
    except ValidationError as error:
        problem = SettingsProblem.first(error)
        raise ValueError(f"{problem.path[0] if problem.path else 'the row'}: {problem.why}") from None
    if isinstance(row.label, str) and benchmark.head == "sequence_classification":
        raise ValueError(f"label {row.label[:40]!r} is neither True nor False")
    if benchmark.category == "yesno_open" and not (row.context or "").strip():
        raise ValueError("context is empty, and this set is open book")
    if benchmark.category == "yesno_close" and row.context is not None:
        raise ValueError("context is not null, and this set is closed book")
    if len(row.options) != benchmark.options:
        raise ValueError(f"{len(row.options)} options, and this set has {benchmark.options}")
    return row


class SplitStatistics(BaseModel, frozen=True):
    """Label shares and malformed rows of a split. Row numbers start at 1."""

    rows: int
    labels: dict[str, float]  # share of each label, or of each position of the right option (from 1)
    constant: float  # accuracy of the best constant prediction
    repeated_options: tuple[int, ...]  # rows in which two options are the same
    answer_not_an_option: tuple[int, ...]


def measure_split(rows: Sequence[BenchmarkRow]) -> SplitStatistics:
    numbered = list(enumerate(rows, 1))
    labels = Counter(
        str(row.label) if isinstance(row.label, bool) else str(row.position + 1)
        for row in rows
        if row.position is not None
    )
    total = max(1, len(rows))
    return SplitStatistics(
        rows=len(rows),
        labels={label: round(count / total, 4) for label, count in sorted(labels.items())},
        constant=round(max(labels.values(), default=0) / total, 4),
        repeated_options=tuple(n for n, row in numbered if len(set(row.options)) < len(row.options)),
        answer_not_an_option=tuple(n for n, row in numbered if row.position is None),
    )
