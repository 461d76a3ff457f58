"""The chat completions API: Request -> JSON body, and JSON answer -> Completion.

The schema goes into the standard `response_format`. Extensions are sent only to the kinds of servers that
have them (kind.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from datacreate.engines.kind import STANDARD, ServerKind
from datacreate.engines.request import Completion, Messages, Request
from datacreate.prompts.generation import merge_system_message

_UNLISTED_LOGPROB = -20.0
"""The log-probability of a choice that is not among the most probable tokens."""

_COMPACT = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
"""Makes llguidance write JSON without spaces, which saves tokens."""

_THINKS = (
    "it thinks before it answers and reached the maximum number of tokens; switch thinking off, such as with "
    "--chat-template-kwargs enable_thinking=false (or reasoning_effort=low), or on the server"
)


class Unavailable(Exception):
    """A server could not answer; it or another one may answer later.

    `may_be_request`: the request itself may be the cause. `hung`: the server did not respond at all.
    """

    def __init__(self, reason: str, *, may_be_request: bool = True, hung: bool = False) -> None:
        super().__init__(reason)
        self.may_be_request = may_be_request
        self.hung = hung


class Busy(Unavailable):
    """A server that is at its capacity (HTTP 429)."""


class RequestRejected(Unavailable):
    """A server that refuses this request (HTTP 4xx); the request is invalid if others succeed."""


class Incompatible(Exception):
    """A server that cannot be used as it is: the reason, and what to do."""

    hung = False


@dataclass(frozen=True)
class ChatApi:
    """The request form of one server.

    Before the server is known there may be several acceptable model names; none means any model.
    """

    names: tuple[str, ...]
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    kind: ServerKind = STANDARD
    has_system_role: bool = True
    compact_grammar: bool = False  # a grammar of llguidance instead of the schema

    def messages(self, messages: Messages) -> dict[str, Any]:
        """The fields for a prompt, without a system role if the model has none."""
        fields = {"messages": list(messages) if self.has_system_role else merge_system_message(messages)}
        return fields | ({"chat_template_kwargs": dict(self.template_kwargs)} if self.template_kwargs else {})

    def body(self, request: Request, tokens: Sequence[int] | None = None) -> dict[str, Any]:
        """The JSON of a request; `tokens` are the first tokens of its choices, if known."""
        sampling = request.sampling
        penalty = 1.0 if sampling.repetition_penalty is None else sampling.repetition_penalty
        body: dict[str, Any] = {
            "model": self.names[0],
            **self.messages(request.messages),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            # Explicit neutral values: a server's generation_config must not change the sampling.
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or 0,
            "min_p": sampling.min_p or 0.0,
            self.kind.penalty_field: penalty,
        }
        if request.schema is not None:
            body |= _schema_field(request.schema, self.compact_grammar)
        if request.choices:
            body |= self.kind.scoring_fields(tokens)
        return body


@lru_cache(maxsize=1024)
def _schema_field(schema: str, compact: bool) -> dict[str, Any]:
    """The field of a request that holds the schema."""
    parsed = json.loads(schema)
    if compact:
        guided = json.dumps({"x-guidance": _COMPACT, **parsed}, ensure_ascii=False)
        return {"grammar": f"%llguidance {{}}\nstart: %json {guided}"}
    named = {"name": "examples", "schema": parsed, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def read(request: Request, document: Any, tokens: Sequence[int] | None = None) -> Completion:
    """Parse a server's answer. Raises Unavailable if it is no completion."""
    try:
        choice, usage = document["choices"][0], document.get("usage") or {}
        used = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        if request.choices:
            return _scored(request, choice, used[0], tokens)
        message, reason = choice["message"], choice["finish_reason"]
        content = str(message.get("content") or "")
        thoughts = str(message.get("reasoning_content") or message.get("reasoning") or "")
    except (LookupError, TypeError, AttributeError):
        error = f": {short_text(document)}" if isinstance(document, dict) and "error" in document else ""
        raise Unavailable(f"invalid response{error}") from None
    if reason == "length" and _is_only_thinking(content, thoughts):
        return Completion(request.id, "", "error", *used, _THINKS)
    if reason == "stop" or reason == "length":
        # Some servers put the whole answer into the reasoning field.
        return Completion(request.id, content or thoughts, reason, *used)
    return Completion(request.id, "", "error", *used, f"finish reason {str(reason)[:40]}")


def _is_only_thinking(content: str, thoughts: str) -> bool:
    """Whether a truncated answer ended before its JSON began."""
    if content.strip():
        return content.lstrip().startswith("<think>") and "</think>" not in content
    return not thoughts.lstrip().startswith(("[", "{"))


def short_text(document: Any, most: int = 160) -> str:
    """The error message in a response as one line of at most `most` characters."""
    if isinstance(document, dict):
        error = document.get("error", document)
        document = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(document)[: 4 * most].split())[:most]


def _count(value: Any) -> int:
    """A token count from a server, clamped; 0 if it is not a number."""
    is_number = type(value) is int or (type(value) is float and math.isfinite(value))
    return int(min(max(value, 0), 10**9)) if is_number else 0


def _scored(
    request: Request, choice: Mapping[str, Any], prompt_tokens: int, tokens: Sequence[int] | None
) -> Completion:
    """Probabilities of the choices; an error if the server lists none of them.

    Uniform scores are never returned for missing ones: they would look like a real result.
    """
    try:
        listed = choice["logprobs"]["content"][0]["top_logprobs"]
        found = _listed_choices(listed, request.choices, tokens)
        why = "its logprobs contain none of the choices"
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError):
        found, why = {}, "it returns no logprobs"
    if not found:
        return Completion(request.id, "", "error", prompt_tokens, 0, why)
    least = min(_UNLISTED_LOGPROB, *found.values())
    weights = [math.exp(found.get(index, least)) for index in range(len(request.choices))]
    scores = tuple(weight / sum(weights) for weight in weights)
    return Completion(request.id, "", "stop", prompt_tokens, 0, None, scores)


def _listed_choices(
    listed: Sequence[Mapping[str, Any]], choices: Sequence[str], tokens: Sequence[int] | None
) -> dict[int, float]:
    """The listed choices, by index, with their log-probabilities.

    With `tokens` they are found by token id (vLLM writes `token_id:123`, llama.cpp `id`), else by text; of
    two matching texts the more probable one counts.
    """
    found: dict[int, float] = {}
    for entry in listed:
        text, logprob = str(entry.get("token", "")).strip(), float(entry["logprob"])
        if tokens is None:
            matching = [index for index, choice in enumerate(choices) if text and choice.startswith(text)]
        else:
            number = str(entry.get("id", text.removeprefix("token_id:")))
            matching = [index for index, token in enumerate(tokens) if number == str(token)]
        if len(matching) == 1:
            if math.isnan(logprob):
                raise ValueError("not a number")
            found[matching[0]] = max(found.get(matching[0], -100.0), min(0.0, logprob))
    return found
