"""Tests before a run: the server enforces schemas, accepts the run's schema, and returns real scores.

Servers ignore request fields that they do not know, so a schema or `logprobs` can be dropped without
an error. Each test therefore sends a request with a known answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import jsonschema

from datacreate.engines.request import Completion, Messages, Request, Sampling, ServerTest, scoring_request
from datacreate.formats.validate import extract_json

_WORD = "qv7x"
_LETTERS = ("A", "B")


def schema_enforcement_test() -> ServerTest:
    """The test that a schema is enforced: no model answers with this word by itself."""
    messages = [
        {"role": "system", "content": "You are polite."},  # system and user role, as in a run
        {"role": "user", "content": "Say good morning."},
    ]
    schema = {"type": "array", "prefixItems": [{"const": _WORD}], "minItems": 1, "maxItems": 1}
    request = Request(-1, messages, json.dumps(schema), Sampling(max_tokens=32))
    return _schema_test(request, "the self-test", f'ignores the JSON Schema: asked for ["{_WORD}"], got')


def run_schema_test(messages: Messages, schema: str, sampling: Sampling) -> ServerTest:
    """The test that the schema of a run is accepted and the answer follows it (unless truncated)."""
    request = Request(-1, messages, schema, sampling)
    name = "the test with the schema of this run"
    return _schema_test(request, name, "does not follow the schema of this run: got", may_be_truncated=True)


def _schema_test(request: Request, name: str, mismatch: str, may_be_truncated: bool = False) -> ServerTest:
    def problem(completions: Sequence[Completion]) -> str | None:
        [answer] = completions
        if answer.error:
            return f"failed {name}: {answer.error}"
        if answer.finish_reason == "length" and may_be_truncated:
            return None
        try:
            value, _ = json.JSONDecoder().raw_decode(extract_json(answer.text))
            jsonschema.Draft202012Validator(json.loads(request.schema or "{}")).validate(value)
        except (ValueError, RecursionError, jsonschema.ValidationError):
            return f"{mismatch} {answer.text[:60]!r}"
        return None

    return ServerTest((request,), problem)


def scoring_test(system: str = "") -> ServerTest:
    """The test that scores depend on the question: each letter is more probable when the prompt asks for it.

    `system`: the system message of the run's questions, if they have one.
    """
    before = [{"role": "system", "content": system}] if system else []
    prompts = [
        [*before, {"role": "user", "content": f"Answer with the letter {letter}."}] for letter in _LETTERS
    ]
    advice = "use a server with logprobs, or --verify off to create without scores"
    requests = tuple(scoring_request(-1, prompt, _LETTERS) for prompt in prompts)
    return ServerTest(requests, _scores_problem, advice)


def _scores_problem(completions: Sequence[Completion]) -> str | None:
    for answer in completions:
        if answer.error:
            return f"returns no probabilities for label scoring: {answer.error}"
    of_a, of_b = (answer.scores[0] for answer in completions)  # of the letter A, for both prompts
    if of_a > of_b:
        return None
    return f"returns probabilities that do not depend on the question (A: {of_a:.2f} and {of_b:.2f})"
