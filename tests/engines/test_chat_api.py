"""Requests in the form of each kind of server, and answers: text, token counts, probabilities of choices."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.engines.chat_api import Unavailable, parse_response
from datacreate.engines.request import Request, Sampling, scoring_request
from datacreate.engines.vllm import VLLM

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "choices message content logprobs top_logprobs token id logprob usage finish_reason".split()
            ),
            inner,
        )
    ),
    max_leaves=12,
)
COUNTS = [1e308, 10**400, -5, math.nan, math.inf, "many", True, {"a": 1}, None]
WRITE = Request(1, [{"role": "user", "content": "?"}], '{"type":"array"}', Sampling(5))
SCORE = scoring_request(-2, [], ("A", "B"))


@given(json_values)
def test_any_json_is_a_completion_or_unavailable(document: Any) -> None:
    for request, tokens in ((WRITE, None), (SCORE, None), (SCORE, (65, 66))):
        try:
            completion = parse_response(request, document, tokens)
        except Unavailable:
            continue
        assert completion.request_id == request.id


@given(st.lists(st.tuples(st.sampled_from("A B C ab".split()), st.integers(60, 70), st.floats()), max_size=6))
def test_scores_are_probabilities_or_missing(listed: list[tuple[str, int, float]]) -> None:
    top = [{"token": token, "id": number, "logprob": logprob} for token, number, logprob in listed]
    for tokens in (None, (65, 66)):
        completion = parse_response(SCORE, scored(top), tokens)
        if completion.scores:
            assert sum(completion.scores) == pytest.approx(1)
            assert all(0 <= share <= 1 for share in completion.scores)
        else:
            assert completion.finish_reason == "error"


def test_vllm_is_asked_for_no_more_tokens_than_it_scores() -> None:
    assert len(VLLM.scoring_fields(range(128))["logprob_token_ids"]) == 128
    assert VLLM.scoring_fields(range(129)) == {"logprobs": True, "top_logprobs": 20, "return_tokens_as_token_ids": True}


@pytest.mark.parametrize("tokens", COUNTS)
def test_invalid_token_counts_are_ignored(tokens: Any) -> None:
    choice = {"message": {"content": "[]"}, "finish_reason": "stop"}
    completion = parse_response(WRITE, {"choices": [choice], "usage": {"completion_tokens": tokens}})
    assert 0 <= completion.generated_tokens <= 10**9


ANSWER = '[{"a": "</think>"}]'


@pytest.mark.parametrize(
    ("message", "reason", "thinks", "answer", "thoughts"),
    [
        ({"content": ANSWER, "reasoning": "[1]?"}, "stop", True, ANSWER, "[1]?"),
        ({"content": ANSWER, "reasoning_content": "Well"}, "length", False, ANSWER, "Well"),
        ({"content": f"<think>\nA [1]?\n</think>\n{ANSWER[:8]}"}, "stop", True, f"\n{ANSWER[:8]}", "A [1]?"),
        ({"content": "Only [1]?</think>[2]"}, "length", True, "[2]", "Only [1]?"),
        ({"content": "<think>Perhaps [1]"}, "length", False, None, "Perhaps [1]"),
        ({"content": None, "reasoning": "[1]"}, "stop", False, "[1]", ""),
        ({"content": None, "reasoning_content": "[1]"}, "length", False, "[1]", ""),
        ({"content": ""}, "length", False, None, ""),
        ({"content": None, "reasoning": "[1]"}, "stop", True, "", "[1]"),  # a thought is never data
        ({"content": None, "reasoning": "[1]"}, "length", True, None, "[1]"),
        ({"content": "", "reasoning": "Half \ud800"}, "length", True, None, "Half ?"),
    ],
)  # fmt: skip
def test_thoughts_are_apart_from_the_answer(
    message: dict[str, Any], reason: str, thinks: bool, answer: str | None, thoughts: str
) -> None:
    request = Request(1, WRITE.messages, WRITE.schema, Sampling(5, thinking=300 if thinks else None))
    choice = {"message": message, "finish_reason": reason}
    found = parse_response(request, {"choices": [choice], "usage": {"completion_tokens": 60}})
    assert (found.text, found.thoughts) == (answer or "", thoughts)
    assert (found.error is None) == (answer is not None)
    assert (0 < found.thinking_tokens <= 60) == bool(thoughts)
    counted = {"completion_tokens": 60, "completion_tokens_details": {"reasoning_tokens": 25}}
    assert parse_response(request, {"choices": [choice], "usage": counted}).thinking_tokens == (25 if thoughts else 0)


def scored(top: list[dict[str, Any]]) -> dict[str, Any]:
    return {"choices": [{"logprobs": {"content": [{"top_logprobs": top}]}}]}


@pytest.mark.parametrize(
    ("top", "tokens"),
    [
        ([{"token": "token_id:66", "logprob": -0.1}, {"token": "token_id:65", "logprob": -2.4}], (65, 66)),
        ([{"id": 66, "token": "B", "logprob": -0.1}, {"id": 65, "token": "A", "logprob": -2.4}], (65, 66)),
        ([{"token": " B", "logprob": -0.1}, {"token": "A", "logprob": -2.4}], None),
        ([{"token": " B", "logprob": -0.1}], None),
    ],
    ids=["vLLM", "llama.cpp", "by text", "one not listed"],
)
def test_the_more_probable_choice_has_the_higher_score(
    top: list[dict[str, Any]], tokens: tuple[int, ...] | None
) -> None:
    scores = parse_response(SCORE, scored(top), tokens).scores
    assert scores[1] > 0.85
    assert sum(scores) == pytest.approx(1)
