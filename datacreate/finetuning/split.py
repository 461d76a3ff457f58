"""Which rows are trained on and which choose the best model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from datacreate.finetuning.task import Question, Task

HELD_OUT = 10
"""One row in so many is held out."""

FEWEST = 40
"""With fewer rows than this nothing is held out: four rows choose nothing."""


def hold_out(
    questions: Sequence[Question], families: Sequence[str], task: Task, seed: int = 0
) -> tuple[list[int], list[int]]:
    """The rows to train on and those held out, as indices; the latter empty for a small set.

    Labels keep their shares, and rows of one family stay on one side, since a child resembles its
    siblings. A family of more than half a slice is trained on; where too few others are left, rows
    go one by one.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    everything = list(range(len(questions)))
    if len(questions) < FEWEST:
        return everything, []
    sizes = Counter(families)
    small = [i for i in everything if 2 * HELD_OUT * sizes[families[i]] <= len(everything)]
    groups = [families[i] for i in small]
    slices = round(HELD_OUT * len(small) / len(everything))
    if slices < 2 or len(set(groups)) < 2 * slices:
        small, slices = everything, HELD_OUT
        groups = [str(i) for i in everything]
    # Where an option stands says nothing: multiple choice has nothing to keep the shares of.
    labels = [questions[i].answer or 0 if task.head == "sequence_classification" else 0 for i in small]
    if min(Counter(labels).values()) < slices:
        labels = [0] * len(small)
    if len(set(groups)) == len(groups):  # the same, and quick
        folds = StratifiedKFold(slices, shuffle=True, random_state=seed).split(small, labels)
    else:
        folds = StratifiedGroupKFold(slices, shuffle=True, random_state=seed).split(small, labels, groups)
    chosen = {small[place] for place in next(folds)[1].tolist()}
    return [i for i in everything if i not in chosen], sorted(chosen)
