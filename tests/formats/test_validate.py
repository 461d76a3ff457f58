"""From what a model wrote to examples, and a reason for everything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datacreate.formats.example import Example
from datacreate.formats.parse import parse_completion, parse_item
from datacreate.formats.serialization import Layout
from datacreate.formats.task_format import bind, read_format
from datacreate.formats.validate import Candidate, Reason, Reject
from tests.formats import kinds
from tests.formats.kinds import layout_of

CHOICE = layout_of(kinds.UMBRELLA)
CLAIMS = layout_of(kinds.CLAIM)
NUMBERS = layout_of({"text": "a b", "score": 0.5, "count": 3})
GOOD = [
    ["Where do boats sleep?", ["harbour", "attic", "spoon", "cloud", "sock"]],
    ["Who bakes?", ["a baker", "b", "c", "d", "e"]],
]


def read(text: str, layout: Layout = CHOICE, count: int = 5, **how: Any) -> list[str]:
    """What became of each thing that was written: a question, or the reason against it."""
    results = parse_completion(text, layout, count, **{"truncated": False, **how})
    return [
        str(result.example.values.get("question")) if isinstance(result, Candidate) else result.reason.value
        for result in results
    ]


QUESTIONS = [item[0] for item in GOOD]
TEXT = json.dumps(GOOD)


def test_a_whole_array_gives_its_items_in_order() -> None:
    assert read(TEXT) == QUESTIONS


def test_only_the_json_of_the_text_is_read() -> None:
    assert read(f"<think>[1]?</think>Here you are:\n```json\n{TEXT}\n```") == QUESTIONS
    assert read(f"Here you are:\n```json\n{TEXT[:-8]}", truncated=True) == [QUESTIONS[0], "truncated"]


def test_thinking_that_never_ends_is_no_answer() -> None:
    assert read(f"<think>Perhaps {TEXT}", truncated=True) == ["truncated"]


def test_a_truncated_array_gives_its_complete_items() -> None:
    assert read(TEXT[:-8], truncated=True) == [QUESTIONS[0], "truncated"]
    assert read(TEXT[:-8], truncated=False) == [QUESTIONS[0], "invalid_json"]


def test_without_salvage_a_torn_array_is_lost_whole() -> None:
    assert read(TEXT[:-8], truncated=True, salvage=False) == ["truncated"]


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("", ["no_response"]),
        ("  \n", ["no_response"]),
        ("[]", ["no_response"]),
        ("I cannot do that.", ["invalid_json"]),
        ('{"question": "q"}', ["invalid_json"]),
        ("[" * 100_000, ["invalid_json"]),
        ("[" + "[" * 900 + "]" * 900 + "]", ["schema_violation"]),
        ('[{"a":' * 50_000, ["invalid_json"]),
        ("[1, null, true]", ["schema_violation"] * 3),
        ("[" + "9" * 5000 + "]", ["invalid_json"]),
    ],
)
def test_what_is_no_answer_is_a_reason_and_no_exception(text: str, reasons: list[str]) -> None:
    assert read(text) == reasons


def test_more_than_was_asked_for_is_surplus() -> None:
    assert read(TEXT, count=1) == [QUESTIONS[0], "not_needed"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_python_takes_for_a_number_and_json_does_not_stays_out(number: str) -> None:
    good = '["fine", 0.25, 4]'
    layout = NUMBERS
    results = parse_completion(f'[["some words", {number}, 1], {good}]', layout, 2, truncated=False)
    assert isinstance(results[0], Reject)
    assert results[0].reason is Reason.SCHEMA_VIOLATION
    assert isinstance(results[1], Candidate)


def test_a_number_that_cannot_be_divided_is_rejected_too() -> None:
    schema = {"type": "object", "properties": {"text": {"type": "string"}, "x": {"multipleOf": 0.5}}}
    layout = Layout(bind(read_format(schema, "mine"), Example({"text": "a b", "x": 1.5})))
    for number, reason in (
        (float("nan"), "schema_violation"),
        (float("inf"), "schema_violation"),
        (10**400, "schema_violation"),
        (1.3, "constraint_violation"),
    ):
        result = parse_item(["some words", number], layout)
        assert isinstance(result, Reject)
        assert result.reason == reason
    assert isinstance(parse_item(["some words", 2.5], layout), Candidate)


def test_numbers_keep_the_type_of_the_formatting_example() -> None:
    assert isinstance(parse_item(["some words", 0.5, 3], NUMBERS), Candidate)
    for count in (3.0, 2**70, "3", True):
        assert isinstance(parse_item(["some words", 0.5, count], NUMBERS), Reject)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (["Q?", ["a", "b", "c", "d"]], Reason.SCHEMA_VIOLATION),
        (["Q?", ["a", "b", "c", "d", 5]], Reason.SCHEMA_VIOLATION),
        ([None, ["a", "b", "c", "d", "e"]], Reason.SCHEMA_VIOLATION),
        (["", ["a", "b", "c", "d", "e"]], Reason.BLANK),
        (["Q?", ["a", "b", " \u200b\n", "d", "e"]], Reason.BLANK),
        ([" },{ ", ["a", "b", "c", "d", "e"]], Reason.BLANK),
        (["Q\x00?", ["a", "b", "c", "d", "e"]], Reason.INVALID_CHARACTERS),
        ([f"Q {chr(0xD83D)}?", ["a", "b", "c", "d", "e"]], Reason.INVALID_CHARACTERS),
        (["Q \ufffd?", ["a", "b", "c", "d", "e"]], Reason.INVALID_CHARACTERS),
        (["Q â\x80\x99?", ["a", "b", "c", "d", "e"]], Reason.INVALID_CHARACTERS),
        (["Q?", ["a", "b", "c", "B ", "e"]], Reason.DUPLICATE_OPTIONS),
        (["Q?", ["right option", "b", "c", "d", "e"]], Reason.PLACEHOLDER),
        (["Q?", ["a", "-1 wrong option", "c", "d", "e"]], Reason.PLACEHOLDER),
        (["Q?", ["a", "b", "4 wrong options", "d", "e"]], Reason.PLACEHOLDER),
        (["Q?", ["a", "Option 2", "c", "d", "e"]], Reason.PLACEHOLDER),
        (["[question]", ["a", "b", "c", "d", "e"]], Reason.PLACEHOLDER),
    ],
)
def test_each_fault_has_its_reason(item: Any, reason: Reason) -> None:
    result = parse_item(item, CHOICE)
    assert isinstance(result, Reject)
    assert result.reason is reason


def test_an_answer_must_be_among_its_options_where_it_is_written_apart() -> None:
    result = parse_item({**kinds.UMBRELLA, "label": "attic"}, Layout(CHOICE.format, "keyed"))
    assert isinstance(result, Reject)
    assert result.reason is Reason.ANSWER_NOT_IN_OPTIONS


@pytest.mark.parametrize(
    "option", ["right", "+", "😀", "C#", "an option to buy", "la réponse", "نعم", "\u2028 x"]
)
def test_short_odd_and_foreign_texts_are_texts(option: str) -> None:
    assert isinstance(parse_item(["Q?", [option, "b", "c", "d", "e"]], CHOICE), Candidate)


def test_what_the_user_fixed_is_never_blank_or_an_echo() -> None:
    layout = layout_of(
        {"text": "Ask me.", "note": "", "label": "question"},
        labels={"label": "question,statement"},
    )
    assert isinstance(parse_item(["question", "What is it?"], layout), Candidate)


def test_a_repeated_key_is_read_as_its_last_value() -> None:
    keyed = Layout(CLAIMS.format, "keyed")
    text = (
        '[{"question": "a?", "question": "b?", "context": null, "options": ["True", "False"], "label": true}]'
    )
    assert read(text, keyed) == ["b?"]


def test_a_rejects_text_is_short_and_printable() -> None:
    [result] = parse_completion(json.dumps([["\ud800" * 1000]]), CHOICE, 1, truncated=False)
    assert isinstance(result, Reject)
    assert len(result.text) < 450
    result.text.encode("utf-8")


def test_the_key_by_which_repeats_are_found_is_the_question_without_case_and_marks() -> None:
    first, second = (
        parse_item([q, GOOD[0][1]], CHOICE) for q in ("Where do boats sleep?", "where do  boats sleep")
    )
    assert isinstance(first, Candidate)
    assert isinstance(second, Candidate)
    assert first.key == second.key


def test_without_a_question_repeats_are_found_by_all_free_text_or_else_by_everything() -> None:
    tagged = layout_of({"tags": ["a", "b"]})
    assert len({parse_item([tags], tagged).key for tags in (["a"], ["b"], ["a", "b"])}) == 3  # type: ignore[union-attr]
    plain = layout_of({"x": 1, "y": 2})
    assert len({parse_item(item, plain).key for item in ([1, 2], [2, 1])}) == 2  # type: ignore[union-attr]


@settings(max_examples=200)
@given(
    text=st.text() | kinds.json_values.map(json.dumps) | st.text(alphabet='[]{},":1eE.-tn ul\\'),
    salvage=st.booleans(),
)
@example(text="[[[]]", salvage=True)
def test_any_text_whatsoever_gives_a_list(text: str, salvage: bool) -> None:
    for layout in (CHOICE, CLAIMS, NUMBERS, Layout(CHOICE.format, "keyed")):
        results = parse_completion(text, layout, 3, truncated=False, salvage=salvage)
        assert results


@settings(max_examples=100)
@given(items=st.lists(kinds.json_values, min_size=1, max_size=4), data=st.data())
def test_an_array_cut_anywhere_gives_a_prefix_of_its_items(items: list[Any], data: st.DataObject) -> None:
    text = json.dumps(items)
    cut = data.draw(st.integers(1, len(text)))
    whole = parse_completion(text, CHOICE, 9, truncated=True)
    *given_back, last = parse_completion(text[:cut], CHOICE, 9, truncated=True)
    if cut == len(text):
        given_back.append(last)
    else:
        assert isinstance(last, Reject)
        assert last.reason is Reason.TRUNCATED
    assert given_back == whole[: len(given_back)]
