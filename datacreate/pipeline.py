"""Requests out, drafts back in the order of their requests, verified where they are to be.

Verification streams behind writing: as soon as an answer is there, what passes the cheap checks is
scored by the verifier, which may be an engine that writes or another one, while the next answers
are being written. Engines that write take turns by request.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count

from datacreate.engines.base import Completion, Engine, scoring
from datacreate.prompts.label_scoring import (
    NUM_PERMUTATIONS,
    LabelQuestion,
    mean_probabilities,
    option_permutations,
)
from datacreate.run_models import Engines
from datacreate.state import ParsedCompletion, PendingRequest, RunState

_TURN_SECONDS = 0.02
"""How long one engine is waited for while another, too, is at work."""


@dataclass
class _Pending:
    """A draft whose examples are being scored, and what has come back of it."""

    draft: ParsedCompletion
    left: int  # requests
    scores: dict[int, list[tuple[float, ...]]] = field(default_factory=dict)  # item -> its turns
    tokens: int = 0

    def verified(self) -> ParsedCompletion:
        """The draft with the probabilities of every item that was scored in both orders."""
        scored = {
            item: mean_probabilities(turns)
            for item, turns in self.scores.items()
            if len(turns) == NUM_PERMUTATIONS
        }
        return replace(self.draft, scores=scored, scoring_tokens=self.tokens)


@dataclass(frozen=True)
class _Score:
    """One scoring request: of which draft, which of its items, with the options in which order."""

    request: int
    item: int
    question: LabelQuestion
    order: tuple[int, ...]


class Pipeline:
    """What is out at the engines, and what is back."""

    def __init__(self, ledger: RunState, engines: Engines) -> None:
        self._ledger = ledger
        self._writers = engines.writers
        self._verifier = engines.verifier
        self._max_parent_uses: deque[PendingRequest] = (
            deque()
        )  # due and not yet handed on, in order of request
        self._due: tuple[deque[PendingRequest], ...] = tuple(
            deque() for _ in engines.writers
        )  # not yet submitted
        self._engines = {id(engine): engine for engine in (*engines.writers, engines.verifier)}
        self._out: dict[int, int] = dict.fromkeys(self._engines, 0)  # requests at each engine
        self._writing: dict[int, PendingRequest] = {}
        self._to_score: list[tuple[int, int, _Score]] = []  # a heap: what is committed next comes first
        self._scoring: dict[int, _Score] = {}
        self._pending: dict[int, _Pending] = {}
        self._ready: dict[int, ParsedCompletion] = {}
        self._ids = count(-2, -1)  # scoring has the numbers that writing has not; -1 is the self-test's

    def feed(self) -> None:
        """Hand in as much as the engines hold: what is to be scored first, then what is due."""
        while self._to_score and self._room(self._verifier):
            _, _, score = heappop(self._to_score)
            number = next(self._ids)
            self._verifier.submit(scoring(number, *score.question.prompt(score.order)))
            self._scoring[number] = score
            self._out[id(self._verifier)] += 1
        while self._ledger.due:
            ask = self._ledger.due.popleft()
            self._max_parent_uses.append(ask)
            self._due[ask.place.request % len(self._writers)].append(ask)
        for writer, due in zip(self._writers, self._due, strict=True):
            while due and self._room(writer):
                ask = due.popleft()
                writer.submit(self._ledger.request(ask))
                self._writing[ask.place.request] = ask
                self._out[id(writer)] += 1

    def _room(self, engine: Engine) -> bool:
        return self._out[id(engine)] < engine.capacity

    def poll(self, timeout_seconds: float) -> None:
        """Take in what has come back, waiting up to `timeout_seconds` for something."""
        busy = [engine for key, engine in self._engines.items() if self._out[key]]
        for engine in busy:
            for completion in engine.poll(timeout_seconds if len(busy) == 1 else _TURN_SECONDS):
                self._out[id(engine)] -= 1
                if completion.request_id < 0:
                    self._scored(completion)
                else:
                    self._written(completion)

    def _written(self, completion: Completion) -> None:
        ask = self._writing.pop(completion.request_id)
        draft = self._ledger.read(ask, completion)
        if not draft.questions:
            self._ready[completion.request_id] = draft
            return
        request = completion.request_id
        for item, question in draft.questions.items():
            orders = option_permutations(len(question.options), f"{self._ledger.seed}:{question.shown}")
            for turn, order in enumerate(orders):
                score = _Score(request, item, question, order)
                heappush(self._to_score, (request, NUM_PERMUTATIONS * item + turn, score))
        self._pending[request] = _Pending(draft, NUM_PERMUTATIONS * len(draft.questions))

    def _scored(self, completion: Completion) -> None:
        score = self._scoring.pop(completion.request_id)
        pending = self._pending[score.request]
        pending.left -= 1
        pending.tokens += completion.prompt_tokens
        if completion.scores:
            placed = score.question.in_option_order(score.order, completion.scores)
            pending.scores.setdefault(score.item, []).append(placed)
        if not pending.left:
            self._ready[score.request] = self._pending.pop(score.request).verified()

    def next(self) -> ParsedCompletion | None:
        """The next draft in the order of requests, or None while it is not there."""
        if not self._max_parent_uses or self._max_parent_uses[0].place.request not in self._ready:
            return None
        return self._ready.pop(self._max_parent_uses.popleft().place.request)

    def abort(self) -> None:
        """Give up all that is out."""
        out = [*self._writing, *self._scoring]
        for engine in self._engines.values():
            engine.abort(out)
