"""Proof, before a run starts, that the grammar is really in force.

Libraries move their structured-output switches from release to release, and a switch that is
no longer read fails in silence. So the engine is asked something whose only valid answer no
model would give by itself.
"""

from __future__ import annotations

import json

from datacreate.engines.base import Engine, Request, Sampling
from datacreate.errors import EngineError

_WORD = "qv7x"


def prove_grammar(engine: Engine, timeout_seconds: float = 300.0) -> None:
    """Raise EngineError unless the engine's answer is the one that the schema dictates."""
    messages = [{"role": "user", "content": "Say good morning."}]
    items = {"prefixItems": [{"const": _WORD}], "items": False, "minItems": 1, "maxItems": 1}
    schema = json.dumps({"type": "array", **items})
    engine.submit(Request(-1, messages, schema, Sampling(max_tokens=32)))
    answers = engine.poll(timeout_seconds)
    if not answers:
        raise EngineError(
            f"the engine gave no answer in {timeout_seconds:.0f} s; see its log, or try a smaller model"
        )
    answer = answers[0]
    if answer.error:
        raise EngineError(f"the engine refused the self-test: {answer.error}")
    if answer.text.strip() != f'["{_WORD}"]':
        raise EngineError(
            f'the engine does not enforce the grammar: asked for ["{_WORD}"], got {answer.text[:60]!r}; '
            "nothing was written; check the versions of vllm and xgrammar against constraints/"
        )
