"""The chat completions API: Request -> JSON body, JSON response -> Completion, and why a server did not answer.

Extensions of the API are sent only to the engines that have them (engine.py).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datacreate.checkpoints.presets import Thinking
from datacreate.engines.engine import UNKNOWN_ENGINE, Engine
from datacreate.engines.request import DEFAULT_THINKING, Completion, Messages, Request
from datacreate.engines.server_sources import API_KEY_VARIABLE

TEMPORARY = (429, 502, 503, 504)  # HTTP statuses of a server that is busy, still loading, or behind a proxy
_UNLISTED_LOGPROB = -20.0  # the log-probability of a choice that is not among the most probable tokens
_MIN_LOGPROB = -100.0  # lower ones count as this

_JSON_STARTS = ("[", "{")

_ONLY_THOUGHTS = (
    "it thinks before it answers and reached the maximum number of tokens; give it more with --thinking TOKENS, or "
    "switch thinking off: --thinking off, --chat-template-kwargs enable_thinking=false, or on the server"
)


class ServerProblem(Exception):
    """A server did not do what it was asked to do; the message says why."""

    hung = False  # it sent nothing at all


class Unavailable(ServerProblem):
    """A server did not answer a request; the same or another one may answer it later.

    `request_may_be_cause`: every server may fail at this request.
    """

    def __init__(self, reason: str, *, request_may_be_cause: bool = True, hung: bool = False) -> None:
        super().__init__(reason)
        self.request_may_be_cause = request_may_be_cause
        self.hung = hung


class RequestRejected(Unavailable):
    """A server refuses a request as invalid (HTTP 4xx). If it refuses all requests, the server is at fault."""


class Busy(Unavailable):
    """A server has too many requests (HTTP 429)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, request_may_be_cause=False)


class Incompatible(ServerProblem):
    """A server cannot be used as it is: another model, no schemas, a wrong key. The message says what to do."""


def wrong_address(path: str, response: str) -> Incompatible:
    """The error for an address where no server with this API is."""
    return Incompatible(f"no OpenAI-compatible server at this address ({path} returns {response}); check --url")


def connection_error(error: Exception) -> ServerProblem:
    """The error for a connection that failed, with a short reason, such as `Connection refused`."""
    cause: BaseException = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    if "CERTIFICATE" in str(cause).upper():
        return Incompatible("its TLS certificate is not trusted; set SSL_CERT_FILE to the file of its CA")
    number = cause.errno if isinstance(cause, OSError) else None
    reason = os.strerror(number) if number and number > 0 else short_text(cause, 80) or type(error).__name__
    return Unavailable(f"cannot be reached ({reason})", request_may_be_cause=False)


def status_error(status: int, document: Any) -> ServerProblem:
    """The exception for an HTTP status other than 200."""
    text = f"HTTP {status}: {short_text(document)}"
    if 300 <= status < 400:
        return Incompatible(f"it redirects to another address (HTTP {status}); use that address with --url")
    if status in (401, 403):
        return Incompatible(f"access denied (HTTP {status}); set ${API_KEY_VARIABLE} to the server's key")
    if status == 429:
        return Busy(f"{text}; with a smaller --max-num-seqs it gets fewer requests at once")
    if status in (404, *TEMPORARY):
        return Unavailable(text, request_may_be_cause=False)
    if 400 <= status < 500 and status != 408:
        return RequestRejected(text)
    return Unavailable(text)


def short_text(document: Any, max_chars: int = 160) -> str:
    """The error message in a response as one line of at most `max_chars` characters."""
    if isinstance(document, dict):
        error = document.get("error", document)
        document = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(document)[: 4 * max_chars].split())[:max_chars]


@dataclass(frozen=True)
class ChatApi:
    """How requests to one server are written."""

    names: tuple[str, ...]  # of the model; until the server is known all acceptable ones, () for any model
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)  # of --chat-template-kwargs
    thinking: Thinking = field(default_factory=lambda: Thinking(disable={}))
    engine: Engine = UNKNOWN_ENGINE
    has_system_role: bool = True  # whether it accepts system messages
    sends_own_schema_field: bool = False  # the schema goes into the field of its engine, not into the standard one

    def messages(self, messages: Messages, *, thinks: bool = False) -> dict[str, Any]:
        """The fields of a request that hold the prompt and the arguments of the chat template."""
        fields: dict[str, Any] = {"messages": messages if self.has_system_role else _merge_system_message(messages)}
        enable, disable = self.thinking.enable, self.thinking.disable
        arguments = {**(enable if thinks or disable is None else disable), **self.template_kwargs}
        if "reasoning_effort" in arguments:  # where vLLM reads it for gpt-oss, which has no template there
            fields["reasoning_effort"] = arguments["reasoning_effort"]
        if arguments:
            fields["chat_template_kwargs"] = arguments
        return fields

    def thinking_limit(self, request: Request) -> int:
        """The most tokens that the model thinks before it answers this request; 0 if it does not think."""
        always = self.thinking.disable is None and not request.choices
        return request.sampling.thinking or (DEFAULT_THINKING if always else 0)

    def body(self, request: Request, tokens: Sequence[int] | None = None) -> dict[str, Any]:
        """The JSON of a request; `tokens` are the first tokens of its choices, if known."""
        sampling, thinking = request.sampling, self.thinking_limit(request)
        penalty = 1.0 if sampling.repetition_penalty is None else sampling.repetition_penalty
        body: dict[str, Any] = {
            "model": self.names[0],
            **self.messages(request.messages, thinks=thinking > 0),
            "max_tokens": sampling.max_tokens + thinking,
            "temperature": sampling.temperature,
            # Explicit neutral values: a server's generation_config must not change the sampling.
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or 0,
            "min_p": sampling.min_p or 0.0,
            self.engine.penalty_field: penalty,
        }
        if thinking and self.thinking.has_limit and self.engine.thinking_field:
            body[self.engine.thinking_field] = thinking
        if request.schema is not None:
            # The field of llama.cpp would also apply to the thoughts; the standard one applies after them.
            engine = self.engine if self.sends_own_schema_field and not thinking else UNKNOWN_ENGINE
            body |= engine.schema_field(json.loads(request.schema), sampling.longest_text)
        if request.choices:
            body |= self.engine.scoring_fields(tokens)
        return body


