"""Requests to a model, their completions, and tests of a server.

A server has `slots`: the requests that it processes at once. `max_in_flight` is how many are sent to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "error"]

DEFAULT_THINKING = 2048  # tokens that a model may think before it answers, where no limit is given

Messages = Sequence[dict[str, str]]


def max_in_flight(slots: int) -> int:
    """How many requests keep a server busy: one for each slot, and an eighth more in its queue.

    With the queue, no slot is idle while a response and the next request are in transit.
    """
    return slots + -(-slots // 8)


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled, and limits of the completion. None: no effect, or no limit."""

    max_tokens: int  # of the completion
    thinking: int | None = None  # most tokens of thinking before the text; None: it does not think
    longest_text: int | None = None  # most characters of one text in the completion, if the server can end it
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True)
class Request:
    """One chat prompt, answered by generating text or by scoring choices.

    `schema` is the JSON Schema, as text, that generated text must follow. With `choices` no text is
    generated: each choice gets the probability that the completion begins with its first token.
    """

    id: int
    messages: Messages
    schema: str | None
    sampling: Sampling
    choices: tuple[str, ...] = ()


def scoring_request(request_id: int, messages: Messages, choices: tuple[str, ...]) -> Request:
    """The request that scores `choices` as completions."""
    return Request(request_id, messages, None, Sampling(max_tokens=1, temperature=0.0), choices)


@dataclass(frozen=True)
class Completion:
    """The result of one request. With `finish_reason` "error" the text is empty and `error` says why.

    `scores` are the probabilities of the request's choices; they add up to 1. `thoughts` are those of the model
    before the text; its tokens are among the generated ones.
    """

    request_id: int
    text: str
    finish_reason: FinishReason
    prompt_tokens: int = 0
    generated_tokens: int = 0
    error: str | None = None
    scores: tuple[float, ...] = ()
    thoughts: str = ""
    thinking_tokens: int = 0


@dataclass(frozen=True)
class ServerTest:
    """Requests whose right completions are known; `problem` says why completions are wrong, None if they are right."""

    requests: tuple[Request, ...]
    problem: Callable[[Sequence[Completion]], str | None]
