"""The state of a run: accepted examples, quotas, duplicates, and the requests to submit.

A completion is parsed (`parse`) and then decided in the order of requests (`decide`), which gives a `Commit`.
Applying it (`apply`) gives the parents of the next requests, which are logged with it. Replaying a log applies its
commits again: a resumed run has the same state and the same requests, without choosing, embedding or scoring
anything twice. If a commit cannot be written, the run ends, and the changes that it made are lost with it.

With fixed labels the first scored examples are held until the label-noise check has decided and the verifier is
calibrated; then `release` decides them, request by request. A held example counts for the filters and can be a
parent: both need its text, which verification does not change. It does so even if it is dropped later.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from datacreate.engines.base import Completion, Request
from datacreate.errors import LogDamaged
from datacreate.filters.base import Filter
from datacreate.formats.example import Example, Json, field_at
from datacreate.formats.parse import parse_completion
from datacreate.formats.response_schema import build_response_schema
from datacreate.formats.task_format import answer_text
from datacreate.formats.validate import Candidate, Reason, Reject, shorten
from datacreate.plan import RunPlan
from datacreate.prompts.generation import chat_prompt
from datacreate.prompts.label_scoring import (
    LabelQuestion,
    assigned_label,
    label_question,
    possible_answers,
    with_answer,
)
from datacreate.runs.log import Commit, LogLine, Session, example_line
from datacreate.runs.summary import RunStats
from datacreate.selection.accepted_vectors import AcceptedVectors
from datacreate.selection.embeddings import Similarity
from datacreate.selection.farthest_first import FarthestFirst
from datacreate.selection.queue import UNLIMITED_USES, Chains, Levels, Parent, ParentQueue, Tree
from datacreate.verification.label_noise import LabelNoiseCheck
from datacreate.verification.quotas import Quotas
from datacreate.verification.scoring import (
    NO_SCORES,
    Probabilities,
    Scored,
    disagreement,
    final_label,
    round_probabilities,
)

_RATE_REQUESTS = 100
"""The accepted examples per request are averaged over about this many of the latest requests."""

_SPARE = 1.05
"""Requests are made for this many times the examples that are missing."""


@dataclass(frozen=True)
class PendingRequest:
    """A request to submit, with the label assigned to each of its examples; None without fixed labels."""

    number: int
    parent: Parent
    labels: tuple[Json, ...] | None
    pseudo_labels: bool = False  # the verifier will assign the labels
    model: int = 0  # index of the generator

    @cached_property
    def example(self) -> Example:
        """The parent as an example."""
        return Example(json.loads(self.parent.line))


@dataclass(frozen=True)
class ParsedCompletion:
    """The items of a completion in order, and the verifier's scores of some of them."""

    pending: PendingRequest
    completion: Completion
    items: tuple[Candidate | Reject, ...]
    questions: Mapping[int, LabelQuestion]  # index of the item -> question for the verifier
    scores: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    scoring_tokens: int = 0


