"""The chat completions API: Request -> JSON body, and JSON answer -> Completion.

The schema goes into the standard `response_format`. Extensions are sent only to the kinds of servers that
have them (engine_kind.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datacreate.checkpoints import Thinking
from datacreate.engines.engine_kind import STANDARD, ServerKind
from datacreate.engines.request import DEFAULT_THINKING, Completion, Messages, Request
from datacreate.prompts.generation import merge_system_message

_UNLISTED_LOGPROB = -20.0  # the log-probability of a choice that is not among the most probable tokens

_COMPACT = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
"""Makes llguidance write JSON without spaces, which saves tokens."""

_MARGIN = 64
"""Characters beyond `Sampling.longest_text` after which the grammar ends a text: more than a token has, so that the
grammar does not shape shorter texts."""

_JSON = ("[", "{")  # how an answer starts

_THINKS = (
    "it thinks before it answers and reached the maximum number of tokens; give it more with --thinking TOKENS, or "
    "switch thinking off: --thinking off, --chat-template-kwargs enable_thinking=false, or on the server"
)


class Unavailable(Exception):
    """A server could not answer; it or another one may answer later.

    `request_may_be_cause`: the request itself may be the cause. `hung`: the server did not respond at all.
    """

    def __init__(self, reason: str, *, request_may_be_cause: bool = True, hung: bool = False) -> None:
        super().__init__(reason)
        self.request_may_be_cause = request_may_be_cause
        self.hung = hung


class RequestRejected(Unavailable):
    """A server that refuses this request (HTTP 4xx); the request is invalid if others succeed."""


class Busy(Unavailable):
    """A server that has too many requests (HTTP 429)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, request_may_be_cause=False)


class Incompatible(Exception):
    """A server that cannot be used as it is: the reason, and what to do."""

    hung = False


@dataclass(frozen=True)
class ChatApi:
    """The request form of one server.

    Before the server is known there may be several acceptable model names; none means any model.
    """

    names: tuple[str, ...]
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)  # the user's
    thinking: Thinking = field(default_factory=lambda: Thinking(disable={}))
    kind: ServerKind = STANDARD
    has_system_role: bool = True
    compact_grammar: bool = False  # a grammar of llguidance instead of the schema

    def messages(self, messages: Messages, *, thinks: bool = False) -> dict[str, Any]:
        """The fields for a prompt, without a system role if the model has none."""
        shown = list(messages) if self.has_system_role else merge_system_message(messages)
        fields: dict[str, Any] = {"messages": shown}
        switch, disable = self.thinking.enable, self.thinking.disable
        arguments = {**(switch if thinks or disable is None else disable), **self.template_kwargs}
        if "reasoning_effort" in arguments:  # where vLLM reads it for gpt-oss, which has no template there
            fields["reasoning_effort"] = arguments["reasoning_effort"]
        return fields | ({"chat_template_kwargs": arguments} if arguments else {})

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
            self.kind.penalty_field: penalty,
        }
        if thinking and self.thinking.has_limit and self.kind.thinking_field:
            body[self.kind.thinking_field] = thinking
        if request.schema is not None:  # llama.cpp applies its own grammar from the first token on
            compact = self.compact_grammar and not thinking
            body |= _schema_field(request.schema, compact, sampling.longest_text)
        if request.choices:
            body |= self.kind.scoring_fields(tokens)
        return body


def _schema_field(schema: str, compact: bool, longest_text: int | None) -> dict[str, Any]:
    """The field of a request that holds the schema."""
    parsed = json.loads(schema)
    if compact:
        if longest_text:
            parsed = _with_longest(parsed, longest_text + _MARGIN)
        guided = json.dumps({"x-guidance": _COMPACT, **parsed}, ensure_ascii=False)
        return {"grammar": f"%llguidance {{}}\nstart: %json {guided}"}
    named = {"name": "examples", "schema": parsed, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _with_longest(schema: Any, characters: int) -> Any:
    """The schema with a greatest length for all free texts. llguidance checks it in 0.2 ms per token; other grammars
    take seconds to compile it, or refuse it."""
    if isinstance(schema, list):
        return [_with_longest(part, characters) for part in schema]
    if not isinstance(schema, dict) or "const" in schema or "enum" in schema:
        return schema
    if schema == {"type": "string"}:
        return {**schema, "maxLength": characters}
    return {key: _with_longest(part, characters) for key, part in schema.items()}


def parse_response(request: Request, document: Any, tokens: Sequence[int] | None = None) -> Completion:
    """Parse a server's answer. Raises Unavailable if it is no completion."""
    try:
        choice, usage = document["choices"][0], document.get("usage") or {}
        used = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        if request.choices:
            return _scored(request, choice, used[0], tokens)
        message, reason = choice["message"], choice["finish_reason"]
        answer, thoughts = _answer_and_thoughts(message)
        details = usage.get("completion_tokens_details") or {}
        counted = _count(details.get("reasoning_tokens"))
    except (LookupError, TypeError, AttributeError):
        why = f": {short_text(document)}" if isinstance(document, dict) and "error" in document else ""
        raise Unavailable(f"invalid response{why}") from None
    error = None if reason in ("stop", "length") else f"finish reason {str(reason)[:40]}"
    if not (answer.strip() or error):
        thinks = request.sampling.thinking is not None
        if reason == "length" and (thinks or not thoughts.lstrip().startswith(_JSON)):
            error = _THINKS
        elif not thinks:  # some servers put the whole answer into the reasoning field
            answer, thoughts = thoughts, ""
    thoughts = thoughts.strip().encode("utf-8", "replace").decode("utf-8")
    # Not every server counts them. Then their share of the text is their share of the tokens.
    share = len(thoughts) / max(1, len(thoughts) + len(answer))
    thought = thoughts, (min(counted, used[1]) or round(share * used[1])) if thoughts else 0
    if error:
        return Completion(request.id, "", "error", *used, error, (), *thought)
    return Completion(request.id, answer, reason, *used, None, (), *thought)


def _answer_and_thoughts(message: Mapping[str, Any]) -> tuple[str, str]:
    """The two parts of a message; some servers leave a thinking block in the text."""
    content = str(message.get("content") or "")
    thoughts = str(message.get("reasoning_content") or message.get("reasoning") or "")
    text = content.lstrip()
    if not text.startswith(_JSON):
        before, end, after = text.rpartition("</think>")
        if end:
            return after, thoughts or before.removeprefix("<think>")
        if text.startswith("<think>"):
            return "", thoughts or text.removeprefix("<think>")
    return content, thoughts


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
