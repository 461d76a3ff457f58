"""The prompt that asks the verifier for a label: what it shows, and how the scores are read."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.formats.example import field_at
from datacreate.formats.roles import Roles
from datacreate.formats.task_format import TaskFormat
from datacreate.prompts.label_scoring import (
    MAX_LETTERS,
    LabelPrompt,
    PermutedPrompt,
    can_score_labels,
    make_label_prompt,
)
from tests.formats import examples
from tests.formats.examples import inferred


def format_of(values: dict[str, Any], **how: dict[str, str]) -> TaskFormat:
    return inferred(values, **how).format


def prompt_of(
    task_format: TaskFormat, values: dict[str, Any], *, scored_by_letter: bool = False, reverse: bool = False
) -> tuple[str, tuple[str, ...]]:
    """The prompt and the choices, with the options in their own order or in reverse."""
    prompt = make_label_prompt(task_format, values, scored_by_letter=scored_by_letter)
    assert prompt
    order = range(len(prompt.options))
    messages, choices = prompt.messages_and_choices(order[::-1] if reverse else order)
    assert [message["role"] for message in messages] == ["system", "user"]
    return "\n\n".join(message["content"] for message in messages), choices


LETTER = "Answer with the letter of the right option.\n\n"
"""The system prompt for options with letters."""


def test_own_options_get_letters_in_the_order_in_which_they_are_shown() -> None:
    prompt, choices = prompt_of(format_of(examples.UMBRELLA), examples.UMBRELLA)
    assert choices == tuple("ABCDE")
    assert prompt == (
        f"{LETTER}Where would you put a wet umbrella when you come home?\n\n"
        "A. stand\nB. bookshelf\nC. oven\nD. wallet\nE. aquarium"
    )
    prompt, choices = prompt_of(format_of(examples.UMBRELLA), examples.UMBRELLA, reverse=True)
    assert choices == tuple("ABCDE")
    assert "A. aquarium\nB. wallet\nC. oven\nD. bookshelf\nE. stand" in prompt


def test_fixed_labels_are_scored_by_name_or_by_letter() -> None:
    prompt, choices = prompt_of(format_of(examples.CLAIM), examples.CLAIM)
    assert choices == ("True", "False")
    assert prompt == "Answer with one of: True, False.\n\nBees make honey."
    assert prompt_of(format_of(examples.CLAIM), examples.CLAIM, reverse=True)[1] == ("False", "True")
    task_format = format_of(examples.NLI, labels=examples.NLI_LABELS)
    prompt, choices = prompt_of(task_format, examples.NLI, scored_by_letter=True, reverse=True)
    assert choices == ("A", "B", "C")
    assert "A. contradiction\nB. neutral\nC. entailment" in prompt
    stars = {"text": "The Elbe flows north.", "stars": 3}
    task_format = format_of(stars, labels={"stars": "1,2,3"})
    assert prompt_of(task_format, stars)[1] == ("1", "2", "3")
    assert task_format.answers.right_index(stars) == task_format.answers.right_index({**stars, "stars": 3.0}) == 2
    task_format = format_of(examples.PASSAGE)
    prompt, _ = prompt_of(task_format, examples.PASSAGE)
    assert prompt.endswith("\n\nBees carry nectar home and make honey of it.\n\nBees make honey.")
    prompt, _ = prompt_of(task_format, {**examples.PASSAGE, "context": "  "})
    assert prompt == "Answer with one of: True, False.\n\nBees make honey."


def test_all_inputs_are_shown_with_their_names() -> None:
    mail = {"subject": "Your order", "body": "It left today.", "topic": "shipping", "day": 3}
    prompt, _ = prompt_of(format_of(mail, labels={"topic": "shipping,payment"}), mail)
    assert prompt == "Answer with one of: shipping, payment.\n\nsubject: Your order\nbody: It left today."
    claim = {"input": {"claim": "Ice floats.", "by": "a book"}, "label": "true"}
    prompt, _ = prompt_of(format_of(claim), claim)
    assert prompt.endswith("\n\ninput.claim: Ice floats.\ninput.by: a book")
    size = {"height": 3, "width": 4, "label": "true"}
    assert prompt_of(format_of(size), size)[0].endswith("\n\nheight: 3\nwidth: 4")


def test_what_can_be_scored_is_a_closed_set_that_fits_the_letters() -> None:
    for values in (examples.SPAN, examples.REVIEW, examples.TAGGED):
        task_format = format_of(values)
        assert not can_score_labels(task_format)
        assert task_format.answers.choices(values) == []
        assert make_label_prompt(task_format, values, scored_by_letter=True) is None
    assert all(can_score_labels(format_of(values)) for values in examples.CLOSED.values())
    assert not can_score_labels(replace(format_of(examples.UMBRELLA), rules=frozenset()))
    no_answer = replace(format_of(examples.CLAIM), roles=Roles(inputs=(("question",),)))
    assert make_label_prompt(no_answer, examples.CLAIM, scored_by_letter=False) is None
    labels = {"label": ",".join(f"label {i}" for i in range(MAX_LETTERS + 1))}
    task_format = format_of({"question": "Why?", "label": "label 3"}, labels=labels)
    assert can_score_labels(task_format)
    assert not can_score_labels(task_format, scored_by_letter=True)
    options = [f"option {i}" for i in range(MAX_LETTERS + 1)]
    for number in (MAX_LETTERS, MAX_LETTERS + 1):
        values = {"question": "Which?", "options": options[:number], "label": options[0]}
        prompt = make_label_prompt(format_of(values), values, scored_by_letter=False)
        assert (prompt is not None) == (number == MAX_LETTERS)


@pytest.mark.parametrize("values", examples.CLOSED.values(), ids=examples.CLOSED)
@pytest.mark.parametrize("scored_by_letter", [False, True])
def test_the_label_prompt_does_not_depend_on_the_answer(values: dict[str, Any], scored_by_letter: bool) -> None:
    task_format = format_of(values)
    prompts = set()
    for index, answer in enumerate(task_format.answers.choices(values)):
        other = task_format.answers.with_choice(values, index)
        assert task_format.answers.right_index(other) == index
        assert field_at(other, task_format.roles.answer or ()) == answer
        assert json.dumps(
            task_format.answers.with_choice(other, task_format.answers.right_index(values))
        ) == json.dumps(values)
        prompts.add(make_label_prompt(task_format, other, scored_by_letter=scored_by_letter))
    assert len(prompts) == 1
    assert None not in prompts


def test_an_answer_of_another_type_or_case_than_its_option_is_found() -> None:
    values: dict[str, Any] = {"question": "2+2?", "options": [3, 4], "label": "4"}
    task_format = format_of(values)
    assert task_format.answers.right_index(values) == 1
    assert task_format.answers.with_choice(values, 0)["label"] == "3"
    values = {"question": "Where is the Elbe?", "options": ["Asia", "Europe"], "label": "europe"}
    assert format_of(values).answers.right_index(values) == 1


def test_shared_labels_are_asked_once_in_their_own_order() -> None:
    prompt = PermutedPrompt(LabelPrompt("Which?", ("yes", "no"), scored_by_letter=False), "seed")
    assert list(prompt.permutations) == [0]
    assert prompt.messages_and_choices(0)[1] == ("yes", "no")
    prompt.add_scores(0, [0.3, 0.7])
    assert prompt.mean_scores() == (0.3, 0.7)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.text(max_size=8))
def test_scores_of_letters_are_averaged_over_an_order_and_its_reverse(own: list[float], seed: str) -> None:
    options = tuple(f"option {i}" for i in range(len(own)))
    orders = []
    by_option, by_place = (PermutedPrompt(LabelPrompt("Which?", options, True), seed) for _ in "ab")
    for permutation in by_option.permutations:
        assert by_option.mean_scores() is None
        messages, choices = by_option.messages_and_choices(permutation)
        assert (messages, choices) == by_place.messages_and_choices(permutation)
        shown = dict(re.findall(r"^([A-Z])\. (.*)$", messages[-1]["content"], re.MULTILINE))
        orders.append([options.index(shown.get(choice, choice)) for choice in choices])
        by_option.add_scores(permutation, [own[index] for index in orders[-1]])
        by_place.add_scores(permutation, [1.0] + [0.0] * (len(own) - 1))
    assert sorted(orders[0]) == list(range(len(own)))
    assert orders[1] == orders[0][::-1]
    assert by_option.mean_scores() == pytest.approx(own)
    averaged = by_place.mean_scores()  # a preference for the first position is averaged out
    assert averaged
    assert averaged[orders[0][0]] == averaged[orders[0][-1]] == (0.5 if len(own) > 1 else 1)
