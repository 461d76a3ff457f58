"""What goes over the wire, and what an answer says: of the request, and of the server.

The chat completions API, with the schema in the standard `response_format`. What only vLLM knows
(`logprob_token_ids`, switches of the chat template) is sent only where it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from datacreate.engines.base import Completion, FinishReason, Messages, Request, shares
from datacreate.engines.openai.addresses import KEY
from datacreate.tasks.prompt import without_system

_UNLIKELY = -20.0
"""The log-probability of a choice that a server does not name among the likeliest."""

_MOST_NAMED = 20
"""How many of the likeliest tokens the API names at most."""


class Unwell(Exception):
    """A server could not answer, now; another may. `counts` where the request may be the reason."""

    def __init__(self, why: str, *, counts: bool = True, after: float = 0.0) -> None:
        super().__init__(why)
        self.counts = counts
        self.after = after  # seconds that it asks to be left alone


class Full(Unwell):
    """A server that has no room for this request, while it goes on with those that it has."""


class Unfit(Exception):
    """A server that will not do, however often it is asked: why, and what to do."""


@dataclass(frozen=True)
class Wire:
    """How a model is asked: its name, and the switches of its chat template.

    Before a server has been looked at there may be several names, each of which will do; none means
    whatever it serves.
    """

    names: tuple[str, ...]
    template: Mapping[str, Any] = field(default_factory=dict)
    has_system: bool = True  # whether the chat template has a system role

    def messages(self, messages: Messages) -> list[dict[str, str]]:
        """The messages as this model takes them."""
        return list(messages) if self.has_system else without_system(messages)

    def body(self, request: Request, tokens: Sequence[int] | None = None) -> dict[str, Any]:
        """The JSON of a request; `tokens` are the first ones of its choices, where they are known."""
        sampling = {name: value for name, value in vars(request.sampling).items() if value is not None}
        body: dict[str, Any] = {
            "model": self.names[0],
            "messages": self.messages(request.messages),
            **sampling,
        }
        if self.template:
            body["chat_template_kwargs"] = dict(self.template)
        if request.schema is not None:
            schema = {"name": "examples", "schema": _schema(request.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if request.choices:
            body |= {"logprobs": True, "top_logprobs": _MOST_NAMED}
            if tokens is not None:
                body |= {
                    "top_logprobs": min(_MOST_NAMED, len(tokens)),
                    "logprob_token_ids": list(tokens),
                    "return_tokens_as_token_ids": True,
                }
        return body


@lru_cache(maxsize=1024)
def _schema(text: str) -> Any:
    return json.loads(text)


def read(request: Request, document: Any, tokens: Sequence[int] | None = None) -> Completion:
    """The completion in a server's answer. Unwell if it is none: garbage, or cut off."""
    try:
        choice, usage = document["choices"][0], document.get("usage") or {}
        used = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        if request.choices:
            named = choice["logprobs"]["content"][0]["top_logprobs"]
            scores = _named(named, tokens) if tokens is not None else _spelled(named, request.choices)
            return Completion(request.id, "", "stop", used[0], 0, None, scores)
        text, reason = choice["message"]["content"] or "", str(choice["finish_reason"])
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        raise Unwell("it sent something that is no answer") from None
    finish: FinishReason = "stop" if reason == "stop" else "length" if reason == "length" else "error"
    if finish == "error":
        return Completion(request.id, "", finish, *used, f"finish reason {reason}")
    return Completion(request.id, str(text), finish, *used)


def _named(named: list[dict[str, Any]], tokens: Sequence[int]) -> tuple[float, ...]:
    """Probabilities of the choices by their tokens' ids, which vLLM gives as `token_id:123`."""
    found = {str(each["token"]): float(each["logprob"]) for each in named}
    return shares([found.get(f"token_id:{token}", _UNLIKELY) for token in tokens])


def _spelled(named: list[dict[str, Any]], choices: Sequence[str]) -> tuple[float, ...]:
    """The same by the tokens' spelling, the likelier of two that begin a choice."""
    best = [_UNLIKELY] * len(choices)
    for each in named:
        spelled, logprob = str(each["token"]).strip(), float(each["logprob"])
        meant = [place for place, choice in enumerate(choices) if spelled and choice.startswith(spelled)]
        if len(meant) == 1:
            best[meant[0]] = max(best[meant[0]], logprob)
    return shares(best)


def refusal(status: int, said: str) -> Exception | None:
    """What an HTTP status other than 200 says of the server; None where only the request is refused."""
    if status in (401, 403):
        return Unfit(f"it refuses the key (HTTP {status}); set ${KEY} to the servers' key")
    if status == 404:
        return Unwell(f"it has no such model or path (HTTP 404: {said})", counts=False)
    if status == 408 or status >= 500:
        return Unwell(f"HTTP {status}: {said}")
    return None
