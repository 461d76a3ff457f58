"""What is kept of a training and of an evaluation: the seam between measuring and reporting.

OUT/                              one `datacreate train`
  training.json                   a Training: what was trained on what, how, and whether it is finished
  seed-1/                         one model of it
    config.json, model.safetensors, tokenizer.json, ...
    model.json                    a Model: its seed, chosen learning rate and step, selection score
    evaluations/csqa-test/
      evaluation.json             an Evaluation
      predictions.jsonl           a Prediction a row of the test set, in its order
  seed-2/ ...
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from datacreate.formats.task_format import Head

Selection = Literal["held-out", "human", "none"]
"""Which rows chose the best model: a slice of the training rows, the human dev split, or none did."""

SOFT_LABELS = " (soft labels)"
"""Ends the name of an arm that learned a verifier's probabilities: the rows are those of the hard arm."""

EVALUATION = "evaluation.json"
PREDICTIONS = "predictions.jsonl"


class Record(BaseModel):
    """A frozen document; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Arm(Record):
    """What a model learned from. Two models of one arm differ in their training seed alone."""

    name: str  # human, human+tree, tree, tree (soft labels), ...; constant and zero-shot are not trained
    benchmark: str | None  # the task that the rows are for, by its name in the registry
    count: int  # rows in all, those held out for selection included
    full: bool  # whether that is all there is in the sources, and not a sample of --count
    generator: str | None = None  # the model that wrote created rows
    example: str | None = None  # id of the formatting example: created sets of two examples are two sets
    digest: str  # SHA-256 of the rows: the created set itself


class Scores(Record):
    """The figures of one model on one test set; all shares are in [0, 1].

    Intervals are 95 %: Wilson's for accuracy, the percentile bootstrap's over rows for the rest.
    """

    rows: int
    classes: int  # labels of the set, or options of a question
    accuracy: float  # as in the paper
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float | None  # the mean of the recalls of the labels; None for multiple choice
    macro_f1: float
    matthews: float | None  # Matthews' coefficient; None for multiple choice
    matthews_interval: tuple[float, float] | None
    constant: float  # the accuracy of the best constant answer: label, or place of an option
    primary: float  # balanced accuracy (labels) or accuracy (options), centred: 0 is chance, 1 is perfect
    primary_interval: tuple[float, float]
    collapsed: str | None  # why the model is taken to have learned nothing; None if it has
    predicted: dict[str, int]  # label, or place of the option (0 the first), -> rows
    unanswered: int = 0  # rows that could not be encoded: counted as wrong
    truncated: int = 0  # rows longer than the encoder takes, answered from what fits


class Evaluation(Record):
    """One model on one split of one benchmark."""

    benchmark: str
    split: str
    head: Head
    digest: str  # SHA-256 of the test rows: evaluations of other rows are not compared
    condition: Arm
    encoder: str  # for zero-shot, the generator; for constant, "-"
    encoder_sha256: str
    settings: str  # "datacreate" or "paper", with what was changed: "datacreate, lora"
    selection: Selection
    seed: int  # of the training
    scores: Scores


class Prediction(Record):
    """What a model said of one row. `label` and `predicted` are the answers' texts."""

    row: int  # from 0, in the order of the split
    label: str
    predicted: str | None  # None: the row could not be encoded
    correct: bool
    scores: list[float] = Field(default_factory=list)  # a probability per option or label, in their order


def read_evaluation(folder: Path) -> Evaluation:
    """The evaluation kept in a folder; ValueError or OSError if it is not a whole one."""
    return Evaluation.model_validate_json((folder / EVALUATION).read_text(encoding="utf-8"))


def read_predictions(folder: Path) -> list[Prediction]:
    """The predictions beside it, a row each."""
    text = (folder / PREDICTIONS).read_text(encoding="utf-8")
    return [Prediction(**json.loads(line)) for line in text.split("\n") if line]  # U+2028 ends no line
