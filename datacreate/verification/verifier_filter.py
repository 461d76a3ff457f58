"""The filter of `datacreate filter --verifier`: rejects rows for which a model finds another label more probable."""

from __future__ import annotations

from collections.abc import Sequence

from datacreate.engines.model_client import ModelClient
from datacreate.engines.self_test import scoring_test
from datacreate.filters.filter import Filter, first_reject
from datacreate.formats.candidate import Candidate, RejectReason
from datacreate.formats.task_format import TaskFormat
from datacreate.messages import Notify, no_notify
from datacreate.prompts.label_scoring import (
    LabelQuestion,
    check_letters,
    check_scorable,
    label_question,
    scoring_system_message,
)
from datacreate.verification.label_noise import MIN_ROWS, calibrated, label_means
from datacreate.verification.scoring import (
    NO_SCORES,
    Probabilities,
    disagreement,
    final_label,
    round_probabilities,
    score_labels,
)


class VerifierFilter(Filter):
    """Rejects rows whose label is not the most probable one for a model, which sees the row without the label.

    Scoring takes long: rows that one of the `other_filters` rejects are not scored.
    """

    name = "verifier"
    reason = RejectReason.REJECTED_BY_VERIFIER
    option_names = ("verifier",)

    def __init__(
        self,
        client: ModelClient,
        model: str,
        task_format: TaskFormat,
        other_filters: Sequence[Filter],
        instruction: str | None = None,
    ) -> None:
        """`instruction` is the one that the rows were written with. Raises UsageError if labels are free text."""
        check_scorable(task_format, f"--verifier {model}")
        self._client, self._model, self._format = client, model, task_format
        self._other_filters = other_filters
        self._instruction = instruction
        self._scored_by_letter = False
        self._means: Sequence[float | None] | None = None
        self._sample: dict[str, Probabilities | None] = {}  # by the id of an example
        self._scores: dict[str, Probabilities | None] = {}  # of the sample and this batch

    def prepare(self, notify: Notify = no_notify) -> None:
        self._client.start([scoring_test(scoring_system_message(self._instruction))])
        self._scored_by_letter = self._client.needs_letters(self._format.labels or ())
        if self._scored_by_letter:
            check_letters(self._format, "--verifier", self._model, "use another model")

    def calibrate(self, sample: Sequence[Candidate]) -> None:
        """Measure the model's bias to fixed labels on a sample of the rows, as a run does on its first ones."""
        labels = self._format.labels
        if labels is None:
            return
        self._sample = self._score(sample)
        rows = [
            (self._format.answers.right_index(candidate.example.values) or 0, scores)
            for candidate in sample
            if (scores := self._sample.get(candidate.example.id))
        ]
        self._means = label_means(rows, len(labels)) if len(rows) >= MIN_ROWS else None

    def prefetch(self, candidates: Sequence[Candidate]) -> None:
        new = [candidate for candidate in candidates if candidate.example.id not in self._sample]
        self._scores = self._sample | self._score(new)

    def _score(self, candidates: Sequence[Candidate]) -> dict[str, Probabilities | None]:
        """The probabilities of these examples by their ids, without those that are not scored."""
        questions = {}
        for candidate in candidates:
            if not first_reject(self._other_filters, candidate) and (question := self._question(candidate)):
                questions[candidate.example.id] = question
        seeded = [(question, question.shown) for question in questions.values()]
        scores_of_examples = score_labels(self._client, seeded, lambda _: None)
        return {
            example_id: round_probabilities(scores) if scores else None
            for example_id, scores in zip(questions, scores_of_examples, strict=True)
        }

    def _question(self, candidate: Candidate) -> LabelQuestion | None:
        values, by_letter = candidate.example.values, self._scored_by_letter
        return label_question(self._format, values, scored_by_letter=by_letter, instruction=self._instruction)

    def find_problem(self, candidate: Candidate) -> str | None:
        scores = self._scores.get(candidate.example.id)
        if scores is None:
            return NO_SCORES
        if self._means is not None:
            scores = calibrated(scores, self._means)
        values = candidate.example.values
        assigned = self._format.answers.right_index(values) or 0
        if final_label("drop", assigned, scores) is not None:
            return None
        options = [str(answer) for answer in self._format.answers.choices(values)]
        return disagreement(options, assigned, scores)
