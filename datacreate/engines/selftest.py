"""Proof, before a run starts, that the grammar is really in force.

Libraries move their structured-output switches from release to release, and a switch that is
no longer read fails in silence; so may a server that takes the schema and forgets it. So the
engine is asked something whose only valid answer no model would give by itself.
"""

from __future__ import annotations

import json

from datacreate.engines.base import Completion, Engine, Request, Sampling
from datacreate.errors import EngineError

_WORD = "qv7x"


def question() -> Request:
    """The self-test's request, numbered -1."""
    said = {"system": "You are polite.", "user": "Say good morning."}  # both roles, as in a run
    messages = [{"role": role, "content": content} for role, content in said.items()]
    items = {"prefixItems": [{"const": _WORD}], "items": False, "minItems": 1, "maxItems": 1}
    return Request(-1, messages, json.dumps({"type": "array", **items}), Sampling(max_tokens=32))


def flaw_of(answer: Completion) -> str | None:
    """What the answer to it shows to be wrong; None if it is the one that the schema dictates."""
    if answer.error:
        return f"refused the self-test: {answer.error}"
    if "".join(answer.text.split()) != f'["{_WORD}"]':
        return f'does not enforce the grammar: asked for ["{_WORD}"], got {answer.text[:60]!r}'
    return None


def prove_grammar(engine: Engine, timeout_seconds: float = 300.0) -> None:
    """Raise EngineError unless the engine's answer is the one that the schema dictates."""
    engine.submit(question())
    answers = engine.poll(timeout_seconds)
    if not answers:
        raise EngineError(
            f"the engine gave no answer in {timeout_seconds:.0f} s; see its log, or try a smaller model"
        )
    if flaw := flaw_of(answers[0]):
        raise EngineError(
            f"the engine {flaw}; nothing was written; "
            "check the versions of vllm and xgrammar against constraints/"
        )
