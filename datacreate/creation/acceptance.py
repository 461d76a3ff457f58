"""Turns completions into commits: `parse` reads the examples of a completion, `make_commit` decides about each.

A valid example is rejected, in this order, if a text is longer than its attributes allow, it is a copy, a filter finds
a reason, it is not needed, its quota is full, or the verifier rejects it. The verifier may change its label, so the
quotas are checked again.

Examples may wait for the label-noise check (`RunVerification` in runs/stats.py); then `release` decides about them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from datacreate.creation.plan import RunPlan
from datacreate.creation.quotas import RunQuotas
from datacreate.creation.requests import PendingRequest
from datacreate.engines.request import Completion
from datacreate.filters.filter import Filter, first_reject
from datacreate.formats.candidate import Candidate, CopyChecks
from datacreate.formats.example import Json, shorten
from datacreate.formats.reject import Reject, RejectReason
from datacreate.formats.response import parse_completion
from datacreate.prompts.label_scoring import PermutedPrompt, make_label_prompt
from datacreate.runs.attributes import find_length_reject
from datacreate.runs.decisions import Decision
from datacreate.runs.log import Commit
from datacreate.runs.stats import RunStats
from datacreate.selection.embeddings import PassedVectors
from datacreate.verification import NO_SCORES, Scored, disagreement, final_label, round_probabilities


@dataclass
class ParsedCompletion:
    """The examples that a completion contains, in order: valid ones as `Candidate`, others as `Reject`.

    Those that the verifier scores have a label prompt. `Pipeline` sends it, and adds the scores to it.
    """

    request: PendingRequest
    completion: Completion
    items: Sequence[tuple[Candidate | Reject, PermutedPrompt | None]]
    unscored: int = 0  # number of scoring requests without a result
    scoring_tokens: int = 0


class Acceptance:
    """Decides which examples of a run are accepted.

    Its decisions depend on all commits so far, so completions are given to `make_commit` in the order of the requests.
    It changes filters and quotas when it makes a commit; `RunState` adds it to `stats` before the next one.
    """

    def __init__(
        self, plan: RunPlan, stats: RunStats, count: int, filters: Sequence[Filter], vectors: PassedVectors | None
    ) -> None:
        self._plan = plan
        self._filters = filters
        self._embedder = vectors.embedder if vectors else None
        # Coverage needs the vector of every example that passed; filters add those that they need.
        self._vectors = vectors if plan.strategy.queue == "farthest_first" else None
        self._format = plan.encoding.format
        self._verification = stats.verification
        self._copies = CopyChecks(plan.spec.examples, self._format)
        self.passed = 0  # number of examples that are accepted or wait
        self.quotas = RunQuotas.of(plan.spec, self._format, count)

    def parse(self, request: PendingRequest, completion: Completion) -> ParsedCompletion:
        """Parse and validate a completion, in any order of requests; nothing is accepted or counted yet.

        The result has a label prompt for each example that passes the filters now. Filters only get stricter: an
        example that is rejected now is also rejected by `make_commit`.
        """
        items = self._parse_items(request, completion)
        candidates = [item for item in items if isinstance(item, Candidate)]
        if self._embedder:  # encoding one batch now is faster than single texts later
            self._embedder.encode([candidate.embedding_text for candidate in candidates])
        for candidate_filter in self._filters:
            candidate_filter.prefetch(candidates)
        return ParsedCompletion(request, completion, [(item, self._label_prompt(item, request)) for item in items])

    def _parse_items(self, request: PendingRequest, completion: Completion) -> list[Candidate | Reject]:
        """The examples of a completion, valid or rejected; one reject if the request failed."""
        if completion.finish_reason == "error":
            return [Reject(RejectReason.NO_RESPONSE, shorten(completion.error or ""))]
        encoding = request.encoding
        if self._format.context_is_given:
            encoding = replace(encoding, passage=request.content.passage or "")
        return parse_completion(
            completion.text,
            encoding,
            self._plan.spec.num_examples,
            truncated=completion.finish_reason == "length",
            keep_complete_items=self._plan.method.keeps_complete_items,
            longest_text=self._plan.samplings[request.generator].longest_text,
        )

    def _label_prompt(self, item: Candidate | Reject, request: PendingRequest) -> PermutedPrompt | None:
        """The prompt that asks the verifier for the label of an example; None if it is rejected or cannot be scored."""
        spec = self._plan.spec
        if spec.verification is None or isinstance(item, Reject) or self._find_reject(item, request):
            return None
        values, by_letter = item.example.values, spec.verification.scored_by_letter
        prompt = make_label_prompt(self._format, values, scored_by_letter=by_letter, instruction=spec.instruction)
        return PermutedPrompt(prompt, f"{spec.seed}:{prompt.text}") if prompt else None

    def make_commit(self, parsed: ParsedCompletion) -> Commit:
        """Decide about each example of a completion, and choose the next parents; returns all of it as a commit.

        All label prompts of the completion must have their scores.
        """
        request, completion = parsed.request, parsed.completion
        must_wait = self._verification.must_wait
        passed: list[Candidate] = []
        rejects: list[Reject] = []
        scored: list[Scored] = []
        for item, prompt in parsed.items:
            result = item
            if isinstance(item, Candidate):
                result, verified = self._accept_or_reject(item, request, prompt.mean_scores() if prompt else None)
                scored += [verified] if verified else []
            if isinstance(result, Reject):
                rejects.append(result)
            else:
                self._add_passed(result, request.number)
                passed.append(result)
        values = tuple(dict(candidate.example.values) for candidate in passed)
        return Commit(
            request_number=request.number,
            parent=request.parent_example.id,
            parent_depth=request.parent.depth,
            time=round(time.time(), 3),
            accepted=() if must_wait else values,
            chosen_children=tuple(self._choose_parents(request, passed)),
            rejects=tuple(rejects),
            prompt_tokens=completion.prompt_tokens,
            generated_tokens=completion.generated_tokens,
            generator=request.generator,
            scored=tuple(scored),
            scoring_tokens=parsed.scoring_tokens,
            waiting=values if must_wait else (),
            attributes=request.attributes,
            thoughts=completion.thoughts,
            thinking_tokens=completion.thinking_tokens,
        )

    def _accept_or_reject(
        self, candidate: Candidate, request: PendingRequest, scores: Sequence[float] | None
    ) -> tuple[Candidate | Reject, Scored | None]:
        """Decide about a valid example, given the verifier's scores of its possible answers; None if there are none.

        Returns the example, with another label if it is relabeled, or its reject; and the verifier's result, or None
        if it was rejected before or nothing is verified. While the label-noise check has not decided, the example
        waits: it is returned without being counted.
        """
        if reject := self._find_reject(candidate, request):
            return reject, None
        if self._verification.mode == "off":
            return self._accept(candidate, request.attributes), None
        if scores is None:
            return candidate.reject(RejectReason.REJECTED_BY_VERIFIER, NO_SCORES), None
        is_labeled = not request.encoding.pseudo_labels
        assigned = self._format.answers.right_index(candidate.example.values) if is_labeled else None
        scored = Scored(assigned, final=None, accepted=False, probabilities=round_probabilities(scores))
        if self._verification.must_wait:
            return candidate, scored
        return self._verify(candidate, scored, request.number, request.attributes)

    def _verify(
        self, candidate: Candidate, scored: Scored, request_number: int, attributes: Mapping[str, str]
    ) -> tuple[Candidate | Reject, Scored]:
        """Decide about a scored example that passed the filters, after the label-noise check has decided.

        Returns the example, with another label if the verifier corrects it, or its reject; and the verifier's result
        with the final label.
        """
        calibrated = self._verification.check.calibrated(scored.probabilities)
        assigned = None if self._verification.check.pseudo_labels else scored.assigned
        scored = replace(scored, final=final_label(self._verification.mode, assigned, calibrated, request_number))
        values, answers = candidate.example.values, self._format.answers
        if scored.final is None:
            detail = disagreement(list(map(str, answers.choices(values))), assigned, calibrated)
            return candidate.reject(RejectReason.REJECTED_BY_VERIFIER, detail), scored
        if scored.final != answers.right_index(values):
            relabeled = Candidate.of(answers.with_choice(values, scored.final), self._format)
            # In a format without free text, the answer is part of the compared text.
            is_new_text = relabeled.exact_key != candidate.exact_key
            if is_new_text and (reject := self._reject_by_filters(relabeled)):
                return reject, scored
            candidate = relabeled
        result = self._accept(candidate, attributes)
        return result, replace(scored, accepted=isinstance(result, Candidate))

    def _choose_parents(self, request: PendingRequest, passed: Sequence[Candidate]) -> Sequence[int]:
        """The examples of `passed` that the strategy chooses as next parents, as indices."""
        if not passed:
            return ()
        parent = self._plan.text_of(request.parent_example)
        children = [candidate.embedding_text for candidate in passed]
        rng = random.Random(f"{self._plan.spec.seed}:choose:{request.number}")
        return self._plan.strategy.choose(parent, children, rng, self._embedder)

    def release(self) -> Commit | None:
        """Decide about the waiting examples of the earliest request that has some; returns this as a second commit.

        Returns None if nothing waits, or if the label-noise check has not decided.
        """
        if self._verification.must_wait or not self._verification.waiting:
            return None
        commit = self._verification.waiting[0]
        accepted: list[Candidate] = []
        rejects: list[Reject] = []
        verified: list[Scored] = []
        for values, scored in zip(commit.waiting, commit.scored, strict=True):
            candidate = Candidate.of(values, self._format)
            if self.quotas.missing <= 0:
                result: Candidate | Reject = candidate.reject(RejectReason.NOT_NEEDED)
            else:
                result, scored = self._verify(candidate, scored, commit.request_number, commit.attributes)
            verified.append(scored)
            if isinstance(result, Reject):
                rejects.append(result)
            else:
                accepted.append(result)
                self._add_relabeled(values, result, commit.request_number)
        return Commit(
            request_number=commit.request_number,
            parent=commit.parent,
            parent_depth=commit.parent_depth,
            time=round(time.time(), 3),
            accepted=tuple(dict(candidate.example.values) for candidate in accepted),
            rejects=tuple(rejects),
            generator=commit.generator,
            scored=tuple(verified),
            released=True,
            attributes=commit.attributes,
        )

    def add_logged(self, record: Commit | Decision) -> None:
        """Add a record from the log to quotas and filters, as `make_commit` or `release` did with a new commit.

        Nothing is decided again: a commit says what was accepted. Filters keep a row that a reviewer removed: it must
        not come back.
        """
        self.quotas.add_record(record)
        if isinstance(record, Commit) and record.released:
            waited = self._verification.waiting[0].waiting
            originals = [values for values, scored in zip(waited, record.scored, strict=True) if scored.accepted]
            for original, values in zip(originals, record.accepted, strict=True):
                self._add_relabeled(original, Candidate.of(values, self._format), record.request_number)
            return
        for values in record.passed if isinstance(record, Commit) else filter(None, [record.added]):
            self._add_passed(Candidate.of(values, self._format), record.request_number)

    def _find_reject(self, candidate: Candidate, request: PendingRequest) -> Reject | None:
        """The reject of a valid example by all that is checked before the verifier; None if there is none."""
        reject = (
            find_length_reject(candidate, request.attributes, self._plan.spec.attributes)
            or self._copies.find_reject(candidate, request.shown_keys)
            or self._reject_by_filters(candidate)
        )
        if reject:
            return reject
        if self.quotas.missing <= 0:
            return candidate.reject(RejectReason.NOT_NEEDED)
        if self._verification.label_is_final and self.quotas.label_is_full(candidate.example.values):
            return candidate.reject(RejectReason.OVER_QUOTA)
        if full := self.quotas.full_attribute(request.attributes):
            return candidate.reject(RejectReason.OVER_QUOTA, full)
        return None

    def _reject_by_filters(self, candidate: Candidate) -> Reject | None:
        """The reject of a copy of a formatting example, or by the first filter that it does not pass; else None."""
        if candidate.exact_key in self._copies.formatting_keys:
            return candidate.reject(RejectReason.COPIED_EXAMPLE)
        return first_reject(self._filters, candidate)

    def _accept(self, candidate: Candidate, attributes: Mapping[str, str]) -> Candidate | Reject:
        """Count the example and return it, or return its reject if the quota of its label or an attribute is full."""
        full_attribute = self.quotas.full_attribute(attributes)
        if full_attribute or self.quotas.label_is_full(candidate.example.values):
            return candidate.reject(RejectReason.OVER_QUOTA, full_attribute or "")
        self.quotas.add(candidate.example.values, attributes)
        return candidate

    def _add_relabeled(self, original: Mapping[str, Json], relabeled: Candidate, request_number: int) -> None:
        """Add an example that waited to the filters, if its new label gave it another text."""
        if relabeled.exact_key != Candidate.of(original, self._format).exact_key:
            self._add_passed(relabeled, request_number)

    def _add_passed(self, candidate: Candidate, request_number: int) -> None:
        """Add an example that passed to the filters: later examples must not repeat it."""
        for candidate_filter in self._filters:
            candidate_filter.add(candidate, request_number)
        if self._vectors:
            self._vectors.ensure(self.passed, candidate.embedding_text)
        self.passed += 1
