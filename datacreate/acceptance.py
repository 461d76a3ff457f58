"""Decides which examples are accepted: filters, verification, label quotas.

With fixed labels the first scored examples wait until the label-noise check has decided and the verifier is
calibrated; then `release` judges them, request by request. Waiting examples already count for the filters and can be
parents, even if they are dropped later: both depend only on the text, which verification does not change.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from datacreate.filters.filter import Filter, first_reject
from datacreate.formats.candidate import Candidate, CopyChecks, Reject, RejectReason
from datacreate.formats.example import Json, value_at
from datacreate.quotas import RunQuotas
from datacreate.runs.attributes import find_length_error
from datacreate.runs.decisions import Decision
from datacreate.runs.log import Commit
from datacreate.runs.summary import RunStats
from datacreate.selection.embeddings import PassedVectors
from datacreate.verification.scoring import NO_SCORES, Probabilities, Scored, disagreement, final_label


@dataclass(frozen=True)
class RequestOrigin:
    """The request that an example was written for."""

    request: int
    shown: Collection[str] = ()  # `exact_key` of the examples in its prompt: copies of them are rejected
    attributes: Mapping[str, str] = field(default_factory=dict)  # dimension -> value


class Acceptance:
    """Accepts or rejects examples in the order of requests: copies and filters, then the verifier, then quotas.

    Keeps the examples that wait for the label-noise check. The caller updates `stats` with every commit.
    """

    def __init__(self, stats: RunStats, count: int, filters: Sequence[Filter], vectors: PassedVectors | None) -> None:
        self._stats = stats
        self._count = count
        self._filters = filters
        self._vectors = vectors
        self._format = stats.format
        self._verification = stats.spec.verification
        self._copies = CopyChecks(stats.spec.examples, self._format)
        self._waiting: deque[Commit] = deque()  # with examples that wait for the label-noise check
        self.passed = 0  # examples that passed the filters, waiting ones included
        self.quotas = RunQuotas.of(stats.spec, self._format, count)

    @property
    def awaits_label_noise_check(self) -> bool:
        """Whether scored examples wait for the label-noise check."""
        if self._verification is None or self._verification.mode == "keep":
            return False
        check = self._stats.label_noise_check
        return check is not None and not check.decided

    def judge(
        self,
        candidate: Candidate,
        origin: RequestOrigin,
        probabilities: Probabilities | None,
        *,
        has_label: bool,
        accepted: int,
    ) -> tuple[Candidate | Reject, Scored | None]:
        """The candidate as it is accepted or waits, or a reject; and the verifier's result, or None.

        `has_label`: whether it was written for a label. `accepted`: the number of examples that were accepted from the
        same completion.
        """
        if reject := self.find_reject(candidate, origin, accepted):
            return reject, None
        result: Candidate | Reject = candidate
        scored: Scored | None = None
        if not self._verification:
            result = self._accept(candidate, origin)
        elif probabilities is None:
            result = candidate.reject(RejectReason.REJECTED_BY_VERIFIER, NO_SCORES)
        else:
            assigned = self._format.answers.chosen(candidate.example.values) if has_label else None
            scored = Scored(assigned, final=None, accepted=False, probabilities=probabilities)
            if not self.awaits_label_noise_check:
                result, scored = self._verify(candidate, scored, origin)
        if isinstance(result, Candidate):
            self._add_passed(result, origin.request)
        return result, scored

    def _verify(self, candidate: Candidate, scored: Scored, origin: RequestOrigin) -> tuple[Candidate | Reject, Scored]:
        """Accept or reject a scored example that passed the filters; it may get another label."""
        assert self._verification is not None, "the caller checks it"
        calibrated = self._stats.calibrated(scored.probabilities)
        assigned = None if self._stats.pseudo_labels else scored.assigned
        scored = replace(scored, final=final_label(self._verification.mode, assigned, calibrated, origin.request))
        values, answers = candidate.example.values, self._format.answers
        if scored.final is None:
            detail = disagreement(list(map(str, answers.choices(values))), assigned, calibrated)
            return candidate.reject(RejectReason.REJECTED_BY_VERIFIER, detail), scored
        if scored.final != answers.chosen(values):
            relabeled = Candidate.of(answers.with_choice(values, scored.final), self._format)
            # In a format without free text, the answer is part of the compared text.
            is_new_text = relabeled.exact_key != candidate.exact_key
            if is_new_text and (reject := self._reject_by_filters(relabeled)):
                return reject, scored
            candidate = relabeled
        result = self._accept(candidate, origin)
        return result, replace(scored, accepted=isinstance(result, Candidate))

    def release(self) -> Commit | None:
        """Judge the waiting examples of the earliest request; None if there are none, or the check is undecided."""
        if self.awaits_label_noise_check or not self._waiting:
            return None
        commit = self._waiting[0]
        origin = RequestOrigin(commit.request, attributes=commit.attributes)
        accepted: list[Candidate] = []
        rejects: list[Reject] = []
        verified: list[Scored] = []
        for values, scored in zip(commit.waiting, commit.scored, strict=True):
            candidate = Candidate.of(values, self._format)
            if self._stats.accepted + len(accepted) >= self._count:
                result: Candidate | Reject = candidate.reject(RejectReason.NOT_NEEDED)
            else:
                result, scored = self._verify(candidate, scored, origin)
            verified.append(scored)
            if isinstance(result, Reject):
                rejects.append(result)
            else:
                accepted.append(result)
                self._add_relabeled(candidate, result, commit.request)
        return replace(
            commit,
            accepted=tuple(dict(candidate.example.values) for candidate in accepted),
            next_parents=(),
            rejects=tuple(rejects),
            prompt_tokens=0,
            generated_tokens=0,
            time=round(time.time(), 3),
            scored=tuple(verified),
            scoring_tokens=0,
            waiting=(),
            released=True,
        )

    def record(self, commit: Commit) -> None:
        """Update the waiting examples with a new commit."""
        if commit.released:
            self._waiting.popleft()
        elif commit.waiting:
            self._waiting.append(commit)

    @property
    def next_released(self) -> int | None:
        """The earliest request with waiting examples."""
        return self._waiting[0].request if self._waiting else None

    def replay(self, commit: Commit) -> None:
        """Add the examples of a commit from the log."""
        candidates = [Candidate.of(values, self._format) for values in commit.accepted]
        for candidate in candidates:
            self.quotas.add(self._label(candidate), commit.attributes)
        if commit.released:
            indices = [index for index, scored in enumerate(commit.scored) if scored.accepted]
            for index, candidate in zip(indices, candidates, strict=True):
                original = Candidate.of(self._waiting[0].waiting[index], self._format)
                self._add_relabeled(original, candidate, commit.request)
            return
        candidates += [Candidate.of(values, self._format) for values in commit.waiting]
        for candidate in candidates:
            self._add_passed(candidate, commit.request)

    def apply_decision(self, decision: Decision) -> None:
        """Apply a decision of a reviewer. The filters keep the text of a rejected row: it must not come back."""
        if decision.removed:
            self.quotas.remove(value_at(decision.removed, self._format.roles.answer), decision.attributes)
        if decision.added:
            candidate = Candidate.of(decision.added, self._format)
            self.quotas.add(self._label(candidate), decision.attributes)
            self._add_passed(candidate, decision.request)

    def find_reject(self, candidate: Candidate, origin: RequestOrigin, accepted: int = 0) -> Reject | None:
        """The first reason to reject a valid example before verification, or None. `accepted`: see `judge`."""
        reject = (
            find_length_error(candidate, origin.attributes, self._stats.spec.attributes)
            or self._copies.find_reject(candidate, origin.shown)
            or self._reject_by_filters(candidate)
        )
        if reject:
            return reject
        if self._stats.accepted + accepted >= self._count:
            return candidate.reject(RejectReason.NOT_NEEDED)
        if self._label_is_final and self.quotas.label_is_full(self._label(candidate)):
            return candidate.reject(RejectReason.OVER_QUOTA)
        if full := self.quotas.full_attribute(origin.attributes):
            return candidate.reject(RejectReason.OVER_QUOTA, full)
        return None

    def _reject_by_filters(self, candidate: Candidate) -> Reject | None:
        if candidate.exact_key in self._copies.formatting_keys:
            return candidate.reject(RejectReason.COPIED_EXAMPLE)
        return first_reject(self._filters, candidate)

    @property
    def _label_is_final(self) -> bool:
        """Whether an example keeps the label that it was written with, whatever the verifier finds."""
        check = self._stats.label_noise_check
        if check is not None and not check.decided:
            return False
        relabels = self._verification is not None and self._verification.mode == "relabel"
        return not relabels and not self._stats.pseudo_labels

    def _accept(self, candidate: Candidate, origin: RequestOrigin) -> Candidate | Reject:
        """Count the example, unless the quota of its label or of an attribute is full."""
        full_attribute = self.quotas.full_attribute(origin.attributes)
        if full_attribute or self.quotas.label_is_full(self._label(candidate)):
            return candidate.reject(RejectReason.OVER_QUOTA, full_attribute or "")
        self.quotas.add(self._label(candidate), origin.attributes)
        return candidate

    def _add_relabeled(self, original: Candidate, relabeled: Candidate, request: int) -> None:
        if relabeled.exact_key != original.exact_key:  # else the filters have seen its text
            self._add_passed(relabeled, request)

    def _add_passed(self, candidate: Candidate, request: int) -> None:
        for check in self._filters:
            check.add(candidate, request)
        if self._vectors:
            self._vectors.ensure(self.passed, candidate.compared_text)
        self.passed += 1

    def _label(self, candidate: Candidate) -> Json:
        return value_at(candidate.example.values, self._format.roles.answer)
