"""The state of a run: its statistics, its acceptance of examples, and the requests to submit.

The state changes with each line of the log, in two ways. `advance` makes a new line: it decides about the examples of a
completion, chooses the parents of the next requests, and writes both to the log. `replay` takes such a line in a later
session, and makes the requests with the parents that it names. So a resumed run has the same state and the same
requests, without choosing, embedding or scoring twice.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from datacreate.creation.acceptance import Acceptance, ParsedCompletion
from datacreate.creation.plan import RunPlan
from datacreate.creation.requests import PendingRequest
from datacreate.engines.request import Request
from datacreate.errors import LogDamaged
from datacreate.filters.filter import Filter
from datacreate.formats.response import build_response_schema
from datacreate.prompts.generation import chat_prompt
from datacreate.runs.decisions import Decision
from datacreate.runs.log import Commit, LogLine, LogRecord, LogWriter, SessionStart, example_line
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
"""At the start this share of the examples is expected to be accepted, as if it had been measured on this many
requests."""

_RATE_REQUESTS = 100  # the accepted examples per request are averaged over about this many of the latest requests

_REQUEST_MARGIN = 1.05
"""Requests are made for this many times the missing examples, since some give fewer than expected."""


class RunState:
    """The state of a run after the records so far.

    `to_submit` has the requests that are made and not submitted, in order; `Pipeline` takes them from the left.
    `parse` is that of `Acceptance`.
    """

    def __init__(
        self, plan: RunPlan, count: int, filters: Sequence[Filter], vectors: PassedVectors | None = None
    ) -> None:
        spec, task_format = plan.spec, plan.encoding.format
        self._plan = plan
        self._count = count
        self._encodings = {pseudo: replace(plan.encoding, pseudo_labels=pseudo) for pseudo in (False, True)}
        self._schema = lru_cache(maxsize=1024)(
            lambda labels, pseudo: build_response_schema(self._encodings[pseudo], spec.num_examples, labels)
        )
        self._queue = _make_queue(plan, count, vectors)
        self._shots = Shots(plan.formatting_examples, spec.shots, task_format)
        self.stats = RunStats(spec, task_format)
        self._acceptance = Acceptance(plan, self.stats, count, filters, vectors)
        self.parse = self._acceptance.parse
        self.to_submit: deque[PendingRequest] = deque()
        self._requests = 0  # number of requests made so far
        self._accepted_per_request = _PRIOR_RATE * spec.num_examples  # an average that includes waiting examples

    @property
    def is_finished(self) -> bool:
        """Whether the run has all of its examples."""
        return self.stats.accepted >= self._count

    def advance(self, event: SessionStart | ParsedCompletion, log: LogWriter) -> None:
        """Log the start of a session or the commit of a completion; then all commits of examples that waited, if any.

        After each of these records as many requests are made as are needed then; its line names their parents. The
        completion must be that of the earliest uncommitted request, with all its scores.
        """
        record: LogRecord | None = event if isinstance(event, SessionStart) else self._acceptance.make_commit(event)
        while record:
            self._add_record(record)
            parents: list[int] = []
            while self._needs_request and (parent := self._next_parent()):
                self._make_request(parent)
                parents.append(parent.number)
            log.write([record], parents)
            record = None if self.is_finished else self._acceptance.release()

    def _add_record(self, record: LogRecord) -> None:
        """Add a record to all parts of the state but `_acceptance`, which has it already."""
        self.stats.add_record(record)
        if isinstance(record, Decision):
            self._shots.replace(record.removed, record.added)
        elif isinstance(record, Commit):
            self._add_result(record)

    def _next_parent(self, logged: int | None = None) -> Parent | None:
        """The parent of the next request, the one with the logged number if given; None if a commit must come first."""
        return self._queue.next(self._requests, is_idle=not self._uncommitted, logged=logged)

    def replay(self, line: LogLine, path: str) -> None:
        """Bring the state to where `advance` brought it when this line of the log was written.

        `path` is the log, for errors. Raises LogDamaged if the line cannot follow the lines before it.
        """
        record = line.record
        if isinstance(record, Commit):
            waiting, to_submit = self.stats.verification.waiting, self.to_submit
            if record.released:
                expected = waiting[0].request_number if waiting else None
            else:
                expected = to_submit.popleft().number if to_submit else None
            if record.request_number != expected:
                raise _cannot_follow(path, line, f"request {record.request_number}")
        if isinstance(record, Commit | Decision):
            self._acceptance.add_logged(record)
        self._add_record(record)
        for number in line.parents:
            parent = self._next_parent(number)
            if parent is None or parent.number != number:
                raise _cannot_follow(path, line, f"parent {number}")
            self._make_request(parent)

    def _make_request(self, parent: Parent) -> None:
        """Make the next request and add it to `to_submit`. Random choices depend only on its number and the seed."""
        quotas, spec, number = self._acceptance.quotas, self._plan.spec, self._requests
        encoding, labels = self._encodings[self.stats.verification.check.pseudo_labels], None
        if quotas.labels and not encoding.pseudo_labels:
            rng = random.Random(f"{spec.seed}:deal:{number}")  # "deal" must stay: old runs are resumed
            labels = tuple(quotas.labels.assign(spec.num_examples, rng))
        rng = random.Random(f"{spec.seed}:attributes:{number}")
        attributes = quotas.assign_attributes(number, self._accepted_per_request / _REQUEST_MARGIN, rng)
        content = self._plan.content_of(number, attributes)
        shots = self._shots.draw(parent, f"{spec.seed}:shots:{number}")
        self.to_submit.append(PendingRequest(number, parent, encoding, labels, content, attributes, shots))
        self._requests += 1

    @property
    def _uncommitted(self) -> int:
        """The number of requests that are made and not committed yet."""
        return self._requests - self.stats.requests

    @property
    def _needs_request(self) -> bool:
        """Whether the uncommitted requests are expected to give too few examples, and another one may be made."""
        if not self._uncommitted or self.is_finished:
            return not self.is_finished
        if self._uncommitted >= self._plan.spec.max_uncommitted:
            return False
        verification = self.stats.verification
        missing = self._count - self.stats.accepted - verification.num_waiting  # if all waiting ones will be accepted
        if verification.must_wait:
            missing = max(missing, verification.check.rows_to_test)
        elif self._acceptance.quotas.needs_request(self._accepted_per_request / _REQUEST_MARGIN):
            return True
        return self._uncommitted * self._accepted_per_request < _REQUEST_MARGIN * missing

    def build_request(self, pending: PendingRequest) -> Request:
        """The request for the client: prompt, schema of the response, and sampling of its generator."""
        spec = self._plan.spec
        messages = chat_prompt(pending.encoding, pending.shown, spec.num_examples, pending.content)
        schema = self._schema(pending.labels, pending.encoding.pseudo_labels)
        return Request(pending.number, messages, schema, self._plan.samplings[pending.generator])

    def _add_result(self, commit: Commit) -> None:
        """Update the average of accepted examples, the examples for `--shots`, and the queue of parents."""
        if commit.released:  # it was counted with all its examples
            dropped = len(commit.scored) - len(commit.accepted)
            # It is averaged over all requests: all waiting examples are released at once, not only those of the latest
            # requests.
            decrease = dropped / (_PRIOR_REQUESTS + self.stats.requests)
            self._accepted_per_request = max(0.0, self._accepted_per_request - decrease)
            return
        self._acceptance.quotas.end_request(commit.request_number)
        passed = len(commit.passed)
        averaged = min(_PRIOR_REQUESTS + self.stats.requests, _RATE_REQUESTS)
        self._accepted_per_request += (passed - self._accepted_per_request) / averaged
        self._shots.add(commit.passed)
        first = self._acceptance.passed - passed + 1
        lines = tuple(map(example_line, commit.waiting)) or commit.accepted_lines
        parents = [Parent(first + i, lines[i], commit.parent_depth + 1) for i in commit.chosen_children]
        self._queue.add_result(commit.request_number, parents, passed)


def _cannot_follow(path: str, line: LogLine, part: str) -> LogDamaged:
    """The error for a line whose `part` (a request or a parent) is not the next one."""
    return LogDamaged(
        f"{path}, line {line.number}: {part} cannot follow the lines before it; restore the file from a copy, or use "
        "another --run-dir"
    )


def _make_queue(plan: RunPlan, count: int, vectors: PassedVectors | None) -> ParentQueue:
    """The queue of the run's strategy, with the formatting examples as first parents."""
    lines = [example_line(dict(example.values)) for example in plan.formatting_examples]
    spec = plan.spec
    # Without a formatting example, the root is a parent without a line, and its prompt shows no example.
    roots = [Parent(-index, line, 0) for index, line in enumerate(lines or [""])]
    # So that no more than half of a small run are children of the roots, as far as each is used once. The log names the
    # parents of earlier requests, including those made for a smaller count.
    half = max(2, count // (2 * spec.num_examples))
    uses, root_uses = min(spec.max_parent_uses, half), min(spec.max_parent_uses, max(1, half // len(roots)))
    if plan.strategy.queue == "farthest_first":
        assert vectors, "the strategy needs an embedder"
        return FarthestFirstQueue(roots, vectors.of_parent, max_parent_uses=uses, max_root_uses=root_uses)
    if spec.num_chains:
        return ChainQueue(roots, spec.num_chains)
    if plan.strategy.queue == "root":
        return TreeQueue(roots, UNLIMITED_USES)
    if plan.method.completes_levels:
        return LevelQueue(roots, spec.seed)
    return TreeQueue(roots, uses, root_uses)
