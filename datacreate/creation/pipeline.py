"""Keeps the servers busy: submits requests, has the examples of completions scored, and returns these in order.

Verification overlaps with generation: the examples of a completion that pass the filters are scored by the verifier
while the next completions are generated. The verifier may be one of the models that generate. With several models,
the one with the largest share of free capacity takes the next request.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from datacreate.creation.acceptance import ParsedCompletion
from datacreate.creation.requests import PendingRequest
from datacreate.creation.run_models import ModelClients
from datacreate.creation.state import RunState
from datacreate.engines.model_client import ModelClient
from datacreate.engines.request import Completion, scoring_request
from datacreate.formats.candidate import Candidate
from datacreate.prompts.label_scoring import PermutedPrompt

_SHARED_POLL_SECONDS = 0.02
"""Poll timeout when several models are busy."""


class _Scoring(NamedTuple):
    """A label prompt in one of its permutations. Those of the oldest request are sent first."""

    # A heap compares the fields in this order.
    request_number: int  # the request that wrote the example
    number: int  # counts the scoring requests for its examples, from 0
    label_prompt: PermutedPrompt
    permutation: int


class Pipeline:
    """The requests that are in flight, and the completions that are not committed yet.

    The loop calls `submit` and `poll` again and again, and commits what `next_completed` returns.
    """

    def __init__(self, state: RunState, clients: ModelClients) -> None:
        self._state = state
        self._generators = clients.generators
        self._verifier = clients.verifier
        self._in_flight: dict[ModelClient, int] = dict.fromkeys((*clients.generators, clients.verifier), 0)
        self._next = state.stats.requests  # the number of the request that `next_completed` returns next
        self._generating: dict[int, PendingRequest] = {}
        self._to_score: list[_Scoring] = []  # a heap
        self._in_scoring: dict[int, _Scoring] = {}  # by the id of the scoring request
        self._parsed: dict[int, ParsedCompletion] = {}
        self._scoring_ids = count(-2, -1)  # generation uses ids from 0, the server tests use -1

    def submit(self) -> None:
        """Send scoring requests, then the requests of `RunState.to_submit`, until no model has free capacity."""
        while self._to_score and self._free_share(self._verifier) > 0:
            scoring, scoring_id = heappop(self._to_score), next(self._scoring_ids)
            messages, choices = scoring.label_prompt.messages_and_choices(scoring.permutation)
            self._verifier.submit(scoring_request(scoring_id, messages, choices))
            self._in_scoring[scoring_id] = scoring
            self._in_flight[self._verifier] += 1
        while self._state.to_submit:
            shares = [self._free_share(generator) for generator in self._generators]
            turn = self._state.to_submit[0].number % len(shares)  # equally free models take turns
            index = max((*range(turn, len(shares)), *range(turn)), key=shares.__getitem__)
            if shares[index] <= 0:
                break
            pending = replace(self._state.to_submit.popleft(), generator=index)
            generator = self._generators[index]
            generator.submit(self._state.build_request(pending))
            self._generating[pending.number] = pending
            self._in_flight[generator] += 1

    def _free_share(self, client: ModelClient) -> float:
        """The share of a model's capacity that is free, from 0 to 1."""
        return 1 - self._in_flight[client] / client.max_in_flight

    def poll(self, timeout_seconds: float) -> None:
        """Process the completions that arrived, waiting up to `timeout_seconds` for the first.

        Raises EngineError if a model's servers fail.
        """
        busy = [client for client, requests in self._in_flight.items() if requests]
        for client in busy:
            for completion in client.poll(timeout_seconds if len(busy) == 1 else _SHARED_POLL_SECONDS):
                self._in_flight[client] -= 1
                if completion.request_id < 0:
                    self._add_scores(completion)
                else:
                    self._add_completion(completion)

    def _add_completion(self, completion: Completion) -> None:
        """Parse the completion of a generation request, and queue the label prompts of its examples."""
        number = completion.request_id
        self._parsed[number] = parsed = self._state.parse(self._generating.pop(number), completion)
        for label_prompt in filter(None, (prompt for _, prompt in parsed.items)):
            for permutation in label_prompt.permutations:
                heappush(self._to_score, _Scoring(number, parsed.unscored, label_prompt, permutation))
                parsed.unscored += 1

    def _add_scores(self, completion: Completion) -> None:
        """Add the scores of a scoring request to its label prompt."""
        scoring = self._in_scoring.pop(completion.request_id)
        scoring.label_prompt.add_scores(scoring.permutation, completion.scores)
        parsed = self._parsed[scoring.request_number]
        parsed.unscored -= 1
        parsed.scoring_tokens += completion.prompt_tokens

    @property
    def uncommitted(self) -> tuple[int, int]:
        """How many valid examples and generated tokens have arrived that `next_completed` has not returned yet."""
        waiting = self._parsed.values()
        examples = sum(isinstance(item, Candidate) for parsed in waiting for item, _ in parsed.items)
        return examples, sum(parsed.completion.generated_tokens for parsed in waiting)

    def next_completed(self) -> ParsedCompletion | None:
        """Remove and return the next completion in the order of requests; None until it has arrived with all scores."""
        parsed = self._parsed.get(self._next)
        if parsed is None or parsed.unscored:
            return None
        self._next += 1
        return self._parsed.pop(parsed.request.number)

    def abort(self) -> None:
        """Cancel all requests in flight."""
        in_flight = [*self._generating, *self._in_scoring]
        for client in self._in_flight:
            client.abort(in_flight)
