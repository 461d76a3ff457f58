"""The prompts: the label-scoring prompt never shows the answer, and the generation prompt."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.formats.example import Example, field_at
from datacreate.formats.task_format import Roles, TaskFormat, read_format
from datacreate.prompts.generation import chat_prompt
from datacreate.prompts.label_scoring import (
    MAX_LETTERED,
    LabelQuestion,
    assigned_label,
    can_score_labels,
    label_question,
    mean_probabilities,
    option_permutations,
    possible_answers,
    with_answer,
)
from tests.formats import examples
from tests.formats.examples import CLOSED, inferred, layout_of

closed_examples = pytest.mark.parametrize("values", CLOSED.values(), ids=CLOSED)


def format_of(values: dict[str, Any], **overrides: dict[str, str]) -> TaskFormat:
    return inferred(values, **overrides).format


def without_question_role(values: dict[str, Any]) -> TaskFormat:
    format = format_of(values)
    return replace(format, roles=replace(format.roles, question=None, context=None))


def prompt_of(
    format: TaskFormat, values: dict[str, Any], *, lettered: bool = False, reverse: bool = False
) -> tuple[str, tuple[str, ...]]:
    """The user message and the choices, with the options in their order or reversed."""
    question = label_question(format, values, lettered=lettered)
    assert question
    order = range(len(question.options))
    messages, choices = question.prompt(order[::-1] if reverse else order)
    system = {"role": "system", "content": "Answer with the letter of the right option."}
    assert messages[:-1] == ([system] if question.lettered else [])
    return messages[-1]["content"], choices


def test_an_examples_own_options_get_letters() -> None:
    format = format_of(examples.UMBRELLA)
    assert prompt_of(format, examples.UMBRELLA) == (
        "Where would you put a wet umbrella when you come home?\n\n"
        "A. stand\nB. bookshelf\nC. oven\nD. wallet\nE. aquarium",
        tuple("ABCDE"),
    )
    prompt, choices = prompt_of(format, examples.UMBRELLA, reverse=True)
    assert choices == tuple("ABCDE")
    assert "A. aquarium\nB. wallet\nC. oven\nD. bookshelf\nE. stand" in prompt


def test_fixed_labels_are_scored_by_name_or_by_letter() -> None:
    format = format_of(examples.CLAIM)
    prompt, choices = prompt_of(format, examples.CLAIM, reverse=True)
    assert prompt == "Bees make honey.\n\nAnswer with one of: False, True."
    assert choices == ("False", "True")
    format = format_of(examples.NLI, labels=examples.NLI_LABELS)
    prompt, choices = prompt_of(format, examples.NLI, lettered=True, reverse=True)
    assert choices == ("A", "B", "C")
    assert "A. contradiction\nB. neutral\nC. entailment" in prompt


def test_a_context_comes_before_the_question_unless_it_is_blank() -> None:
    format = format_of(examples.PASSAGE)
    prompt, _ = prompt_of(format, examples.PASSAGE)
    assert prompt.startswith("Bees carry nectar home and make honey of it.\n\nBees make honey.\n\n")
    prompt, _ = prompt_of(format, {**examples.PASSAGE, "context": "  "})
    assert prompt.startswith("Bees make honey.\n\n")


def test_without_a_question_all_fields_but_answer_and_options_are_shown() -> None:
    shown, _, request = prompt_of(without_question_role(examples.CLAIM), examples.CLAIM)[0].partition("\n\n")
    assert json.loads(shown) == {"question": "Bees make honey.", "context": None}
    assert request == "What is its label?\n\nAnswer with one of: True, False."
    shown, _, request = prompt_of(without_question_role(examples.NESTED), examples.NESTED)[0].partition(
        "\n\n"
    )
    assert json.loads(shown) == {
        "input": {"claim": "Water boils at 100 degrees.", "source": None},
        "output": {"why": "At sea level it does.", "note": ""},
    }
    assert request.startswith("What is its output.label?")


@closed_examples
@pytest.mark.parametrize("lettered", [False, True])
@pytest.mark.parametrize("has_question", [True, False])
def test_the_question_is_the_same_for_every_answer(
    values: dict[str, Any], lettered: bool, has_question: bool
) -> None:
    format = format_of(values) if has_question else without_question_role(values)
    answers = range(len(possible_answers(format, values)))
    questions = {label_question(format, with_answer(format, values, i), lettered=lettered) for i in answers}
    assert len(questions) == 1
    assert None not in questions


@closed_examples
def test_with_answer_changes_only_the_answer(values: dict[str, Any]) -> None:
    format = format_of(values)
    path = format.roles.answer
    assert path
    assert can_score_labels(format)
    for index, answer in enumerate(possible_answers(format, values)):
        other = with_answer(format, values, index)
        assert assigned_label(format, other) == index
        assert field_at(other, path) == answer
        assert json.dumps(with_answer(format, other, assigned_label(format, values))) == json.dumps(values)
        assert format.validator.is_valid(other)


def test_an_answer_matches_an_option_of_another_type_or_case() -> None:
    values: dict[str, Any] = {"question": "2+2?", "options": [3, 4], "label": "4"}
    format = format_of(values)
    assert assigned_label(format, values) == 1
    assert with_answer(format, values, 0)["label"] == "3"
    values = {"question": "Where is the Elbe?", "options": ["Asia", "Europe"], "label": "europe"}
    assert assigned_label(format_of(values), values) == 1


@pytest.mark.parametrize("values", [examples.SPAN, examples.REVIEW, examples.NLI, examples.TAGGED])
def test_free_text_and_open_numbers_have_no_question(values: dict[str, Any]) -> None:
    format = format_of(values)
    assert possible_answers(format, values) == []
    assert label_question(format, values, lettered=True) is None
    assert not can_score_labels(format)


def test_formats_that_cannot_be_scored() -> None:
    no_answer = replace(format_of(examples.CLAIM), roles=Roles(question=("question",)))
    assert label_question(no_answer, examples.CLAIM, lettered=False) is None
    assert not can_score_labels(replace(format_of(examples.UMBRELLA), rules=frozenset()))
    labels = [f"label {i}" for i in range(MAX_LETTERED + 1)]
    options = {"question": "Which?", "options": labels, "label": labels[0]}
    assert label_question(format_of(options), options, lettered=False) is None
    by_name = format_of({"question": "Why?", "label": "label 3"}, labels={"label": ",".join(labels)})
    assert can_score_labels(by_name)
    assert not can_score_labels(by_name, lettered=True)


def test_options_are_shown_with_the_labels_that_name_them() -> None:
    document = {
        "properties": {
            "question": {"type": "string"},
            "options": {"type": "array", "items": {"type": "string"}},
            "label": {"enum": ["A", "B"]},
        },
        "x-datacreate": {"roles": {"question": "question", "options": "options", "answer": "label"}},
    }
    format = read_format(document, "letters")
    values = {"question": "Which flies?", "options": ["fish", "bird"], "label": "B"}
    assert prompt_of(format, values) == (
        "Which flies?\nA. fish\nB. bird\n\nAnswer with one of: A, B.",
        ("A", "B"),
    )


@given(number=st.integers(1, 26), seed=st.text(max_size=20))
def test_the_permutations_are_an_order_and_its_reverse(number: int, seed: str) -> None:
    order, reverse = option_permutations(number, seed)
    assert sorted(order) == list(range(number))
    assert reverse == order[::-1]
    assert option_permutations(number, seed) == (order, reverse)


def test_every_option_has_every_position_equally_often() -> None:
    from scipy.stats import chisquare

    positions = [option_permutations(5, f"42:question {i}")[0].index(0) for i in range(2000)]
    assert chisquare([positions.count(index) for index in range(5)]).pvalue > 1e-4


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.text(max_size=8), st.booleans())
def test_scores_return_to_the_order_of_the_options(
    probabilities: list[float], seed: str, lettered: bool
) -> None:
    options = tuple(f"option {i}" for i in range(len(probabilities)))
    question = LabelQuestion("Which?", options, lettered)
    scores = []
    for order in option_permutations(len(probabilities), seed):
        messages, choices = question.prompt(order)
        shown = dict(re.findall(r"^([A-Z])\. (.*)$", messages[-1]["content"], re.MULTILINE))
        by_choice = [probabilities[options.index(shown.get(choice, choice))] for choice in choices]
        scores.append(question.in_option_order(order, by_choice))
    assert scores == [tuple(probabilities)] * 2
    assert mean_probabilities(scores) == pytest.approx(probabilities)


@given(number=st.integers(2, 8), seed=st.text(max_size=8))
def test_a_bias_to_the_first_position_cancels_out(number: int, seed: str) -> None:
    question = LabelQuestion("Which?", tuple(map(str, range(number))), True)
    orders = option_permutations(number, seed)
    biased = [1.0] + [0.0] * (number - 1)
    means = mean_probabilities([question.in_option_order(order, biased) for order in orders])
    assert means[orders[0][0]] == means[orders[0][-1]] == 0.5
    assert sum(means) == 1


def test_the_generation_prompt_asks_for_questions_that_a_fixed_label_answers() -> None:
    def sentence(values: dict[str, Any], labels: dict[str, str]) -> str:
        return chat_prompt(layout_of(values, labels=labels), Example(values), 5)[-1]["content"]

    claim = {"question": "Is ice cold?", "options": ["True", "False"], "label": True}
    assert "Each question is one that True or False alone answers." in sentence(claim, {})
    maybe = {"question": "Is ice cold?", "answer": "yes"}
    assert "yes, no or maybe alone answers." in sentence(maybe, {"answer": "yes,no,maybe"})
    assert "alone answers" not in sentence(examples.NLI, examples.NLI_LABELS)
