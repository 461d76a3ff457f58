"""The types of a report: what is computed once and then written as Markdown, CSV, JSON and a page.

All figures are shares: accuracies in [0, 1], primary figures centred (0 is chance, 1 is perfect, and
worse than chance is negative). Writers show them times 100. All intervals are 95 %. Every text (labels,
names, samples) is as it was found, whatever markup it holds: escaping is the writers' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from datacreate.finetuning.records import Selection
from datacreate.formats.example import Json
from datacreate.formats.task_format import Head

Interval = tuple[float, float]
"""Low and high end, at 95 %."""

RequestSlot = Literal["in", "out"]
"""Trained for the benchmark that is tested (in distribution), or for another (out of distribution)."""

IntervalMethod = Literal["one model", "bootstrap"]
"""Wilson for the accuracy of one model and its own bootstrap over rows for the primary figure; or, for
several models, the bootstrap over formatting example, training seed and row."""


@dataclass(frozen=True)
class Spread:
    """Standard deviations (n - 1) of the primary figure, kept apart by where they come from."""

    seeds: float | None
    """Between training seeds of one set of rows, pooled over the sets; None if no set has two seeds."""

    sets: float | None
    """Between the means of different sets of rows; None if there is only one set."""


@dataclass(frozen=True)
class Cell:
    """The models of one arm, of one count, on one test set."""

    primary: float
    """Balanced accuracy (fixed labels) or accuracy (options), centred on chance; the mean of the models:
    over the seeds of a set, then over the sets of a formatting example, then over the examples."""

    primary_interval: Interval
    accuracy: float
    """Plain accuracy as in the paper; the mean, taken likewise."""

    accuracy_interval: Interval
    method: IntervalMethod
    count: int | None
    """Rows trained on, those held out for selection included; None for what is not trained."""

    full: bool
    """Whether that is all there is in the sources, and not a sample."""

    models: int
    """Models behind the cell; 0 for the constant prediction, which follows from the test set alone."""

    examples: int
    """Distinct formatting examples behind it; 0 for arms without (human, zero-shot, constant)."""

    sets: int
    """Distinct sets of training rows; 0 for what is not trained."""

    seeds: int
    """Distinct training seeds; 0 for what is not trained."""

    spread: Spread
    collapsed: int
    """How many of the models have collapsed: they answer as if they had learned nothing."""

    collapse_reasons: tuple[str, ...]
    """Why, each reason once."""

    unanswered: int
    """Rows that the worst of the models could not encode; they count as wrong."""

    truncated: int
    """Rows that were longer than the encoder takes, of the model that had most."""

    sources: tuple[str, ...]
    """Folders of the evaluations."""


@dataclass(frozen=True)
class PaperFigure:
    """An accuracy printed in the paper."""

    accuracy: float  # share
    train_rows: int | None  # in the training set of the paper's arm, where it says so
    printed_swapped: bool = False
    """The row seems to be printed under the wrong heading: it gets a footnote."""


@dataclass(frozen=True)
class Column:
    """An arm. `condition` is its name as recorded (tree, human, ...), `title` what stands above the column."""

    condition: str
    title: str


@dataclass(frozen=True)
class Row:
    """One test set, and what models trained for `train` with `count` rows make of it."""

    train: str
    """The benchmark trained for; the same as `test` in distribution. "own rows" where it was none."""

    test: str
    split: str
    """Of the test benchmark: usually "test"."""

    digest: str | None
    """SHA-256 of the test rows; None if nothing was evaluated."""

    rows: int | None
    """Test rows."""

    head: Head | None
    classes: int | None
    """Labels, or options of a question: chance is one in so many."""

    smallest_difference: float | None
    """The smallest paired difference of accuracies that so many rows show at 80 % power; a share."""

    count: int | None
    """Training rows of the arms in this row. Cells whose own count differs stand here to be looked at
    beside the others (all of the human rows) and say so. None if no arm has a size of its own."""

    cells: tuple[Cell | None, ...]
    """One per column of the table; None where there are no runs."""

    paper: tuple[PaperFigure | None, ...]
    """One per column of the table: the paper's figure for that arm, in the first row of its pair."""


