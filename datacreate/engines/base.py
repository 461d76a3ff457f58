"""What creation asks of an engine, and what it gets back.

An engine streams: requests go in one at a time, completions come out as they finish, so that
the batch never drains between requests or levels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

FinishReason = Literal["stop", "length", "error"]

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. None leaves a setting to the engine's default (off)."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True)
class Request:
    """One chat prompt, to be answered by writing or by scoring.

    `schema` is the JSON Schema, as text, that what is written must hold to. With `choices` nothing
    is written: each is given the probability that the answer begins with its first token.
    """

    id: int
    messages: Messages
    schema: str | None
    sampling: Sampling
    choices: tuple[str, ...] = ()


def scoring(id: int, messages: Messages, choices: tuple[str, ...]) -> Request:
    """The request that scores `choices` as answers."""
    return Request(id, messages, None, Sampling(max_tokens=1, temperature=0.0), choices)


@dataclass(frozen=True)
class Completion:
    """The answer to one request; with `finish_reason` "error" the text is empty and `error` says why.

    `scores` are the probabilities of the request's choices, which add up to 1.
    """

    request_id: int
    text: str
    finish_reason: FinishReason
    prompt_tokens: int = 0
    generated_tokens: int = 0
    error: str | None = None
    scores: tuple[float, ...] = ()


def shares(logprobs: Sequence[float]) -> tuple[float, ...]:
    """Probabilities among these alone, from log-probabilities among all tokens."""
    most = max(logprobs)
    weights = [math.exp(logprob - most) for logprob in logprobs]
    return tuple(weight / sum(weights) for weight in weights)


class Engine(Protocol):
    """A source of completions. Methods raise EngineError if the engine has died."""

    @property
    def capacity(self) -> int:
        """How many requests are worth having in flight at once."""

    @property
    def copies(self) -> int:
        """How many of the model are loaded here, side by side; 1 where servers have it."""

    @property
    def urls(self) -> Sequence[str]:
        """Addresses of the servers that are asked; none where the model is loaded here."""

    @property
    def has_chat_template(self) -> bool:
        """Whether prompts go through one; a base model's are plain text. Works before `start`."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """How the model is loaded, resolved; JSON. Only ever recorded: nothing is decided by it."""

    @property
    def max_context(self) -> int:
        """The most tokens a prompt and its answer may have together."""

    def count_tokens(self, messages: Messages) -> int:
        """The length of the prompt in tokens, chat template included; works before `start`."""

    def tells_apart(self, choices: Sequence[str]) -> bool:
        """Whether each of these begins with another token, so that they can be scored.

        Works before `start`.
        """

    def start(self) -> None:
        """Load the model; returns when requests can be submitted."""

    def submit(self, request: Request) -> None:
        """Hand in a request; returns at once."""

    def poll(self, timeout_seconds: float) -> list[Completion]:
        """Completions that have finished since the last call, waiting up to `timeout_seconds` for one."""

    def abort(self, request_ids: Iterable[int]) -> None:
        """Give up requests; those that had not finished give no completion any more."""

    def close(self) -> None:
        """Free everything the engine holds; safe to call twice."""
