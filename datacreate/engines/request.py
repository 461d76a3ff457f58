"""Requests to a model, their completions, and the tests that a server must pass before a run.

A server has `slots`: the requests that it processes at once. `max_in_flight` is how many are sent to it.
Servers ignore request fields that they do not know, such as a schema or `logprobs`, without an error. Each test
therefore sends a request whose right completion is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

FinishReason = Literal["stop", "length", "error"]

DEFAULT_THINKING = 2048  # tokens that a model may think before it answers, where no limit is given

Messages = Sequence[dict[str, str]]

_TEST_WORD = "qv7x"  # which no model answers by itself
_LETTERS = ("A", "B")


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


def schema_enforcement_test() -> ServerTest:
    """The test that a schema is enforced."""
    messages = [
        {"role": "system", "content": "You are polite."},  # system and user role, as in a run
        {"role": "user", "content": "Say good morning."},
    ]
    schema = {"type": "array", "prefixItems": [{"const": _TEST_WORD}], "minItems": 1, "maxItems": 1}
    request = Request(-1, messages, json.dumps(schema), Sampling(max_tokens=32))
    mismatch = f'ignores the JSON Schema: asked for ["{_TEST_WORD}"], got'
    return ServerTest((request,), partial(_schema_problem, request, "schema test", mismatch, may_be_truncated=False))


def run_schema_test(messages: Messages, schema: str, sampling: Sampling) -> ServerTest:
    """The test that the schema of a run is accepted and the completion follows it (unless truncated)."""
    request = Request(-1, messages, schema, sampling)
    name, mismatch = "test with the schema of this run", "does not follow the schema of this run: got"
    return ServerTest((request,), partial(_schema_problem, request, name, mismatch, may_be_truncated=True))


def _schema_problem(
    request: Request, name: str, mismatch: str, completions: Sequence[Completion], *, may_be_truncated: bool
) -> str | None:
    """Why the completion does not follow the request's schema; `name` and `mismatch` are for messages."""
    # Slow to import, and the settings import this module.
    import jsonschema

    from datacreate.formats.response import extract_json

    [completion] = completions
    if completion.error:
        return f"failed the {name}: {completion.error}"
    if completion.finish_reason == "length" and may_be_truncated:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(extract_json(completion.text))
        jsonschema.Draft202012Validator(json.loads(request.schema or "{}")).validate(value)
    except (ValueError, RecursionError, jsonschema.ValidationError):
        return f"{mismatch} {completion.text[:60]!r}"
    return None


def scoring_test(system: str = "") -> ServerTest:
    """The test that scores depend on the question: each letter is more probable when the prompt asks for it.

    `system`: the system message of the run's questions, if they have one.
    """
    prompts = [[{"role": "user", "content": f"Answer with the letter {letter}."}] for letter in _LETTERS]
    if system:
        prompts = [[{"role": "system", "content": system}, *prompt] for prompt in prompts]
    return ServerTest(tuple(scoring_request(-1, prompt, _LETTERS) for prompt in prompts), _scores_problem)


def _scores_problem(completions: Sequence[Completion]) -> str | None:
    if errors := [completion.error for completion in completions if completion.error]:
        problem = f"returns no probabilities for label scoring: {errors[0]}"
    else:
        asked_for_a, asked_for_b = (completion.scores[0] for completion in completions)  # the score of A
        if asked_for_a > asked_for_b:
            return None
        scores = f"A: {asked_for_a:.2f} and {asked_for_b:.2f}"
        problem = f"returns probabilities that do not depend on the question ({scores})"
    return f"{problem}; use a server with logprobs, or --verify off to create without scores"
