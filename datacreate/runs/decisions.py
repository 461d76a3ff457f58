"""Decisions of reviewers about the rows of a run: their records in the log, and their statistics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from datacreate.formats.example import FieldPath, Json, canonical_json, value_at
from datacreate.intervals import estimated_share

Verdict = Literal["accept", "reject", "edit"]

_KEYS = {"request_number": "request", "generator": "model"}  # of `Decision`: a field -> its key in the log


@dataclass(frozen=True)
class Decision:
    """A decision of a reviewer about a row; the last one counts. Accepting a rejected row restores it."""

    verdict: Verdict
    row: int  # from 1, in the order in which rows were accepted; rejected ones keep their number
    request_number: int  # of the request that wrote the row
    depth: int  # of the row
    generator: int  # its index
    attributes: Mapping[str, str]  # of the row: dimension -> value
    removed: dict[str, Json] | None  # what leaves the training set
    added: dict[str, Json] | None  # what is in its place
    reason: str
    reviewer: str  # user@host
    time: float  # seconds since the epoch, to the millisecond

    @property
    def changes(self) -> list[tuple[dict[str, Json], int]]:
        """The row that leaves the training set, with -1, and the one that enters it, with 1; an edit has both."""
        return [(values, sign) for values, sign in ((self.removed, -1), (self.added, 1)) if values]

    def line(self) -> str:
        values = {_KEYS.get(name, name): value for name, value in vars(self).items()}
        return json.dumps({"decision": self.verdict, **values}, ensure_ascii=False)

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Decision:
        """The decision of a parsed line. Raises KeyError or TypeError if the line has none."""
        renamed = {name: values.pop(key) for name, key in _KEYS.items()}
        return cls(**values, **renamed)


@dataclass(frozen=True)
class Sample:
    """Rows that were drawn at random, to estimate how many labels are right."""

    rows: tuple[int, ...]  # their numbers, in the order in which they were drawn
    of: int  # the rows of the training set at that time
    seed: int
    reviewer: str
    time: float

    def line(self) -> str:
        return json.dumps({"sample": self.rows, **vars(self)}, ensure_ascii=False)


class ReviewStats:
    """Counts the decisions; each row counts with its last one. `answer` is the field with the answer."""

    def __init__(self, answer: FieldPath | None) -> None:
        self._answer = answer
        self._decisions = 0
        self.last: dict[int, Decision] = {}  # by row
        self.sample: Sample | None = None  # the last one
        # The answers of rows that were changed since the sample was drawn: when it was drawn, and after the changes.
        self._drawn_answers: dict[int, str] = {}
        self._current_answers: dict[int, str] = {}

    def begin_sample(self, sample: Sample) -> None:
        self.sample = sample
        self._drawn_answers.clear()
        self._current_answers.clear()

    def add_decision(self, decision: Decision) -> None:
        if decision.removed:
            answer = canonical_json(value_at(decision.removed, self._answer))
            self._drawn_answers.setdefault(decision.row, answer)
        if decision.added:
            self._current_answers[decision.row] = canonical_json(value_at(decision.added, self._answer))
        self._decisions += 1
        self.last[decision.row] = decision

    def summary(self) -> dict[str, Any] | None:
        """The counts for summary.json; None without a review."""
        if not self._decisions and not self.sample:
            return None
        verdicts = Counter(decision.verdict for decision in self.last.values())
        reasons = Counter(decision.reason for decision in self.last.values() if decision.verdict == "reject")
        return {
            "decisions": self._decisions,
            "reviewed": len(self.last),
            "accepted": verdicts["accept"],
            "edited": verdicts["edit"],
            "rejected": verdicts["reject"],
            "reasons": dict(reasons.most_common()),
            "sample": self._sample_summary(self.sample) if self.sample else None,
        }

    def _sample_summary(self, sample: Sample) -> dict[str, Any]:
        decided = [row for row in sample.rows if row in self.last]
        # Reviewers kept the answer that the row had when the sample was drawn.
        kept = [row for row in decided if self._drawn_answers.get(row) == self._current_answers.get(row)]
        right = sum(self.last[row].verdict != "reject" for row in kept)
        share = estimated_share(right, len(decided)) if decided else None
        return {
            "rows": len(sample.rows),
            "of": sample.of,
            "seed": sample.seed,
            "decided": len(decided),
            "right": right,
            "accuracy": round(share.value, 4) if share else None,
            "interval": [round(share.low, 4), round(share.high, 4)] if share else None,
        }


def review_fields(review: Mapping[str, Any] | None) -> dict[str, str]:
    """The review in summary.json as texts for people: the decisions, and the labels right in a random sample."""
    if review is None:
        return {}
    verdicts = ", ".join(f"{review[verdict]} {verdict}" for verdict in ("accepted", "edited", "rejected"))
    texts = {"reviewed": f"{review['reviewed']} rows: {verdicts}"}
    if (sample := review["sample"]) and sample["decided"]:
        low, high = sample["interval"]
        texts["sample"] = (
            f"{sample['right']} of {sample['decided']} labels right ({sample['accuracy']:.0%}, 95 % interval "
            f"{low:.0%} to {high:.0%}); {sample['rows']} rows drawn from {sample['of']}"
        )
    return texts
