"""The state of a run: its examples (see acceptance.py), its statistics, and the requests to submit.

A completion is parsed (`parse`) and then judged in the order of requests (`judge`), which gives a `Commit`.
Applying it (`apply`) gives the parents of the next requests, which are logged with it. Replaying a log applies its
commits again: a resumed run has the same state and the same requests, without choosing, embedding or scoring twice.
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

from datacreate.acceptance import Acceptance, RequestOrigin
from datacreate.engines.request import Completion, Request
from datacreate.errors import LogDamaged
from datacreate.filters.filter import Filter
from datacreate.formats.candidate import Candidate, Reject, RejectReason
from datacreate.formats.example import Example, Json, shorten
from datacreate.formats.response import build_response_schema, parse_completion
from datacreate.plan import RunPlan
from datacreate.prompts.generation import RequestContent, chat_prompt
from datacreate.prompts.label_scoring import PermutedQuestion, label_question
from datacreate.runs.decisions import Decision
from datacreate.runs.log import Commit, LogLine, Record, SessionStart, example_line
from datacreate.runs.summary import RunStats
from datacreate.selection.embeddings import PassedVectors
from datacreate.selection.queue import (
    UNLIMITED_USES,
    ChainQueue,
    FarthestFirstQueue,
    LevelQueue,
    Parent,
    ParentQueue,
    TreeQueue,
)
from datacreate.selection.shots import Shots
from datacreate.verification.scoring import Scored, round_probabilities

_PRIOR_RATE, _PRIOR_REQUESTS = 0.8, 10
"""The share of examples that is expected to be accepted at the start, as if measured on this number of requests."""

_RATE_REQUESTS = 100
"""The accepted examples per request are averaged over about this number of the latest requests."""

_REQUEST_MARGIN = 1.05
"""Requests are made for this many times the missing examples, since some give fewer than expected."""


@dataclass(frozen=True)
class PendingRequest:
    """A request to submit."""

    number: int
    parent: Parent
    labels: tuple[Json, ...] | None  # one for each of its examples; None if no labels are assigned
    pseudo_labels: bool = False  # the verifier will assign the labels
    generator: int = 0  # index of the generator
    other_shots: tuple[Example, ...] = ()  # examples that the prompt shows beside the parent
    content: RequestContent = field(default_factory=RequestContent)
    attributes: Mapping[str, str] = field(default_factory=dict)  # dimension -> value

    @cached_property
    def example(self) -> Example:
        """The parent as an example; one without fields if the prompt shows none."""
        return Example(json.loads(self.parent.line or "{}"))

    @property
    def shown(self) -> tuple[Example, ...]:
        """The examples that the prompt shows, the parent first."""
        return (self.example, *self.other_shots) if self.parent.line else ()


@dataclass
class ParsedCompletion:
    """The items of a completion in order, and questions for the verifier. `Pipeline` adds the scores to these."""

    pending: PendingRequest
    completion: Completion
    items: tuple[Candidate | Reject, ...]
    origin: RequestOrigin
    questions: Mapping[int, PermutedQuestion]  # by index of the item
    unscored: int = 0  # scoring requests without a result
    scoring_tokens: int = 0


class RunState:
    """The state of a run. `to_submit` has the next requests in order; `Pipeline` takes them from the left."""

    def __init__(
        self, plan: RunPlan, count: int, filters: Sequence[Filter], vectors: PassedVectors | None = None
    ) -> None:
        spec = plan.spec
        self._plan = plan
        self._count = count
        self._filters = filters
        self._embedder = vectors.embedder if vectors else None
        self._format = plan.encoding.format
        self._encodings = {pseudo: replace(plan.encoding, pseudo_labels=pseudo) for pseudo in (False, True)}
        self._schema = lru_cache(maxsize=1024)(self._build_schema)
        coverage_vectors = vectors if plan.strategy.queue == "coverage" else None
        self._queue = _make_queue(plan, count, coverage_vectors)
        self._shots = Shots(plan.formatting_examples, spec.shots, self._format)
        self.stats = RunStats(spec, self._format)
        self.acceptance = Acceptance(self.stats, count, filters, coverage_vectors)
        self.to_submit: deque[PendingRequest] = deque()
        self._requests = 0  # made so far
        self._accepted_per_request = _PRIOR_RATE * spec.num_examples  # examples that wait included

    @property
    def finished(self) -> bool:
        return self.stats.accepted >= self._count

    def _make_requests(self) -> list[int]:
        """Add the next requests to `to_submit`; returns the numbers of their parents."""
        parents = []
        while self._needs_request and (parent := self._queue.next(self._requests, idle=not self._in_flight)):
            self._make_request(parent)
            parents.append(parent.number)
        return parents

    def _make_request(self, parent: Parent) -> None:
        labels, pseudo_labels = None, self.stats.pseudo_labels
        if (quotas := self.acceptance.quotas.labels) and not pseudo_labels:
            rng = self._rng("deal", self._requests)  # "deal" is part of the seed: do not rename it
            labels = tuple(quotas.assign(self._plan.spec.num_examples, rng))
        attributes = self.acceptance.quotas.assign_attributes(
            self._requests, self._accepted_per_request / _REQUEST_MARGIN, self._rng("attributes", self._requests)
        )
        pending = PendingRequest(
            self._requests,
            parent,
            labels,
            pseudo_labels,
            other_shots=self._shots.draw(parent, self._rng("shots", self._requests)),
            content=self._plan.content_of(self._requests, attributes),
            attributes=attributes,
        )
        self.to_submit.append(pending)
        self._requests += 1

    @property
    def _in_flight(self) -> int:
        """Requests that are not committed."""
        return self._requests - self.stats.requests

    @property
    def _needs_request(self) -> bool:
        """Whether another request is needed, given those in flight and the examples that earlier ones gave."""
        if not self._in_flight or self.finished:
            return not self.finished
        if self._in_flight >= self._plan.spec.max_in_flight:
            return False
        expected = self._accepted_per_request / _REQUEST_MARGIN
        awaits_label_noise_check = self.acceptance.awaits_label_noise_check
        if not awaits_label_noise_check and self.acceptance.quotas.need_request(expected):
            return True
        missing = self._count - self.stats.accepted - self.stats.waiting  # if all that wait will be accepted
        if (check := self.stats.label_noise_check) and awaits_label_noise_check:
            missing = max(missing, check.rows_to_test)
        return self._in_flight * self._accepted_per_request < _REQUEST_MARGIN * missing

    def _rng(self, purpose: str, request: int) -> random.Random:
        return random.Random(f"{self._plan.spec.seed}:{purpose}:{request}")

    def _build_schema(self, labels: tuple[Json, ...] | None, pseudo_labels: bool) -> str:
        return build_response_schema(self._encodings[pseudo_labels], self._plan.spec.num_examples, labels)

    def build_request(self, pending: PendingRequest) -> Request:
        spec = self._plan.spec
        encoding = self._encodings[pending.pseudo_labels]
        messages = chat_prompt(encoding, pending.shown, spec.num_examples, pending.content)
        schema = self._schema(pending.labels, pending.pseudo_labels)
        return Request(pending.number, messages, schema, self._plan.samplings[pending.generator])

    def parse(self, pending: PendingRequest, completion: Completion) -> ParsedCompletion:
        """The items of a completion, and questions for the verifier about those that pass the filters now."""
        items = self._parse_items(pending, completion)
        candidates = {index: item for index, item in enumerate(items) if isinstance(item, Candidate)}
        if self._embedder:  # one batch is faster than single texts later
            self._embedder.encode([candidate.compared_text for candidate in candidates.values()])
        for check in self._filters:
            check.prefetch(list(candidates.values()))
        shown = {Candidate.of(example.values, self._format).exact_key for example in pending.shown}
        origin = RequestOrigin(pending.number, shown, pending.attributes)
        questions = self._label_questions(candidates, origin)
        return ParsedCompletion(pending, completion, tuple(items), origin, questions)

    def _parse_items(self, pending: PendingRequest, completion: Completion) -> list[Candidate | Reject]:
        if completion.finish_reason == "error":
            return [Reject(RejectReason.NO_RESPONSE, shorten(completion.error or ""))]
        encoding = self._encodings[pending.pseudo_labels]
        if self._format.context_is_given:
            encoding = replace(encoding, passage=pending.content.passage or "")
        return parse_completion(
            completion.text,
            encoding,
            self._plan.spec.num_examples,
            truncated=completion.finish_reason == "length",
            keep_complete_items=self._plan.spec.recipe != "paper",
            longest_text=self._plan.samplings[pending.generator].longest_text,
        )

    def _label_questions(
        self, candidates: Mapping[int, Candidate], origin: RequestOrigin
    ) -> dict[int, PermutedQuestion]:
        """Questions for the verifier, by index of the item, about those that pass the filters now.

        Filters only get stricter: an item that is rejected now is also rejected by `judge`.
        """
        if not (verification := self._plan.spec.verification):
            return {}
        questions = {}
        for index, candidate in candidates.items():
            if self.acceptance.find_reject(candidate, origin):
                continue
            question = label_question(
                self._format,
                candidate.example.values,
                scored_by_letter=verification.scored_by_letter,
                instruction=self._plan.spec.instruction,
            )
            if question:
                questions[index] = PermutedQuestion(question, f"{self._plan.spec.seed}:{question.shown}")
        return questions

    def judge(self, parsed: ParsedCompletion) -> Commit:
        """Accept or reject each item, given all earlier commits."""
        pending, completion = parsed.pending, parsed.completion
        must_wait = self.acceptance.awaits_label_noise_check
        passed: list[Candidate] = []
        rejects: list[Reject] = []
        scored: list[Scored] = []
        for index, item in enumerate(parsed.items):
            result = item
            if isinstance(item, Candidate):
                scores = parsed.questions[index].mean() if index in parsed.questions else None
                result, verified = self.acceptance.judge(
                    item,
                    parsed.origin,
                    round_probabilities(scores) if scores else None,
                    has_label=not pending.pseudo_labels,
                    accepted=0 if must_wait else len(passed),
                )
                if verified:
                    scored.append(verified)
            if isinstance(result, Reject):
                rejects.append(result)
            else:
                passed.append(result)
        values = tuple(dict(candidate.example.values) for candidate in passed)
        return Commit(
            request=pending.number,
            parent=pending.example.id,
            depth=pending.parent.depth,
            accepted=() if must_wait else values,
            next_parents=tuple(self._choose_parents(pending, passed)),
            rejects=tuple(rejects),
            prompt_tokens=completion.prompt_tokens,
            generated_tokens=completion.generated_tokens,
            time=round(time.time(), 3),
            generator=pending.generator,
            scored=tuple(scored),
            scoring_tokens=parsed.scoring_tokens,
            waiting=values if must_wait else (),
            attributes=pending.attributes,
            thinking=completion.thinking,
            thinking_tokens=completion.thinking_tokens,
        )

    def _choose_parents(self, pending: PendingRequest, passed: Sequence[Candidate]) -> Sequence[int]:
        """The next parents, as indices into `passed`: the children of the request that passed the filters."""
        if not passed:
            return ()
        parent = self._plan.text_of(pending.example)
        children = [candidate.compared_text for candidate in passed]
        return self._plan.strategy.choose(parent, children, self._rng("choose", pending.number), self._embedder)

    def apply(self, record: SessionStart | Commit) -> list[int]:
        """Update the figures and the queue; returns the numbers of the parents of the next requests."""
        self._record(record)
        return self._make_requests()

    def _record(self, record: Record) -> None:
        self.stats.add_record(record)
        if isinstance(record, Decision):
            self.acceptance.apply_decision(record)
            self._shots.replace(record.removed, record.added)
        elif isinstance(record, Commit):
            self.acceptance.record(record)
            self._add_result(record)

    def _add_result(self, commit: Commit) -> None:
        """Update the rate of acceptance and the queue."""
        if commit.released:  # it was counted with all its examples
            dropped = len(commit.scored) - len(commit.accepted)
            # Over all requests: all that wait are released at once, more than the latest ones can have dropped.
            decrease = dropped / (_PRIOR_REQUESTS + self.stats.requests)
            self._accepted_per_request = max(0.0, self._accepted_per_request - decrease)
            return
        self.acceptance.quotas.end_request(commit.request)
        passed = len(commit.passed)
        averaged = min(_PRIOR_REQUESTS + self.stats.requests, _RATE_REQUESTS)
        self._accepted_per_request += (passed - self._accepted_per_request) / averaged
        lines = tuple(map(example_line, commit.waiting)) or commit.accepted_lines
        self._shots.add(lines)
        first = self.acceptance.passed - passed + 1
        parents = [Parent(first + i, lines[i], commit.depth + 1) for i in commit.next_parents]
        # Twice the number that this rate requires, as if no waiting example will be accepted.
        needed = math.ceil(2 * (self._count - self.stats.accepted) / max(1.0, self._accepted_per_request))
        self._queue.add_result(commit.request, parents, passed, needed)

    def replay(self, line: LogLine, path: str) -> None:
        """Apply a line of the log at `path`. Raises LogDamaged if it cannot follow the lines before it."""
        record, requests = line.record, self.to_submit
        if isinstance(record, Commit):
            expected = requests.popleft().number if requests and not record.released else None
            if record.request != (self.acceptance.next_released if record.released else expected):
                raise _cannot_follow(path, line, f"request {record.request}")
            self.acceptance.replay(record)
        self._record(record)
        for number in line.next:
            parent = self._queue.next(self._requests, idle=not self._in_flight, logged=number)
            if parent is None or parent.number != number:
                raise _cannot_follow(path, line, f"parent {number}")
            self._make_request(parent)


def _cannot_follow(path: str, line: LogLine, part: str) -> LogDamaged:
    return LogDamaged(
        f"{path}, line {line.number}: {part} cannot follow the lines before it; restore the file from a copy, or use "
        "another --run-dir"
    )


def _make_queue(plan: RunPlan, count: int, vectors: PassedVectors | None) -> ParentQueue:
    lines = [example_line(dict(example.values)) for example in plan.formatting_examples]
    spec = plan.spec
    # Without a formatting example, the root is a parent without a line, and its prompt shows no example.
    roots = [Parent(-index, line, 0) for index, line in enumerate(lines or [""])]
    # So that no more than half of a small run are children of the roots, as far as each is used once. The log names the
    # parents of earlier requests, also of those made for a smaller count.
    half = max(2, count // (2 * spec.num_examples))
    uses, root_uses = min(spec.max_parent_uses, half), min(spec.max_parent_uses, max(1, half // len(roots)))
    if vectors:
        return FarthestFirstQueue(roots, vectors.of_parent, max_parent_uses=uses, max_root_uses=root_uses)
    if spec.num_chains:
        return ChainQueue(roots, spec.num_chains)
    if plan.strategy.queue == "root":
        return TreeQueue(roots, UNLIMITED_USES)
    if spec.recipe == "paper":
        return LevelQueue(roots, spec.seed)
    return TreeQueue(roots, uses, root_uses)
