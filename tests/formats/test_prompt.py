"""What the prompt asks for beyond the shape."""

from __future__ import annotations

from typing import Any

import pytest

from datacreate.formats.example import Example
from datacreate.formats.infer import infer_format
from datacreate.formats.serialization import Layout
from datacreate.prompts.generation import chat_prompt

YES_NO: dict[str, Any] = {"question": "Is ice cold?", "options": ["True", "False"], "label": True}


def asked(values: dict[str, Any], labels: dict[str, str]) -> str:
    format = infer_format(Example(values), None, labels, {}).format
    return chat_prompt(Layout(format, "positional"), Example(values), 5)[-1]["content"]


@pytest.mark.parametrize(
    ("values", "labels", "either"),
    [
        (YES_NO, {}, "True or False"),
        ({"question": "Is ice cold?", "answer": "yes"}, {"answer": "yes,no,maybe"}, "yes, no or maybe"),
    ],
)
def test_a_question_with_fixed_answers_has_to_be_one_for_them(
    values: dict[str, Any], labels: dict[str, str], either: str
) -> None:
    assert f"Each question is one that {either} alone answers." in asked(values, labels)


def test_what_is_no_question_is_not_called_one() -> None:
    nli = {"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment"}
    assert "alone answers" not in asked(nli, {"label": "entailment,neutral"})
