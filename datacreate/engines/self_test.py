"""Checks before a run: the server enforces schemas, accepts the run's schema, and returns real scores.

Servers ignore request fields that they do not know, so a schema or `logprobs` can be dropped without
an error. Each check therefore sends a request with a known answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import jsonschema

from datacreate.engines.base import Check, Completion, Messages, Request, Sampling, scoring
from datacreate.formats.parse import extract_json

_WORD = "qv7x"
_LETTERS = ("A", "B")


def schema_enforced() -> Check:
    """Check that a schema is enforced: no model answers with this word by itself."""
    messages = [
        {"role": "system", "content": "You are polite."},  # system and user role, as in a run
        {"role": "user", "content": "Say good morning."},
    ]
    schema = {"type": "array", "prefixItems": [{"const": _WORD}], "minItems": 1, "maxItems": 1}
    return Check((Request(-1, messages, json.dumps(schema), Sampling(max_tokens=32)),), _word_fault)


def _word_fault(completions: Sequence[Completion]) -> str | None:
    [answer] = completions
    if answer.error:
        return f"refused the self-test: {answer.error}"
    if "".join(extract_json(answer.text).split()) != f'["{_WORD}"]':
        return f'ignores the JSON Schema: asked for ["{_WORD}"], got {answer.text[:60]!r}'
    return None


def schema_accepted(messages: Messages, schema: str, sampling: Sampling) -> Check:
    """Check that the run's schema is accepted and the answer follows it (unless truncated)."""

    def fault(completions: Sequence[Completion]) -> str | None:
        [answer] = completions
        if answer.error:
            return f"refused the schema of this run: {answer.error}"
        if answer.finish_reason == "length":
            return None
        try:
            value = json.loads(extract_json(answer.text))
            jsonschema.Draft202012Validator(json.loads(schema)).validate(value)
        except (ValueError, RecursionError, jsonschema.ValidationError):
            return f"does not follow the schema of this run: got {answer.text[:60]!r}"
        return None

    return Check((Request(-1, messages, schema, sampling),), fault)


def scores_are_real() -> Check:
    """Check that scores depend on the question: each letter is more probable when the prompt asks for it."""
    asked = tuple(
        scoring(-1, [{"role": "user", "content": f"Answer with the letter {letter}."}], _LETTERS)
        for letter in _LETTERS
    )
    return Check(asked, _scores_fault)


def _scores_fault(completions: Sequence[Completion]) -> str | None:
    for answer in completions:
        if answer.error or not answer.scores:
            return f"returns no probabilities for label scoring: {answer.error or 'none of the choices'}"
    asked_a, asked_b = (answer.scores[0] for answer in completions)
    if asked_a <= asked_b:
        return (
            f"returns probabilities that do not depend on the question (A: {asked_a:.2f} and {asked_b:.2f})"
        )
    return None
