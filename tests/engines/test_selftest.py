"""The self-test at the start: an engine that ignores the grammar is found out."""

from __future__ import annotations

import pytest

from datacreate.engines.base import Completion, Request
from datacreate.engines.selftest import prove_grammar
from datacreate.errors import EngineError


class Answering:
    """An engine that answers the self-test as told."""

    capacity = 1
    max_context = 100

    def __init__(self, text: str, finish: str = "stop", error: str | None = None) -> None:
        self._answer = (text, finish, error)

    def submit(self, request: Request) -> None:
        self._id = request.id

    def poll(self, timeout_seconds: float) -> list[Completion]:
        text, finish, error = self._answer
        return [Completion(self._id, text, finish, error=error)] if finish else []  # type: ignore[arg-type]


def test_an_engine_under_the_grammar_passes() -> None:
    prove_grammar(Answering('["qv7x"]'))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        (Answering("Good morning!"), "does not enforce the grammar"),
        (Answering("", "error", "unknown field"), "refused the self-test: unknown field"),
        (Answering("", ""), "gave no answer"),
    ],
    ids=["ignored", "refused", "silent"],
)
def test_any_other_is_refused_in_one_line(engine: Answering, says: str) -> None:
    with pytest.raises(EngineError, match=says) as caught:
        prove_grammar(engine)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
