"""Turns completions into commits: `parse` reads the examples of a completion, `make_commit` decides about each.

An example is accepted if it is not a copy, passes the filters, then the verifier (if labels are verified), then the
quotas.

With fixed labels the first scored examples wait until the label-noise check has decided and the verifier is
calibrated; then `release` decides about them, request by request. Waiting examples already count for the filters and
can be parents, even if they are dropped later: both depend only on the text, which verification does not change.
"""

from __future__ import annotations

import json
import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from datacreate.creation.plan import RunPlan
from datacreate.creation.quotas import RunQuotas
from datacreate.engines.request import Completion
from datacreate.filters.filter import Filter, first_reject
from datacreate.formats.candidate import Candidate, CopyChecks
from datacreate.formats.example import Example, Json, shorten, value_at
from datacreate.formats.prompt_encoding import PromptEncoding
from datacreate.formats.reject import Reject, RejectReason
from datacreate.formats.response import parse_completion
from datacreate.prompts.generation import RequestContent
from datacreate.prompts.label_scoring import PermutedPrompt, make_label_prompt
from datacreate.runs.attributes import find_length_reject
from datacreate.runs.decisions import Decision
from datacreate.runs.log import Commit
from datacreate.runs.stats import RunStats
from datacreate.selection.embeddings import PassedVectors
from datacreate.selection.queue import Parent
from datacreate.verification.scoring import NO_SCORES, Scored, disagreement, final_label, round_probabilities


@dataclass(frozen=True)
class PendingRequest:
    """A request that is made and not committed yet: what its prompt shows and asks for."""

    number: int
    parent: Parent
    encoding: PromptEncoding  # it has pseudo-labels if the verifier will assign the labels
    labels: tuple[Json, ...] | None  # the label of each example to write; None if no labels are assigned
    content: RequestContent
    attributes: Mapping[str, str]  # dimension -> value
    other_shots: tuple[Example, ...]  # examples that the prompt shows beside the parent
    generator: int = 0  # index of the generator

    @cached_property
    def parent_example(self) -> Example:
        """The parent as an example; one without fields if the prompt shows none."""
        return Example(json.loads(self.parent.line or "{}"))

    @property
    def shown(self) -> tuple[Example, ...]:
        """The examples that the prompt shows, the parent first."""
        return (self.parent_example, *self.other_shots) if self.parent.line else ()

    @cached_property
    def shown_keys(self) -> set[str]:
        """`Candidate.exact_key` of the examples that the prompt shows: copies of them are rejected."""
        return {Candidate.of(example.values, self.encoding.format).exact_key for example in self.shown}


@dataclass
class ParsedCompletion:
    """The examples that a completion contains, in order: valid ones as `Candidate`, others as `Reject`.

    `Pipeline` sends the label prompts to the verifier, and adds its scores to them.
    """

    request: PendingRequest
    completion: Completion
    items: tuple[Candidate | Reject, ...]
    label_prompts: Mapping[int, PermutedPrompt]  # by index of the item
    unscored: int = 0  # number of scoring requests without a result
    scoring_tokens: int = 0


