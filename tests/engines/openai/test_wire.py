"""What servers send, read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.engines.base import Request, Sampling, scoring
from datacreate.engines.openai.wire import Unwell, Wire, read
from tests.servers import MODEL

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "logprobs", "usage", "finish_reason"]), inner
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_whatever_a_server_sends_is_an_answer_or_no_answer(document: Any) -> None:
    for request in (
        Request(1, [{"role": "user", "content": "?"}], "{}", Sampling(5)),
        scoring(-2, [], ("a", "b")),
    ):
        try:
            completion = read(request, document)
        except Unwell:
            continue
        assert completion.request_id == request.id


def test_probabilities_come_from_the_spelling_where_a_server_knows_no_token_ids() -> None:
    likeliest = [{"token": " B", "logprob": -0.1}, {"token": "A", "logprob": -2.4}]
    document = {"choices": [{"logprobs": {"content": [{"top_logprobs": likeliest}]}}]}
    scores = read(scoring(-2, [], ("A", "B")), document).scores
    assert scores[1] > 0.85
    assert sum(scores) == pytest.approx(1)
    assert Wire((MODEL,)).body(scoring(-2, [], ("A", "B")))["top_logprobs"] == 20