@dataclass(frozen=True)
class Difference:
    """Two arms of a row compared by McNemar's exact test on the majority votes of their models."""

    row: int  # index into the table's rows
    first: int  # index into the table's columns
    second: int
    difference: float
    """Accuracy of the first arm's votes less that of the second's; a share."""

    first_only: int  # rows that only the first got right
    second_only: int
    p: float
    p_holm: float
    """Corrected for all comparisons of the table."""

    significant: bool  # at 5 %, corrected


@dataclass(frozen=True)
class Table:
    """Cells that may be looked at side by side: one encoder, settings, selection and generator."""

    place: RequestSlot
    title: str
    """Says what sets this table apart: "In distribution: all-minilm-l6-v2, datacreate settings, ..."."""

    encoder: str
    encoder_sha256: str
    settings: str
    selection: Selection
    generator: str | None
    """The model that wrote the created rows; None if no arm of the table has any."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    """Row by row, the smallest p first within a row."""

    missing: tuple[tuple[str, str], ...] = ()
    """(train, test) that the paper has and no run is there for."""


@dataclass(frozen=True)
class CurvePoint:
    """An arm with so many training rows."""

    count: int
    primary: float
    low: float
    high: float
    accuracy: float
    models: int
    collapsed: int


@dataclass(frozen=True)
class Curve:
    """Primary figure against number of training rows: one arm, in distribution."""

    condition: str
    benchmark: str
    split: str
    encoder: str
    settings: str
    selection: Selection
    generator: str | None
    points: tuple[CurvePoint, ...]  # by count, each count once


@dataclass(frozen=True)
class Distance:
    """How far created questions are from the formatting example: 0 is the same, larger is further."""

    measure: str
    """In words: "cosine distance, all-minilm-l6-v2", or "word overlap (1 - Jaccard)" without an encoder."""

    compared: int
    """Examples that were compared: all, or a sample of a large set."""

    mean: float
    median: float
    edges: tuple[float, ...]
    """Of the bins, one more than there are `bins`."""

    bins: tuple[int, ...]
    by_depth: Mapping[int, float]
    """Depth below the formatting example -> mean distance."""


@dataclass(frozen=True)
class TreeNode:
    """An accepted example in the tree of who was made from whom."""

    id: str
    parent: str | None  # id of another node; None for the formatting example alone
    depth: int  # 0 for the formatting example
    label: str | None  # its answer, where the format has one
    text: str  # its question, shortened
    children: int  # accepted examples made from it, those not shown included


@dataclass(frozen=True)
class CreatedSet:
    """One creation run: what was made, from what, and what was thrown away."""

    path: str
    strategy: str
    model: str
    method: str
    seed: int
    example_id: str
    example: Mapping[str, Json]
    """The formatting example."""

    requested: int
    accepted: int
    finished: bool
    requests: int
    generated_tokens: int
    examples_per_second: float
    labels: Mapping[str, int]
    """Label -> examples; empty where the answers are not of a fixed set."""

    depths: Mapping[int, int]
    """Depth below the formatting example -> examples."""

    rejected: Mapping[str, int]
    """Reason -> items, the most frequent first."""

    distance: Distance | None
    """None if nothing was accepted or the examples hold no text."""

    measures: Mapping[str, Json] | None
    """Shortcuts and diversity beside the human train set's, as `appraisal` has them; `runs.measures` reads
    them. None if nothing was accepted."""

    samples: tuple[Mapping[str, Json], ...]
    """A few of the examples, drawn evenly over the run."""

    tree: tuple[TreeNode, ...]
    """The formatting example first, then accepted examples in order; every parent is there before its
    children. At most some hundreds: `accepted` says how many there are in all."""


@dataclass(frozen=True)
class Skipped:
    """Something that was found and could not be used, or not wholly."""

    path: str
    reason: str


@dataclass(frozen=True)
class Report:
    """Everything that a report shows."""

    version: str  # of datacreate
    paths: tuple[str, ...]  # where was looked
    evaluations: int  # that were used
    tables: tuple[Table, ...]  # in distribution first
    curves: tuple[Curve, ...]
    created: tuple[CreatedSet, ...]
    skipped: tuple[Skipped, ...]
    citation: str  # of the paper whose figures stand beside ours
    swapped_note: str  # the footnote of figures that are `printed_swapped`