class Acceptance:
    """Decides which examples of a run are accepted, and knows those that wait for the label-noise check.

    Its decisions depend on all commits so far, so completions are given to `make_commit` in the order of the requests.
    It changes filters and quotas when it makes a commit; the caller adds the commit to `stats` before the next one.
    """

    def __init__(
        self, plan: RunPlan, stats: RunStats, count: int, filters: Sequence[Filter], vectors: PassedVectors | None
    ) -> None:
        self._plan = plan
        self._stats = stats
        self._filters = filters
        self._embedder = vectors.embedder if vectors else None
        # Coverage needs the vector of every example that passed; filters add those that they need.
        self._vectors = vectors if plan.strategy.queue == "farthest_first" else None
        self._format = plan.encoding.format
        self._verification = plan.spec.verification
        self._copies = CopyChecks(plan.spec.examples, self._format)
        self._waiting: deque[Commit] = deque()  # those with examples that wait for the label-noise check
        self.passed = 0  # number of examples that are accepted or wait
        self.quotas = RunQuotas.of(plan.spec, self._format, count)

    @property
    def awaits_label_noise_check(self) -> bool:
        """Whether scored examples wait for the label-noise check."""
        if self._verification is None or self._verification.mode == "keep":
            return False
        label_noise_check = self._stats.label_noise_check
        return label_noise_check is not None and not label_noise_check.decided

    @property
    def next_released(self) -> int | None:
        """The number of the earliest request with waiting examples, which `release` decides next; None without one."""
        return self._waiting[0].request_number if self._waiting else None

    def parse(self, request: PendingRequest, completion: Completion) -> ParsedCompletion:
        """Parse and validate a completion, in any order of requests; nothing is accepted or counted yet.

        The result has a label prompt for each example that passes the filters now. Filters only get
        stricter: an example that is rejected now is also rejected by `make_commit`.
        """
        items = self._parse_items(request, completion)
        candidates = {index: item for index, item in enumerate(items) if isinstance(item, Candidate)}
        if self._embedder:  # encoding one batch now is faster than single texts later
            self._embedder.encode([candidate.embedding_text for candidate in candidates.values()])
        for candidate_filter in self._filters:
            candidate_filter.prefetch(list(candidates.values()))
        label_prompts = {}
        if self._verification:
            for index, candidate in candidates.items():
                if not self._find_reject(candidate, request) and (prompt := self._label_prompt(candidate)):
                    label_prompts[index] = prompt
        return ParsedCompletion(request, completion, tuple(items), label_prompts)

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
            max_text_chars=self._plan.samplings[request.generator].longest_text,
        )

    def _label_prompt(self, candidate: Candidate) -> PermutedPrompt | None:
        """The prompt that asks the verifier for the label of an example; None if its answers cannot be scored."""
        assert self._verification, "the caller checks it"
        spec, by_letter = self._plan.spec, self._verification.scored_by_letter
        values = candidate.example.values
        prompt = make_label_prompt(self._format, values, scored_by_letter=by_letter, instruction=spec.instruction)
        return PermutedPrompt(prompt, f"{spec.seed}:{prompt.text}") if prompt else None

    def make_commit(self, parsed: ParsedCompletion) -> Commit:
        """Decide about each example of a completion, and choose the next parents; returns all of it as a commit.

        While the label-noise check has not decided, scored examples are kept in `Commit.waiting` for `release`. All
        label prompts of the completion must have their scores, and all earlier commits must be in `stats`.
        """
        request, completion = parsed.request, parsed.completion
        must_wait = self.awaits_label_noise_check
        passed: list[Candidate] = []
        rejects: list[Reject] = []
        scored: list[Scored] = []
        for index, item in enumerate(parsed.items):
            result = item
            if isinstance(item, Candidate):
                prompt = parsed.label_prompts.get(index)
                result, verified = self._accept_or_reject(item, request, prompt.mean_scores() if prompt else None)
                scored += [verified] if verified else []
            if isinstance(result, Reject):
                rejects.append(result)
            else:
                self._add_passed(result, request.number)
                passed.append(result)
        values = tuple(dict(candidate.example.values) for candidate in passed)
        commit = Commit(
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
        if commit.waiting:
            self._waiting.append(commit)
        return commit

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
        if not self._verification:
            return self._accept(candidate, request.attributes), None
        if scores is None:
            return candidate.reject(RejectReason.REJECTED_BY_VERIFIER, NO_SCORES), None
        is_labeled = not request.encoding.pseudo_labels
        assigned = self._format.answers.right_index(candidate.example.values) if is_labeled else None
        scored = Scored(assigned, final=None, accepted=False, probabilities=round_probabilities(scores))
        if self.awaits_label_noise_check:
            return candidate, scored
        return self._verify(candidate, scored, request.number, request.attributes)

    def _verify(
        self, candidate: Candidate, scored: Scored, request_number: int, attributes: Mapping[str, str]
    ) -> tuple[Candidate | Reject, Scored]:
        """Decide about a scored example that passed the filters, after the label-noise check has decided.

        Returns the example, with another label if the verifier corrects it, or its reject; and the verifier's result
        with the final label.
        """
        assert self._verification is not None, "the caller checks it"
        calibrated = self._stats.calibrated(scored.probabilities)
        assigned = None if self._stats.pseudo_labels else scored.assigned
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

        Returns None if nothing waits, or if the label-noise check has not decided. The commit must be in `stats` before
        the next call.
        """
        if self.awaits_label_noise_check or not self._waiting:
            return None
        commit = self._waiting.popleft()
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
                self._add_relabeled(candidate, result, commit.request_number)
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

    def add_logged(self, commit: Commit) -> None:
        """Add a commit from the log to filters and quotas, as `make_commit` or `release` did when they made it.

        Nothing is decided again: the commit says what was accepted.
        """
        candidates = [Candidate.of(values, self._format) for values in commit.accepted]
        for candidate in candidates:
            self.quotas.add(self._label(candidate), commit.attributes)
        if commit.released:
            waited = self._waiting.popleft().waiting
            originals = [values for values, scored in zip(waited, commit.scored, strict=True) if scored.accepted]
            for values, candidate in zip(originals, candidates, strict=True):
                self._add_relabeled(Candidate.of(values, self._format), candidate, commit.request_number)
            return
        for candidate in (*candidates, *(Candidate.of(values, self._format) for values in commit.waiting)):
            self._add_passed(candidate, commit.request_number)
        if commit.waiting:
            self._waiting.append(commit)

    def apply_decision(self, decision: Decision) -> None:
        """Count the rows that a reviewer removed and added. Filters keep a removed text: it must not come back."""
        if decision.removed:
            self.quotas.remove(value_at(decision.removed, self._format.roles.answer), decision.attributes)
        if decision.added:
            candidate = Candidate.of(decision.added, self._format)
            self.quotas.add(self._label(candidate), decision.attributes)
            self._add_passed(candidate, decision.request_number)

    def _find_reject(self, candidate: Candidate, request: PendingRequest) -> Reject | None:
        """The reject of a valid example that is a copy, does not pass the filters or is not needed; else None."""
        reject = (
            find_length_reject(candidate, request.attributes, self._plan.spec.attributes)
            or self._copies.find_reject(candidate, request.shown_keys)
            or self._reject_by_filters(candidate)
        )
        if reject:
            return reject
        if self.quotas.missing <= 0:
            return candidate.reject(RejectReason.NOT_NEEDED)
        if self._label_is_final and self.quotas.label_is_full(self._label(candidate)):
            return candidate.reject(RejectReason.OVER_QUOTA)
        if full := self.quotas.full_attribute(request.attributes):
            return candidate.reject(RejectReason.OVER_QUOTA, full)
        return None

    def _reject_by_filters(self, candidate: Candidate) -> Reject | None:
        """The reject of a copy of a formatting example, or by the first filter that it does not pass; else None."""
        if candidate.exact_key in self._copies.formatting_keys:
            return candidate.reject(RejectReason.COPIED_EXAMPLE)
        return first_reject(self._filters, candidate)

    @property
    def _label_is_final(self) -> bool:
        """Whether an example keeps the label that it was written with, whatever the verifier finds."""
        label_noise_check = self._stats.label_noise_check
        if label_noise_check is not None and not label_noise_check.decided:
            return False
        relabels = self._verification is not None and self._verification.mode == "relabel"
        return not relabels and not self._stats.pseudo_labels

    def _accept(self, candidate: Candidate, attributes: Mapping[str, str]) -> Candidate | Reject:
        """Count the example and return it, or return its reject if the quota of its label or an attribute is full."""
        full_attribute = self.quotas.full_attribute(attributes)
        if full_attribute or self.quotas.label_is_full(self._label(candidate)):
            return candidate.reject(RejectReason.OVER_QUOTA, full_attribute or "")
        self.quotas.add(self._label(candidate), attributes)
        return candidate

    def _add_relabeled(self, original: Candidate, relabeled: Candidate, request_number: int) -> None:
        """Add an example that waited to the filters, if its new label gave it another text."""
        if relabeled.exact_key != original.exact_key:
            self._add_passed(relabeled, request_number)

    def _add_passed(self, candidate: Candidate, request_number: int) -> None:
        """Add an example that passed to the filters: later examples must not repeat it."""
        for candidate_filter in self._filters:
            candidate_filter.add(candidate, request_number)
        if self._vectors:
            self._vectors.ensure(self.passed, candidate.embedding_text)
        self.passed += 1

    def _label(self, candidate: Candidate) -> Json:
        """The value of the answer field, which counts for the quotas of labels; None if the format has none."""
        return value_at(candidate.example.values, self._format.roles.answer)
