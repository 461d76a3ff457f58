"""Requests, completions, and the Engine protocol.

An engine streams: requests are submitted one at a time, and completions are returned as they finish, so that
the server's batch stays full (continuous batching).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

FinishReason = Literal["stop", "length", "error"]

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled. None means neutral: the setting has no effect."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True)
class Request:
    """One chat prompt, answered by generating text or by scoring choices.

    `schema` is the JSON Schema, as text, that generated text must follow. With `choices` no text is
    generated: each choice gets the probability that the answer begins with its first token.
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
    """The answer to one request. With `finish_reason` "error" the text is empty and `error` says why.

    `scores` are the probabilities of the request's choices; they add up to 1.
    """

    request_id: int
    text: str
    finish_reason: FinishReason
    prompt_tokens: int = 0
    generated_tokens: int = 0
    error: str | None = None
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Check:
    """Requests with known answers. `fault` returns what is wrong with the completions, or None."""

    requests: tuple[Request, ...]
    fault: Callable[[Sequence[Completion]], str | None]


class Engine(Protocol):
    """A source of completions. It starts its servers, or connects to them, when a method first needs them.

    Methods raise EngineError when the engine cannot be used any more.
    """

    @property
    def capacity(self) -> int:
        """How many requests in flight keep the servers busy: what they process at once, and a short queue."""

    @property
    def max_context(self) -> int:
        """The maximum number of tokens of a prompt and its answer together."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """For the record, as JSON: model, capacity, versions, `urls` of remote servers."""

    def count_tokens(self, messages: Messages) -> int:
        """The length of the prompt in tokens, including the chat template."""

    def have_distinct_first_tokens(self, choices: Sequence[str]) -> bool:
        """Whether each choice begins with a different token, so that they can be scored."""

    def start(self, checks: Sequence[Check] = ()) -> None:
        """Return when the servers run and pass these checks."""

    def submit(self, request: Request) -> None:
        """Submit a request; returns at once."""

    def poll(self, timeout_seconds: float) -> list[Completion]:
        """Completions finished since the last call, waiting up to `timeout_seconds` for one."""

    def abort(self, request_ids: Iterable[int]) -> None:
        """Cancel requests; unfinished ones give no completion."""

    def close(self) -> None:
        """Stop servers and free resources; safe to call twice."""