def _merge_system_message(messages: Messages) -> Messages:
    """The messages for a chat template without a system role: its text starts the user message."""
    if messages[0]["role"] != "system":
        return messages
    system, first, *rest = messages
    return [{"role": "user", "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def parse_response(request: Request, document: Any, tokens: Sequence[int] | None = None) -> Completion:
    """The completion in the JSON of a server's response. Raises Unavailable if there is none.

    `tokens` are the first tokens of the request's choices, if known.
    """
    try:
        choice, usage = document["choices"][0], document.get("usage") or {}
        prompt_tokens = _count(usage.get("prompt_tokens"))
        if request.choices:
            return _scored_completion(request, choice, prompt_tokens, tokens)
        finish_reason = choice["finish_reason"]
        text, thoughts = _text_and_thoughts(choice["message"])
        generated_tokens = _count(usage.get("completion_tokens"))
        thinking_tokens = _count((usage.get("completion_tokens_details") or {}).get("reasoning_tokens"))
    except (LookupError, TypeError, AttributeError):
        reason = f": {short_text(document)}" if isinstance(document, dict) and "error" in document else ""
        raise Unavailable(f"invalid response{reason}") from None
    error = None if finish_reason in ("stop", "length") else f"finish reason {str(finish_reason)[:40]}"
    if not (text.strip() or error):
        thinks = request.sampling.thinking is not None
        if finish_reason == "length" and (thinks or not thoughts.lstrip().startswith(_JSON_STARTS)):
            error = _ONLY_THOUGHTS
        elif not thinks:  # some servers put the whole text into the reasoning field
            text, thoughts = thoughts, ""
    thoughts = thoughts.strip().encode("utf-8", "replace").decode("utf-8")
    if thoughts:
        # Not every server counts them. Then their share of the text is their share of the tokens.
        share = len(thoughts) / (len(thoughts) + len(text))
        thinking_tokens = min(thinking_tokens, generated_tokens) or round(share * generated_tokens)
    return Completion(
        request.id,
        text="" if error else text,
        finish_reason="error" if error else finish_reason,
        prompt_tokens=prompt_tokens,
        generated_tokens=generated_tokens,
        error=error,
        thoughts=thoughts,
        thinking_tokens=thinking_tokens if thoughts else 0,
    )


def _text_and_thoughts(message: Mapping[str, Any]) -> tuple[str, str]:
    """The text and the thoughts in a message. Some servers leave a thinking block in the text."""
    content = str(message.get("content") or "")
    thoughts = str(message.get("reasoning_content") or message.get("reasoning") or "")
    text = content.lstrip()
    if not text.startswith(_JSON_STARTS):
        before, end, after = text.rpartition("</think>")
        if end:
            return after, thoughts or before.removeprefix("<think>")
        if text.startswith("<think>"):
            return "", thoughts or text.removeprefix("<think>")
    return content, thoughts


def _count(value: Any) -> int:
    """A token count from a server, clamped; 0 if it is not a number."""
    is_number = type(value) is int or (type(value) is float and math.isfinite(value))
    return int(min(max(value, 0), 10**9)) if is_number else 0


def _scored_completion(
    request: Request, choice: Mapping[str, Any], prompt_tokens: int, tokens: Sequence[int] | None
) -> Completion:
    """The completion with the probabilities of the request's choices.

    It is an error if the server lists none of them. Uniform scores would look like a real result.
    """
    try:
        listed = choice["logprobs"]["content"][0]["top_logprobs"]
        logprobs = _logprobs_by_choice(listed, request.choices, tokens)
        error = "its logprobs contain none of the choices"
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError):
        logprobs, error = {}, "it returns no logprobs"
    if not logprobs:
        return Completion(request.id, "", "error", prompt_tokens, error=error)
    lowest = min(_UNLISTED_LOGPROB, *logprobs.values())
    weights = [math.exp(logprobs.get(index, lowest)) for index in range(len(request.choices))]
    scores = tuple(weight / sum(weights) for weight in weights)
    return Completion(request.id, "", "stop", prompt_tokens, scores=scores)


def _logprobs_by_choice(
    listed: Sequence[Mapping[str, Any]], choices: Sequence[str], tokens: Sequence[int] | None
) -> dict[int, float]:
    """The log-probabilities of the choices that a server lists, by the index of the choice.

    With `tokens` they are found by token id (vLLM writes `token_id:123`, llama.cpp `id`), else by text. Of two
    matching texts the more probable one counts. ValueError for a log-probability that is not a number.
    """
    logprobs: dict[int, float] = {}
    for entry in listed:
        text, logprob = str(entry.get("token", "")).strip(), float(entry["logprob"])
        if tokens is None:
            matching = [index for index, choice in enumerate(choices) if text and choice.startswith(text)]
        else:
            token_id = str(entry.get("id", text.removeprefix("token_id:")))
            matching = [index for index, token in enumerate(tokens) if token_id == str(token)]
        if len(matching) == 1:
            if math.isnan(logprob):
                raise ValueError("not a number")
            [index] = matching
            logprobs[index] = max(logprobs.get(index, _MIN_LOGPROB), min(0.0, logprob))
    return logprobs
