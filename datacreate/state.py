"""The state of a run: its statistics, its acceptance of examples, and the requests to submit.

`apply` updates it with a `Commit` (of `Acceptance`) and gives the parents of the next requests, which are logged with
it. `replay` does the same with a line of the log: a resumed run has the same state and the same requests, without
choosing, embedding or scoring twice.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from datacreate.acceptance import Acceptance, PendingRequest
from datacreate.engines.request import Request
from datacreate.errors import LogDamaged
from datacreate.filters.filter import Filter
from datacreate.formats.example import Json
from datacreate.formats.response import build_response_schema
from datacreate.plan import RunPlan
from datacreate.prompts.generation import chat_prompt
from datacreate.runs.decisions import Decision
from datacreate.runs.log import Commit, LogLine, LogRecord, example_line
from datacreate.runs.stats import RunStats
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

_PRIOR_RATE, _PRIOR_REQUESTS = 0.8, 10
"""The share of examples that is expected to be accepted at the start, as if measured on this number of requests."""

_RATE_REQUESTS = 100
"""The accepted examples per request are averaged over about this number of the latest requests."""

_REQUEST_MARGIN = 1.05
"""Requests are made for this many times the missing examples, since some give fewer than expected."""


class RunState:
    """The state of a run. `to_submit` has the next requests in order; `Pipeline` takes them from the left."""

    def __init__(
        self, plan: RunPlan, count: int, filters: Sequence[Filter], vectors: PassedVectors | None = None
    ) -> None:
        spec, task_format = plan.spec, plan.encoding.format
        self._plan = plan
        self._count = count
        self._encodings = {pseudo: replace(plan.encoding, pseudo_labels=pseudo) for pseudo in (False, True)}
        self._schema = lru_cache(maxsize=1024)(self._build_schema)
        self._queue = _make_queue(plan, count, vectors)
        self._shots = Shots(plan.formatting_examples, spec.shots, task_format)
        self.stats = RunStats(spec, task_format)
        self.acceptance = Acceptance(plan, self.stats, count, filters, vectors)
        self.to_submit: deque[PendingRequest] = deque()
        self._requests = 0  # made so far
        self._accepted_per_request = _PRIOR_RATE * spec.num_examples  # examples that wait included

    @property
    def finished(self) -> bool:
        return self.stats.accepted >= self._count

    def apply(self, record: LogRecord) -> list[int]:
        """Update the state with a record, and make the next requests; returns the numbers of their parents."""
        self._add_record(record)
        parents: list[int] = []
        while self._needs_request and (parent := self._next_parent()):
            self._make_request(parent)
            parents.append(parent.number)
        return parents

    def _add_record(self, record: LogRecord) -> None:
        self.stats.add_record(record)
        if isinstance(record, Decision):
            self.acceptance.apply_decision(record)
            self._shots.replace(record.removed, record.added)
        elif isinstance(record, Commit):
            self._add_result(record)

    def _next_parent(self, logged: int | None = None) -> Parent | None:
        return self._queue.next(self._requests, idle=not self._in_flight, logged=logged)

    def replay(self, line: LogLine, path: str) -> None:
        """Apply a line of the log at `path`. Raises LogDamaged if it cannot follow the lines before it."""
        record = line.record
        if isinstance(record, Commit):
            expected = self.acceptance.next_released
            if not record.released:
                expected = self.to_submit.popleft().number if self.to_submit else None
            if record.request != expected:
                raise _cannot_follow(path, line, f"request {record.request}")
            self.acceptance.replay(record)
        self._add_record(record)
        for number in line.parents:
            parent = self._next_parent(number)
            if parent is None or parent.number != number:
                raise _cannot_follow(path, line, f"parent {number}")
            self._make_request(parent)

    def _make_request(self, parent: Parent) -> None:
        quotas, spec, number = self.acceptance.quotas, self._plan.spec, self._requests
        encoding, labels = self._encodings[self.stats.pseudo_labels], None
        if quotas.labels and not encoding.pseudo_labels:
            rng = random.Random(f"{spec.seed}:deal:{number}")  # "deal": for labels; a resumed run needs the same seed
            labels = tuple(quotas.labels.assign(spec.num_examples, rng))
        attributes: Mapping[str, str] = {}
        if spec.attributes:
            rng = random.Random(f"{spec.seed}:attributes:{number}")
            attributes = quotas.assign_attributes(number, self._accepted_per_request / _REQUEST_MARGIN, rng)
        content = self._plan.content_of(number, attributes)
        shots = self._shots.draw(parent, f"{spec.seed}:shots:{number}")
        self.to_submit.append(PendingRequest(number, parent, encoding, labels, content, attributes, shots))
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

    def _build_schema(self, labels: tuple[Json, ...] | None, pseudo_labels: bool) -> str:
        return build_response_schema(self._encodings[pseudo_labels], self._plan.spec.num_examples, labels)

    def build_request(self, pending: PendingRequest) -> Request:
        spec = self._plan.spec
        messages = chat_prompt(pending.encoding, pending.shown, spec.num_examples, pending.content)
        schema = self._schema(pending.labels, pending.encoding.pseudo_labels)
        return Request(pending.number, messages, schema, self._plan.samplings[pending.generator])

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
        parents = [Parent(first + i, lines[i], commit.parent_depth + 1) for i in commit.next_parents]
        # Twice the number that this rate requires, as if no waiting example will be accepted.
        needed = math.ceil(2 * (self._count - self.stats.accepted) / max(1.0, self._accepted_per_request))
        self._queue.add_result(commit.request, parents, passed, needed)


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
    if plan.strategy.queue == "coverage":
        assert vectors, "the strategy needs an embedder"
        return FarthestFirstQueue(roots, vectors.of_parent, max_parent_uses=uses, max_root_uses=root_uses)
    if spec.num_chains:
        return ChainQueue(roots, spec.num_chains)
    if plan.strategy.queue == "root":
        return TreeQueue(roots, UNLIMITED_USES)
    if spec.recipe == "paper":
        return LevelQueue(roots, spec.seed)
    return TreeQueue(roots, uses, root_uses)
