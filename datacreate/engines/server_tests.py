"""Tests before a run: the server enforces schemas, accepts the run's schema, and returns real scores.

Servers ignore request fields that they do not know, so a schema or `logprobs` can be dropped without
an error. Each test therefore sends a request whose right completion is known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

import jsonschema

from datacreate.engines.request import Completion, Messages, Request, Sampling, ServerTest, scoring_request
from datacreate.formats.response import extract_json

_WORD = "qv7x"  # which no model answers by itself
_LETTERS = ("A", "B")


def schema_enforcement_test() -> ServerTest:
    """The test that a schema is enforced."""
    messages = [
        {"role": "system", "content": "You are polite."},  # system and user role, as in a run
        {"role": "user", "content": "Say good morning."},
    ]
    schema = {"type": "array", "prefixItems": [{"const": _WORD}], "minItems": 1, "maxItems": 1}
    request = Request(-1, messages, json.dumps(schema), Sampling(max_tokens=32))
    mismatch = f'ignores the JSON Schema: asked for ["{_WORD}"], got'
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
