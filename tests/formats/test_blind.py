"""A question without its answer: what a verifier is shown, and how its word is read."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.formats.example import field_at
from datacreate.formats.task_format import Roles, TaskFormat, answer_text, read_format
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
from tests.formats import kinds
from tests.formats.kinds import inferred

CLOSED: dict[str, dict[str, Any]] = {
    name: kinds.ALL[name]
    for name in ("umbrella", "claim", "passage", "nested", "arabic", "chinese", "dotted")
}
"""Examples whose answers are one of a closed set."""


def format_of(values: dict[str, Any], **told: dict[str, str]) -> TaskFormat:
    return inferred(values, **told).format


def without_a_question(values: dict[str, Any]) -> TaskFormat:
    """The format of these values where nobody has said which field is the question."""
    format = format_of(values)
    return replace(format, roles=replace(format.roles, question=None, context=None))


def asked(
    format: TaskFormat, values: dict[str, Any], *, lettered: bool = False, backwards: bool = False
) -> tuple[str, tuple[str, ...]]:
    """What the user says and the choices, with the options in their own order or the other way round."""
    question = label_question(format, values, lettered=lettered)
    assert question
    order = range(len(question.options))
    messages, choices = question.prompt(order[::-1] if backwards else order)
    system = {"role": "system", "content": "Answer with the letter of the right option."}
    assert messages[:-1] == ([system] if question.lettered else [])
    assert messages[-1]["role"] == "user"
    return messages[-1]["content"], choices


# What is asked


def test_options_of_its_own_are_lettered_in_the_order_they_are_shown() -> None:
    prompt, choices = asked(format_of(kinds.UMBRELLA), kinds.UMBRELLA)
    assert choices == tuple("ABCDE")
    assert prompt == (
        "Where would you put a wet umbrella when you come home?\n\n"
        "A. stand\nB. bookshelf\nC. oven\nD. wallet\nE. aquarium"
    )
    prompt, choices = asked(format_of(kinds.UMBRELLA), kinds.UMBRELLA, backwards=True)
    assert choices == tuple("ABCDE")
    assert "A. aquarium\nB. wallet\nC. oven\nD. bookshelf\nE. stand" in prompt


def test_labels_that_all_share_are_asked_for_by_name() -> None:
    prompt, choices = asked(format_of(kinds.CLAIM), kinds.CLAIM)
    assert choices == ("True", "False")
    assert prompt == "Bees make honey.\n\nAnswer with one of: True, False."
    prompt, choices = asked(format_of(kinds.CLAIM), kinds.CLAIM, backwards=True)
    assert choices == ("False", "True")
    assert prompt.endswith("Answer with one of: False, True.")


def test_labels_are_lettered_for_a_model_that_cannot_tell_their_first_tokens_apart() -> None:
    format = format_of(kinds.NLI, labels=kinds.NLI_LABELS)
    prompt, choices = asked(format, kinds.NLI, lettered=True, backwards=True)
    assert choices == ("A", "B", "C")
    assert "A. contradiction\nB. neutral\nC. entailment" in prompt


def test_a_passage_stands_before_its_question_and_an_empty_one_is_left_out() -> None:
    format = format_of(kinds.PASSAGE)
    prompt, _ = asked(format, kinds.PASSAGE)
    assert prompt.startswith("Bees carry nectar home and make honey of it.\n\nBees make honey.\n\n")
    prompt, _ = asked(format, {**kinds.PASSAGE, "context": "  "})
    assert prompt.startswith("Bees make honey.\n\n")


def test_without_a_question_all_fields_are_shown_but_answer_and_options() -> None:
    prompt, _ = asked(without_a_question(kinds.CLAIM), kinds.CLAIM)
    shown, _, wanted = prompt.partition("\n\n")
    assert json.loads(shown) == {"question": "Bees make honey.", "context": None}
    assert wanted == "What is its label?\n\nAnswer with one of: True, False."


def test_an_answer_inside_an_object_is_hidden_there_and_asked_for_by_its_path() -> None:
    prompt, choices = asked(without_a_question(kinds.NESTED), kinds.NESTED)
    shown, _, wanted = prompt.partition("\n\n")
    assert json.loads(shown) == {
        "input": {"claim": "Water boils at 100 degrees.", "source": None},
        "output": {"why": "At sea level it does.", "note": ""},
    }
    assert wanted.startswith("What is its output.label?")
    assert choices == ("true", "false")
    assert kinds.NESTED["output"] == {"why": "At sea level it does.", "label": "true", "note": ""}


@pytest.mark.parametrize("values", [kinds.SPAN, kinds.REVIEW, kinds.NLI, kinds.TAGGED])
def test_free_text_and_open_numbers_cannot_be_asked_for(values: dict[str, Any]) -> None:
    format = format_of(values)
    assert possible_answers(format, values) == []
    assert label_question(format, values, lettered=True) is None


def test_a_format_without_an_answer_cannot_be_asked() -> None:
    format = replace(format_of(kinds.CLAIM), roles=Roles(question=("question",)))
    assert label_question(format, kinds.CLAIM, lettered=False) is None


def test_more_options_than_letters_cannot_be_asked_for_by_letter() -> None:
    options = [f"option {i}" for i in range(MAX_LETTERED + 1)]
    values = {"question": "Which?", "options": options, "label": options[0]}
    assert label_question(format_of(values), values, lettered=False) is None
    fewer = {**values, "options": options[:-1]}
    assert label_question(format_of(fewer), fewer, lettered=False) is not None


# The right answer does not show


@pytest.mark.parametrize("values", CLOSED.values(), ids=CLOSED)
@pytest.mark.parametrize("lettered", [False, True])
@pytest.mark.parametrize("questioned", [True, False])
def test_what_is_shown_is_the_same_whatever_the_answer_is(
    values: dict[str, Any], lettered: bool, questioned: bool
) -> None:
    format = format_of(values) if questioned else without_a_question(values)
    number = len(possible_answers(format, values))
    questions = {
        label_question(format, with_answer(format, values, choice), lettered=lettered)
        for choice in range(number)
    }
    assert len(questions) == 1
    assert None not in questions


@pytest.mark.parametrize("values", CLOSED.values(), ids=CLOSED)
def test_an_example_given_another_answer_claims_it_and_is_otherwise_the_same(values: dict[str, Any]) -> None:
    format = format_of(values)
    path = format.roles.answer
    assert path
    for choice, wanted in enumerate(possible_answers(format, values)):
        other = with_answer(format, values, choice)
        assert assigned_label(format, other) == choice
        assert field_at(other, path) == wanted
        assert json.dumps(with_answer(format, other, assigned_label(format, values))) == json.dumps(values)
        assert format.validator.is_valid(other)


def test_an_answer_of_another_type_or_case_than_its_option_is_found() -> None:
    values: dict[str, Any] = {"question": "2+2?", "options": [3, 4], "label": "4"}
    format = format_of(values)
    assert assigned_label(format, values) == 1
    assert with_answer(format, values, 0)["label"] == "3"
    values = {"question": "Where is the Elbe?", "options": ["Asia", "Europe"], "label": "europe"}
    assert assigned_label(format_of(values), values) == 1


# Orders


@given(number=st.integers(1, 26), seed=st.text(max_size=20))
def test_two_orders_are_a_permutation_and_its_reverse(number: int, seed: str) -> None:
    one, other = option_permutations(number, seed)
    assert sorted(one) == list(range(number))
    assert other == one[::-1]
    assert option_permutations(number, seed) == (one, other)


def test_over_many_questions_every_option_stands_everywhere_equally_often() -> None:
    from scipy.stats import chisquare

    places = [option_permutations(5, f"42:question {i}")[0].index(0) for i in range(2000)]
    assert chisquare([places.count(place) for place in range(5)]).pvalue > 1e-4


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.text(max_size=8), st.booleans())
def test_a_verifier_without_leaning_gives_its_own_probabilities_back(
    own: list[float], seed: str, lettered: bool
) -> None:
    options = tuple(f"option {i}" for i in range(len(own)))
    question = LabelQuestion("Which?", options, lettered)
    turns = []
    for order in option_permutations(len(own), seed):
        messages, choices = question.prompt(order)
        shown = dict(re.findall(r"^([A-Z])\. (.*)$", messages[-1]["content"], re.MULTILINE))
        said = [own[options.index(shown.get(choice, choice))] for choice in choices]
        turns.append(question.in_option_order(order, said))
    assert turns == [tuple(own)] * 2
    assert mean_probabilities(turns) == pytest.approx(own)


@given(number=st.integers(2, 8), seed=st.text(max_size=8), wanted=st.integers(0, 7))
def test_a_leaning_to_first_or_last_places_is_evened_out(number: int, seed: str, wanted: int) -> None:
    """One that says A, whatever stands there, gives the first and the last of an order half each."""
    question = LabelQuestion("Which?", tuple(map(str, range(number))), True)
    orders = option_permutations(number, seed)
    leaning = [1.0] + [0.0] * (number - 1)
    averaged = mean_probabilities([question.in_option_order(order, leaning) for order in orders])
    assert averaged[orders[0][0]] == averaged[orders[0][-1]] == 0.5
    assert sum(averaged) == 1


def test_a_label_is_asked_for_as_it_is_spelt_to_people() -> None:
    values = {"text": "The Elbe flows north.", "stars": 3}
    format = format_of(values, labels={"stars": "1,2,3"})
    assert possible_answers(format, values) == [1, 2, 3]
    assert asked(format, values)[1] == tuple(map(answer_text, [1, 2, 3]))
    assert assigned_label(format, values) == 2


def test_options_that_labels_stand_for_are_shown_with_them() -> None:
    document = {
        "properties": {
            "question": {"type": "string"},
            "options": {"type": "array", "items": {"type": "string"}},
            "label": {"enum": ["A", "B"]},
        },
        "x-datacreate": {"roles": {"question": "question", "options": "options", "answer": "label"}},
    }
    format = read_format(document, "letters")
    prompt, choices = asked(format, {"question": "Which flies?", "options": ["fish", "bird"], "label": "B"})
    assert prompt == "Which flies?\nA. fish\nB. bird\n\nAnswer with one of: A, B."
    assert choices == ("A", "B")


@pytest.mark.parametrize("values", CLOSED.values(), ids=CLOSED)
def test_closed_sets_can_be_asked_for_and_free_text_cannot(values: dict[str, Any]) -> None:
    assert can_score_labels(format_of(values))
    assert not can_score_labels(format_of(kinds.SPAN))


def test_options_of_which_the_answer_need_not_be_one_cannot_be_asked_for() -> None:
    format = replace(format_of(kinds.UMBRELLA), rules=frozenset())
    assert not can_score_labels(format)


def test_more_labels_than_letters_can_be_asked_for_only_by_name() -> None:
    labels = {"label": ",".join(f"label {i}" for i in range(MAX_LETTERED + 1))}
    format = format_of({"question": "Why?", "label": "label 3"}, labels=labels)
    assert can_score_labels(format)
    assert not can_score_labels(format, lettered=True)
