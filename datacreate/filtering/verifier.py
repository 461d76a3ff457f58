"""A model that is asked for each row's answer without seeing it: what it rejects is dropped."""

from __future__ import annotations

from collections.abc import Sequence

from datacreate.engines.base import Engine
from datacreate.engines.self_test import scores_are_real
from datacreate.errors import UsageError
from datacreate.filters.base import Filter, Match, Say, silently
from datacreate.formats.roles import answer_text
from datacreate.formats.task_format import TaskFormat
from datacreate.formats.validate import Candidate, Reason
from datacreate.prompts.label_scoring import (
    MAX_LETTERED,
    assigned_label,
    can_score_labels,
    label_question,
    possible_answers,
)
from datacreate.verification.scoring import (
    Probabilities,
    default_threshold,
    final_label,
    round_probabilities,
    score_labels,
)


class Verifier:
    """The last filter: it costs the most, and is not asked about rows that a `cheaper` one rejects."""

    reason = Reason.DISAGREES

    def __init__(
        self, engine: Engine, format: TaskFormat, threshold: float | None, cheaper: Sequence[Filter]
    ) -> None:
        """`threshold` is the least probability of a right answer. UsageError if answers are free text."""
        if not can_score_labels(format):
            raise UsageError(
                f"--verifier: the answers of the format {format.name} are no closed set that can be scored; "
                "say what they may be with --labels FIELD=a,b,c, or leave --verifier out"
            )
        self.threshold = threshold or default_threshold(len(format.labels or ()))
        self._engine = engine
        self._format = format
        self._cheaper = cheaper
        self._lettered = False
        self._scores: dict[int, Probabilities | None] = {}  # by the identity of a candidate of this batch

    def prepare(self, say: Say = silently) -> None:
        self._engine.start([scores_are_real()])
        labels = [answer_text(label) for label in self._format.labels or ()]
        self._lettered = bool(labels) and not self._engine.tells_apart(labels)
        if not can_score_labels(self._format, lettered=self._lettered):
            raise UsageError(
                f"--verifier: it cannot tell the {len(labels)} labels apart by their first tokens, nor by "
                f"letters, of which there are {MAX_LETTERED}; take another one"
            )

    def ahead(self, candidates: Sequence[Candidate]) -> None:
        self._scores.clear()
        asked = [
            (one, question)
            for one in candidates
            if not any(each.match(one) for each in self._cheaper)
            and (question := label_question(self._format, one.example.values, lettered=self._lettered))
        ]
        scores = score_labels(
            self._engine, [(question, question.shown) for _, question in asked], lambda _: None
        )
        for (one, _), found in zip(asked, scores, strict=True):
            self._scores[id(one)] = round_probabilities(found) if found else None

    def match(self, candidate: Candidate) -> Match | None:
        scores = self._scores.get(id(candidate))
        if scores is None:
            return Match("the verifier gave no answer")
        values = candidate.example.values
        assigned = assigned_label(self._format, values)
        if final_label("drop", self.threshold, assigned, scores) >= 0:
            return None
        options = [answer_text(choice) for choice in possible_answers(self._format, values)]
        told = ", ".join(f"{option} {share:.2f}" for option, share in zip(options, scores, strict=True))
        return Match(f"claimed {options[assigned]}; the verifier: {told}")

    def add(self, candidate: Candidate) -> None:
        """What it says of one row depends on no other."""
