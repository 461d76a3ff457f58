"""The rows of a review: what is known about each, decisions that a reviewer asks for, which rows are shown first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from datacreate.errors import UsageError
from datacreate.formats.example import Json, value_at
from datacreate.formats.task_format import TaskFormat
from datacreate.runs.decisions import Decision, Verdict
from datacreate.runs.log import Commit
from datacreate.verification.scoring import Probabilities

UNCERTAIN = 0.2
"""A row is uncertain if its answer leads by less than this probability."""

FLAGS = {
    "disagreement": "the verifier finds another answer more probable",
    "uncertain": f"the answer leads the next one by less than {UNCERTAIN:g}",
    "longest_option": "the right option is longer than all others",
}
"""The meaning of each flag."""


@dataclass
class ReviewRow:
    """A row of a run, and what is known about it."""

    number: int  # from 1, in the order in which rows were accepted
    commit: Commit  # that accepted it
    values: dict[str, Json]  # of a rejected row those that it had
    assigned: int | None = None  # index of the answer that the text was written for; None without one
    probabilities: Probabilities = ()  # the verifier's, of the possible answers; () if not known
    decision: Decision | None = None  # the last one
    in_set: bool = True  # whether it is in train.jsonl

    def margin(self, task_format: TaskFormat) -> float | None:
        """The probability of the row's answer minus that of the best other one; None if not known."""
        right = task_format.answers.right_index(self.values)
        if right is None or len(self.probabilities) < 2:
            return None
        others = (p for index, p in enumerate(self.probabilities) if index != right)
        return round(self.probabilities[right] - max(others), 4)

    def flags(self, task_format: TaskFormat) -> list[str]:
        """The names in `FLAGS` that the row has."""
        margin, flags = self.margin(task_format), list[str]()
        if margin is not None and margin < UNCERTAIN:
            flags.append("disagreement" if margin < 0 else "uncertain")
        right, options = task_format.answers.right_index(self.values), task_format.answers.choices(self.values)
        if task_format.options_vary and right is not None:
            lengths = [len(str(option).strip()) for option in options]
            if lengths.count(max(lengths)) == 1 and lengths[right] == max(lengths):
                flags.append("longest_option")
        return flags


@dataclass(frozen=True)
class Change:
    """A decision that a reviewer asks for."""

    row: ReviewRow
    verdict: Verdict
    reason: str = ""
    values: dict[str, Json] | None = None  # of an edited row

    @property
    def moves(self) -> bool:
        """Whether the row may enter or leave the set, or change its label."""
        return self.verdict != "accept" or not self.row.in_set


def select_rows(
    rows: Iterable[ReviewRow], task_format: TaskFormat, label: str | None = None, flag: str | None = None
) -> list[ReviewRow]:
    """The rows with a label and a flag (None: any), the most uncertain first; rows without probabilities at the end.

    Raises UsageError if the format has no such label.
    """
    labels = [str(label) for label in task_format.labels or ()]
    if label is not None and label not in labels:
        remedy = f"labels are {', '.join(labels)}" if labels else "the format has no fixed labels"
        raise UsageError(f"--label: unknown label {label!r}; {remedy}")
    rows = [row for row in rows if label is None or str(value_at(row.values, task_format.roles.answer)) == label]
    selected = [row for row in rows if flag is None or flag in row.flags(task_format)]
    return sorted(selected, key=lambda row: ((margin := row.margin(task_format)) is None, margin or 0.0, row.number))
