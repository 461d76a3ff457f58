"""The records of a report. CSV and JSON hold them as they are.

Accuracies are shares in [0, 1]. Scores are chance-corrected: 0 is chance, 1 is perfect, negative is worse
than chance. Tables and plots show both times 100. All intervals are 95 %. Texts (labels, names, samples) are
untrusted and unescaped: each output escapes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from datacreate.checkpoints import UNSEEN
from datacreate.finetuning.records import Selection
from datacreate.formats.example import Json

Distribution = Literal["in", "out", "untrained"]
"""Tested on the benchmark that the model was trained for, on another, or not trained at all."""


@dataclass(frozen=True, kw_only=True)
class ResultCell:
    """All models of one condition on one test set: a line of results.csv.

    Means are taken over the seeds of a training set, then over the training sets of a formatting example,
    then over formatting examples.
    """

    trained_for: str  # benchmark; "own rows" if the training rows were for none; "-" if not trained
    test: str  # benchmark
    split: str
    test_digest: str  # SHA-256 of the test rows
    test_rows: int
    classes: int  # labels, or options of a question: chance is 1 / classes
    condition: str
    count: int | None = None  # training rows, selection rows included; None if not trained
    full: bool  # whether that is all rows of the source, not a sample
    models: int = 0  # 0 for the constant prediction, which needs no model
    examples: int = 0  # distinct formatting examples; 0 for conditions without one
    sets: int = 0  # distinct sets of training rows
    seeds: int = 0  # distinct training seeds
    score: float  # chance-corrected
    score_low: float
    score_high: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    sd_seeds: float | None = None  # of the score, between seeds of one training set; None below two seeds
    sd_examples: float | None = None  # of the score, between the means of examples; None below two examples
    degenerate: int = 0  # models that predict one class for at least 95 % of the rows
    not_above_chance: int = 0  # models whose 95 % interval reaches down to chance
    unanswered: int = 0  # test rows that could not be encoded and count as wrong, in the worst model
    truncated: int = 0  # test rows longer than the encoder's input, in the worst model
    paper_accuracy: float | None = None
    sources: tuple[str, ...] = ()  # folders of the evaluations

    @property
    def label(self) -> str:
        """The condition, with its number of training rows where it is a sample."""
        is_sample = self.count is not None and not self.full
        return f"{self.condition}, {self.count:,} sampled" if is_sample else self.condition


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two conditions on the same test rows (`finetuning.statistics.difference`): a line of comparisons.csv."""

    trained_for: str
    test: str
    split: str
    first: str  # label of the cell
    first_count: int | None
    second: str
    second_count: int | None
    difference: float  # chance-corrected score of the first less that of the second
    low: float
    high: float
    covers: str  # what the interval and p include: "examples, seeds, rows" or less
    mde: float  # minimum detectable effect: the true difference that is detected with 80 % power
    p: float
    p_holm: float  # corrected for all comparisons of the table
    significant: bool  # p_holm < 0.05


@dataclass(frozen=True)
class ResultTable:
    """Cells that may be compared: one encoder, recipe, model selection and generator."""

    distribution: Distribution
    encoder: str
    encoder_sha256: str
    recipe: str  # of the training
    selection: Selection
    generator: str | None  # the model that wrote the created training rows
    cells: tuple[ResultCell, ...]  # test set by test set
    comparisons: tuple[Comparison, ...]  # smallest p first


@dataclass(frozen=True)
class CreatedSet:
    """One creation run."""

    path: str
    examples: tuple[Mapping[str, Json], ...]  # the formatting examples
    summary: Mapping[str, Any]  # as in summary.json
    metrics: Mapping[str, Any] | None  # shortcuts and diversity, see `dataset_metrics`; None without examples
    samples: tuple[Mapping[str, Json], ...]  # a few accepted examples, spread evenly over the run


@dataclass(frozen=True)
class Skipped:
    """A folder that could not be used."""

    path: str
    reason: str


def checkpoint_name(name: str, sha256: str) -> str:
    """The name with the beginning of its hash, where the weights are known."""
    return name if sha256.startswith(UNSEEN) else f"{name} ({sha256[:8]})"


@dataclass(frozen=True)
class Report:
    """Everything that a report shows."""

    version: str  # of datacreate
    paths: tuple[str, ...]  # folders that were searched
    evaluations: int
    tables: tuple[ResultTable, ...]  # in distribution first
    created: tuple[CreatedSet, ...]
    skipped: tuple[Skipped, ...]
    paper_citation: str