class RunState:
    """The state of a run. `to_submit` holds the next requests, in order; the caller removes them."""

    def __init__(
        self,
        plan: RunPlan,
        count: int,
        similarity: Similarity | None,
        filters: Sequence[Filter],
        accepted: AcceptedVectors | None = None,
    ) -> None:
        spec = plan.spec
        self._plan = plan
        self._count = count
        self._similarity = similarity
        self._filters = filters
        self._embedder = accepted.embedder if accepted else None
        self._vectors = accepted if plan.strategy.queue == "coverage" else None
        self._num_passed = 0  # examples that passed the filters, held ones included
        self._held: deque[Commit] = deque()  # with examples that wait for the label-noise check
        self._format = plan.encoding.format
        self._encodings = {pseudo: replace(plan.encoding, pseudo_labels=pseudo) for pseudo in (False, True)}
        self._root_key = Candidate.of(plan.root.values, self._format).key
        self._parent_key = lru_cache(maxsize=4096)(self._key_of_line)
        self._schema = lru_cache(maxsize=1024)(self._build_schema)
        labels, ratio = self._format.labels, spec.label_ratio
        self._quotas = None
        if labels and not plan.is_paper_method:
            self._quotas = Quotas(labels, count, list(ratio.values()) if ratio else None)
        self._verification = spec.verification
        self._queue = _make_queue(plan, self._vectors)
        self.seed = spec.seed
        self.stats = RunStats.of(spec, self._format)
        self.to_submit: deque[PendingRequest] = deque()
        self._requests = 0  # made so far
        self._rate = float(spec.num_examples)  # examples of a request that are accepted, or held

    @property
    def finished(self) -> bool:
        return self.stats.accepted >= self._count

    @property
    def label_noise_check(self) -> LabelNoiseCheck | None:
        """The check of the assigned labels; None if labels are not assigned or not verified."""
        return self.stats.label_noise_check

    @property
    def _pseudo_labels(self) -> bool:
        return self.label_noise_check is not None and self.label_noise_check.pseudo_labels

    def _make_requests(self) -> list[int]:
        """Add the next requests to `to_submit`; returns the numbers of their parents."""
        parents = []
        while self._needs_request and (parent := self._queue.next(self._requests, idle=not self._in_flight)):
            self._make_request(parent)
            parents.append(parent.number)
        return parents

    def _make_request(self, parent: Parent) -> None:
        labels = None
        if self._quotas and not self._pseudo_labels:
            rng = self._rng("deal", self._requests)  # the word is part of the seed: do not change it
            labels = tuple(self._quotas.assign(self._plan.spec.num_examples, rng))
        self.to_submit.append(PendingRequest(self._requests, parent, labels, self._pseudo_labels))
        self._requests += 1

    @property
    def _in_flight(self) -> int:
        """Requests that are not committed."""
        return self._requests - self.stats.requests

    @property
    def _needs_request(self) -> bool:
        """Whether another request is needed, given those in flight and what earlier ones gave."""
        if not self._in_flight or self.finished:
            return not self.finished
        missing = self._count - self.stats.accepted - self.stats.held  # if all that are held will be accepted
        expected = self._in_flight * self._rate
        return self._in_flight < self._plan.spec.max_in_flight and expected < _SPARE * missing

    def _rng(self, purpose: str, request: int) -> random.Random:
        return random.Random(f"{self.seed}:{purpose}:{request}")

    def _build_schema(self, labels: tuple[Json, ...] | None, pseudo_labels: bool) -> str:
        return build_response_schema(self._encodings[pseudo_labels], self._plan.spec.num_examples, labels)

    def _key_of_line(self, line: str) -> str:
        return Candidate.of(json.loads(line), self._format).key

    def build_request(self, pending: PendingRequest) -> Request:
        """The request for the engine."""
        spec = self._plan.spec
        encoding = self._encodings[pending.pseudo_labels]
        messages = chat_prompt(encoding, pending.example, spec.num_examples, spec.label_ratio)
        schema = self._schema(pending.labels, pending.pseudo_labels)
        return Request(pending.number, messages, schema, self._plan.samplings[pending.model])

    def parse(self, pending: PendingRequest, completion: Completion) -> ParsedCompletion:
        """The items of a completion, and questions for the verifier about those that pass the filters now."""
        if completion.finish_reason == "error":
            items: list[Candidate | Reject] = [Reject(Reason.NO_RESPONSE, shorten(completion.error or ""))]
        else:
            items = parse_completion(
                completion.text,
                self._encodings[pending.pseudo_labels],
                self._plan.spec.num_examples,
                truncated=completion.finish_reason == "length",
                keep_complete_items=not self._plan.is_paper_method,
            )
        if self._embedder:  # one batch is faster than single texts later
            candidates = [item for item in items if isinstance(item, Candidate)]
            self._embedder.encode([candidate.text for candidate in candidates])
            for filter in self._filters:
                filter.prefetch(candidates)
        questions: dict[int, LabelQuestion] = {}
        for index, item in enumerate(items if self._verification else ()):
            # Filters only get stricter: an item that is rejected now is also rejected by `decide`.
            if isinstance(item, Candidate) and self._find_reject(pending, item) is None:
                lettered = self._verification is not None and self._verification.lettered
                question = label_question(self._format, item.example.values, lettered=lettered)
                if question is not None:
                    questions[index] = question
        return ParsedCompletion(pending, completion, tuple(items), questions)

    def decide(self, parsed: ParsedCompletion) -> Commit:
        """Accept or reject each item, given all earlier commits."""
        holds = self._holds
        passed: list[Candidate] = []
        rejects: list[Reject] = []
        scored: list[Scored] = []
        for index, item in enumerate(parsed.items):
            scores = parsed.scores.get(index)
            probabilities = round_probabilities(scores) if scores else None
            # A held example does not count as accepted.
            result, verified = self._decide_item(
                parsed.pending, item, probabilities, 0 if holds else len(passed)
            )
            if isinstance(result, Reject):
                rejects.append(result)
            else:
                passed.append(result)
            if verified:
                scored.append(verified)
        pending, completion = parsed.pending, parsed.completion
        values = tuple(dict(candidate.example.values) for candidate in passed)
        return Commit(
            request=pending.number,
            parent=pending.example.id,
            depth=pending.parent.depth,
            accepted=() if holds else values,
            chosen=tuple(self._choose_parents(pending, passed)),
            rejects=tuple(rejects),
            prompt_tokens=completion.prompt_tokens,
            generated_tokens=completion.generated_tokens,
            time=round(time.time(), 3),
            model=pending.model,
            scored=tuple(scored),
            scoring_tokens=parsed.scoring_tokens,
            held=values if holds else (),
        )

    @property
    def _holds(self) -> bool:
        """Whether scored examples wait for the label-noise check."""
        check, how = self.label_noise_check, self._verification
        return check is not None and how is not None and how.mode != "keep" and not check.decided

    def release(self) -> Commit | None:
        """Decide the held examples of the earliest request; None if there are none, or the check is undecided."""
        if self._holds or not self._held:
            return None
        commit = self._held[0]
        accepted: list[Candidate] = []
        rejects: list[Reject] = []
        decided: list[Scored] = []
        for values, scored in zip(commit.held, commit.scored, strict=True):
            candidate = Candidate.of(values, self._format)
            if self.stats.accepted + len(accepted) >= self._count:
                result: Candidate | Reject = _reject(Reason.NOT_NEEDED, candidate)
            else:
                result, scored = self._verify(candidate, scored, commit.request, is_new=False)
            decided.append(scored)
            if isinstance(result, Reject):
                rejects.append(result)
            else:
                accepted.append(result)
        return replace(
            commit,
            accepted=tuple(dict(candidate.example.values) for candidate in accepted),
            chosen=(),
            rejects=tuple(rejects),
            prompt_tokens=0,
            generated_tokens=0,
            time=round(time.time(), 3),
            scored=tuple(decided),
            scoring_tokens=0,
            held=(),
            released=True,
        )

    def _decide_item(
        self,
        pending: PendingRequest,
        item: Candidate | Reject,
        probabilities: Probabilities | None,
        accepted: int,
    ) -> tuple[Candidate | Reject, Scored | None]:
        """The item as it is accepted, or a reject; and the verifier's result, or None."""
        if isinstance(item, Reject):
            return item, None
        if reject := self._find_reject(pending, item, accepted):
            return reject, None
        if not self._verification:
            return self._accept(item), None
        if probabilities is None:
            return _reject(Reason.REJECTED_BY_VERIFIER, item, NO_SCORES), None
        assigned = -1 if pending.pseudo_labels else assigned_label(self._format, item.example.values)
        scored = Scored(assigned, -1, False, probabilities)
        if self._holds:
            self._add_to_filters(item)
            return item, scored
        return self._verify(item, scored, pending.number)

    def _verify(
        self, item: Candidate, scored: Scored, request: int, *, is_new: bool = True
    ) -> tuple[Candidate | Reject, Scored]:
        """Accept or reject a scored example that passed the filters; `is_new`: it was not added to them."""
        assert self._verification is not None, "the caller checks it"
        check = self.label_noise_check
        calibrated = check.calibrated(scored.probabilities) if check else scored.probabilities
        assigned = -1 if self._pseudo_labels else scored.assigned
        scored = replace(scored, final=final_label(self._verification.mode, assigned, calibrated, request))
        if scored.final < 0:
            answers = list(map(answer_text, possible_answers(self._format, item.example.values)))
            detail = disagreement(answers, assigned, calibrated)
            return _reject(Reason.REJECTED_BY_VERIFIER, item, detail), scored
        if scored.final != assigned_label(self._format, item.example.values):
            relabeled = with_answer(self._format, item.example.values, scored.final)
            candidate = Candidate.of(relabeled, self._format)
            # In a format without free text, the answer is part of the compared text.
            if candidate.key != item.key:
                is_new = True
                if reject := self._match_filters(candidate):
                    return reject, scored
            item = candidate
        result = self._accept(item, is_new=is_new)
        return result, replace(scored, accepted=not isinstance(result, Reject))

    def _find_reject(self, pending: PendingRequest, candidate: Candidate, accepted: int = 0) -> Reject | None:
        """The first reason to reject a valid example, before verification; None if there is none.

        `accepted`: examples accepted from the same completion.
        """
        if candidate.key == self._parent_key(pending.parent.line):
            return _reject(Reason.COPIED_EXAMPLE, candidate)
        if reject := self._match_filters(candidate):
            return reject
        if self.stats.accepted + accepted >= self._count:
            return _reject(Reason.NOT_NEEDED, candidate)
        if self._label_is_final and self._quota_is_full(candidate):
            return _reject(Reason.OVER_QUOTA, candidate)
        return None

    def _match_filters(self, candidate: Candidate) -> Reject | None:
        if candidate.key == self._root_key:
            return _reject(Reason.COPIED_EXAMPLE, candidate)
        for filter in self._filters:
            if (detail := filter.match(candidate)) is not None:
                return _reject(filter.reason, candidate, detail)
        return None

    @property
    def _label_is_final(self) -> bool:
        """Whether verification, now and later, keeps the label that an example was written with."""
        check = self.label_noise_check
        if check and (not check.decided or check.pseudo_labels):
            return False
        return not (self._verification and self._verification.mode == "relabel")

    def _quota_is_full(self, candidate: Candidate) -> bool:
        return self._quotas is not None and not self._quotas.remaining(self._label(candidate))

    def _accept(self, candidate: Candidate, *, is_new: bool = True) -> Candidate | Reject:
        """Add the example to the training set, unless the quota of its label is full."""
        if self._quota_is_full(candidate):
            return _reject(Reason.OVER_QUOTA, candidate)
        self._add(candidate, is_new=is_new)
        return candidate

    def _add(self, candidate: Candidate, *, is_new: bool = True) -> None:
        """Update quotas with an accepted example, and the filters if they have not seen its text."""
        if is_new:
            self._add_to_filters(candidate)
        if self._quotas:
            self._quotas.add(self._label(candidate))

    def _add_to_filters(self, candidate: Candidate) -> None:
        for filter in self._filters:
            filter.add(candidate)
        if self._vectors:
            self._vectors.ensure(self._num_passed, candidate.text)
        self._num_passed += 1

    def _label(self, candidate: Candidate) -> Json:
        path = self._format.roles.answer
        return field_at(candidate.example.values, path) if path else None

    def _choose_parents(self, pending: PendingRequest, accepted: Sequence[Candidate]) -> Sequence[int]:
        if not accepted:
            return ()
        parent = "\n".join(self._format.input_texts(pending.example.values))
        children = [candidate.text for candidate in accepted]
        return self._plan.strategy.choose(
            parent, children, self._rng("choose", pending.number), self._similarity
        )

    def begin(self, session: Session) -> list[int]:
        """Start a session; returns the numbers of the parents of its first requests."""
        self.stats.begin(session)
        return self._make_requests()

    def apply(self, commit: Commit) -> list[int]:
        """Update the figures and the queue with a decided commit; returns the parents of the next requests."""
        self._record(commit)
        return self._make_requests()

    def _record(self, commit: Commit) -> None:
        self.stats.add(commit)
        if commit.released:
            self._held.popleft()
            return
        if commit.held:
            self._held.append(commit)
        passed = len(commit.passed)
        self._rate += (passed - self._rate) / min(self.stats.requests, _RATE_REQUESTS)
        lines, first = tuple(map(example_line, commit.held)) or commit.lines, self._num_passed - passed + 1
        parents = [Parent(first + i, lines[i], commit.depth + 1) for i in commit.chosen]
        # Twice what this rate requires, as if no held example will be accepted.
        needed = math.ceil(2 * (self._count - self.stats.accepted) / max(1.0, self._rate))
        self._queue.commit(commit.request, parents, passed, needed)

    def replay(self, line: LogLine, path: str) -> None:
        """Apply a line of the log at `path`. Raises LogDamaged if it cannot follow the lines before it."""
        commit = line.record
        if not isinstance(commit, Commit):
            self.stats.begin(commit)
        else:
            self._replay_examples(commit, line, path)
            self._record(commit)
        for number in line.next:
            try:
                parent = self._queue.next(self._requests, idle=not self._in_flight, logged=number)
            except KeyError:
                parent = None
            if parent is None or parent.number != number:
                raise _cannot_follow(path, line, f"parent {number}")
            self._make_request(parent)

    def _replay_examples(self, commit: Commit, line: LogLine, path: str) -> None:
        """Add the examples of a commit to filters, quotas and vectors."""
        if commit.released and self._held:
            expected = self._held[0].request
        else:
            expected = self.to_submit.popleft().number if self.to_submit else -1
        if commit.request != expected:
            raise _cannot_follow(path, line, f"request {commit.request}")
        candidates = [Candidate.of(values, self._format) for values in commit.accepted]
        if commit.released:
            places = [place for place, scored in enumerate(commit.scored) if scored.accepted]
            for place, candidate in zip(places, candidates, strict=True):
                before = Candidate.of(self._held[0].held[place], self._format)
                self._add(candidate, is_new=candidate.key != before.key)
            return
        for candidate in candidates:
            self._add(candidate)
        for values in commit.held:
            self._add_to_filters(Candidate.of(values, self._format))


def _cannot_follow(path: str, line: LogLine, what: str) -> LogDamaged:
    return LogDamaged(
        f"{path}, line {line.number}: {what} cannot follow the lines before it; restore the file from a copy, or use "
        "another --run-dir"
    )


def _reject(reason: Reason, candidate: Candidate, detail: str = "") -> Reject:
    return Reject(reason, shorten(candidate.example.values), detail)


def _make_queue(plan: RunPlan, vectors: AcceptedVectors | None) -> ParentQueue:
    root, spec = Parent(0, example_line(dict(plan.root.values)), 0), plan.spec
    if vectors:
        return FarthestFirst(root, vectors.of_parent, max_parent_uses=spec.max_parent_uses)
    if spec.num_chains:
        return Chains(root, spec.num_chains)
    if plan.strategy.queue == "root":
        return Tree(root, UNLIMITED_USES)
    if spec.method == "paper":
        return Levels(root, spec.seed)
    return Tree(root, spec.max_parent_uses)
