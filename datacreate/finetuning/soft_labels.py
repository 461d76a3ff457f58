"""A verifier's probabilities in the place of one right answer (Hinton et al., 2015).

A row that the verifier is torn over pulls the head less than one it is sure of. A row without a
verdict keeps its label, which is the whole probability on one answer: the loss is then the usual one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datacreate.finetuning.task import Question, Task
from datacreate.formats.task_format import TaskFormat, answer_text

Verdict = tuple[float, ...]
"""A probability for each option of a row, or for each label of its format, in their order."""

MOST_OFF = 0.01
"""Probabilities whose sum is further from 1 were not meant as such."""


def in_head_order(verdict: Verdict, format: TaskFormat, task: Task) -> Verdict | None:
    """A verdict on a row of `format` in the order of the head's outputs, its sum exactly 1.

    Options are in the row's own order, which is the head's; labels are found by their text. None if
    it is no verdict on such a row: of another length, or no probabilities.
    """
    of_labels = task.head == "sequence_classification"
    names = [answer_text(label) for label in format.labels or ()] if of_labels else list(task.names)
    # `not (p >= 0)` is true of NaN as well.
    if len(verdict) != len(names) or any(not (p >= 0) for p in verdict):
        return None
    total = math.fsum(verdict)
    if not abs(total - 1) <= MOST_OFF or set(names) != set(task.names):
        return None
    told = dict(zip(names, verdict, strict=True))
    return tuple(told[name] / total for name in task.names)


def targets(questions: Sequence[Question], task: Task) -> list[list[float]]:
    """What the head is to say of each question, of shape (rows, classes): its verdict, else its label."""
    return [
        list(question.verdict or (float(place == (question.answer or 0)) for place in range(task.classes)))
        for question in questions
    ]


def collated(collate: Any) -> Callable[[Sequence[Mapping[str, Any]]], Any]:
    """A collator whose `labels` are of shape (rows, classes) where the rows have probabilities."""

    def call(rows: Sequence[Mapping[str, Any]]) -> Any:
        import torch

        # Kept from the collator: that of multiple choice makes integers of them.
        labels = torch.tensor([row["label"] for row in rows])
        batch = collate([{**row, "label": 0} for row in rows])
        batch["labels"] = labels
        return batch

    return call


def judged_by(model: Any, wanted: Any) -> Callable[..., Any]:
    """The model, called without labels, with the loss against probabilities of shape (rows, classes)."""
    from torch.nn.functional import cross_entropy

    def call(**inputs: Any) -> Any:
        outputs = model(**inputs)
        outputs["loss"] = cross_entropy(outputs["logits"].float(), wanted)
        return outputs

    return call
