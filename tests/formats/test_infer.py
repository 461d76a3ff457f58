"""Any JSON object can be the example: what is understood of it, and what must be told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings

from datacreate.errors import DatacreateError, ExampleError, UsageError
from datacreate.formats.example import Example
from datacreate.formats.infer import InferredFormat
from datacreate.formats.parse import parse_completion, parse_item
from datacreate.formats.response_schema import build_response_schema
from datacreate.formats.serialization import Layout
from datacreate.formats.task_format import bind, read_format
from datacreate.formats.validate import Candidate, Reject
from tests.formats import kinds
from tests.formats.kinds import inferred, json_objects, layout_of, seeded
from tests.scripted import fill


@pytest.mark.parametrize("values", kinds.ALL.values(), ids=kinds.ALL)
def test_an_example_of_any_kind_is_valid_under_the_format_worked_out_from_it(values: dict[str, Any]) -> None:
    assert inferred(values).format.validator.is_valid(values)


@pytest.mark.parametrize("values", kinds.ALL.values(), ids=kinds.ALL)
def test_a_model_that_obeys_the_grammar_writes_examples_of_the_same_fields_and_types(
    values: dict[str, Any],
) -> None:
    layout = layout_of(values)
    text = json.dumps(fill(json.loads(build_response_schema(layout, 3, None)), seeded(), 10**6))
    results = parse_completion(text, layout, 3, truncated=False)
    assert len(results) == 3
    for result in results:
        if isinstance(result, Candidate):
            assert list(result.example.values) == list(values)


def roles(values: dict[str, Any], **told: dict[str, str]) -> dict[str, str]:
    return inferred(values, **told).format.roles.named()


def test_what_the_shipped_formats_describe_is_read_as_one_of_them() -> None:
    assert inferred(kinds.UMBRELLA).format.name == "multiple_choice"
    assert inferred(kinds.CLAIM).format.name == "yes_no_closed_book"
    assert inferred(kinds.PASSAGE).format.name == "yes_no_open_book"


def test_natural_language_inference_is_a_hypothesis_and_a_premise_with_three_labels() -> None:
    found = inferred(kinds.NLI, labels=kinds.NLI_LABELS)
    assert found.format.roles.named() == {"question": "hypothesis", "context": "premise", "answer": "label"}
    assert found.format.labels == ("entailment", "neutral", "contradiction")
    assert found.format.head == "sequence_classification"
    assert "labels entailment, neutral, contradiction" in found.notes[0]


def test_without_labels_an_answer_is_free_text_and_one_line_says_so() -> None:
    found = inferred({"text": "I love it.", "sentiment": "positive"})
    assert found.format.labels is None
    assert (
        found.notes[1]
        == "sentiment is free text; if it has a fixed set of values, add --labels sentiment=a,b,c"
    )


def test_an_answer_that_stands_in_the_context_must_always_stand_there() -> None:
    layout = layout_of(kinds.SPAN)
    inside = ["Ada Lovelace wrote the first program.", "Who wrote it?", "Ada Lovelace"]
    assert isinstance(parse_item(inside, layout), Candidate)
    result = parse_item([*inside[:2], "Charles Babbage"], layout)
    assert isinstance(result, Reject)
    assert result.reason == "answer_not_in_context"


def test_a_yes_no_answer_or_a_told_label_is_no_span_even_if_the_context_has_the_word() -> None:
    yes = {"context": "yes, it rained.", "question": "Did it rain?", "answer": "yes"}
    assert inferred(yes).format.rules == frozenset()
    assert inferred(yes).format.labels == ("yes", "no")
    told = {"context": "good weather", "question": "How was it?", "answer": "good"}
    assert inferred(told, labels={"answer": "good,bad"}).format.rules == frozenset()


def test_a_range_of_whole_numbers_is_a_set_of_labels() -> None:
    assert inferred(kinds.REVIEW, ranges={"stars": "1..5"}).format.labels == (1, 2, 3, 4, 5)


def test_a_wide_range_and_one_of_fractions_are_numbers() -> None:
    assert inferred({"text": "hot", "celsius": 40}, ranges={"celsius": "-50..60"}).format.labels is None
    found = inferred({"text": "so so", "score": 0.5}, ranges={"score": "0..1"}).format
    assert found.labels is None
    assert not found.validator.is_valid({"text": "x", "score": 1.5})


def test_roles_are_found_inside_objects() -> None:
    assert roles(kinds.NESTED) == {"question": "input.claim", "answer": "output.label"}
    assert inferred(kinds.NESTED).format.labels == ("true", "false")


def test_labels_may_be_told_for_a_field_inside_an_object() -> None:
    values = {"review": {"text": "Fine.", "mood": "good"}}
    found = inferred(values, labels={"review.mood": "good,bad"}).format
    assert found.labels == ("good", "bad")
    assert found.roles.answer == ("review", "mood")


def test_keys_may_hold_dots() -> None:
    found = inferred(kinds.DOTTED, labels={"a.label": "yes,no"}).format
    assert found.roles.answer == ("a.label",)
    again = bind(read_format(found.document(), "inferred"), Example(kinds.DOTTED))
    assert again == found


def test_options_that_are_the_told_labels_do_not_vary() -> None:
    values = {"question": "How is it?", "options": ["good", "bad"], "label": "good"}
    layout = layout_of(values, labels={"label": "bad,good"})
    assert not layout.format.options_vary
    assert layout.fields == ("label", "question")


def test_an_answer_given_as_a_place_is_no_error_but_one_spelled_wrong_is() -> None:
    values = {"stem": "Two and two?", "choices": ["three", "four"]}
    assert roles({**values, "label": 1})["answer"] == "label"
    assert "options" not in roles({**values, "label": "B"})
    with pytest.raises(ExampleError, match="'five' is not among choices"):
        inferred({**values, "label": "five"})


def test_an_answer_outside_the_options_of_a_shipped_format_is_an_error_too() -> None:
    with pytest.raises(ExampleError, match="answer_in_options"):
        inferred({**kinds.UMBRELLA, "label": "attic"})


@pytest.mark.parametrize("nothing", [{"a": None}, {"a": ""}, {"a": []}, {"a": {"b": None}}, {}])
def test_an_example_in_which_nothing_can_vary_is_an_error(nothing: dict[str, Any]) -> None:
    with pytest.raises(ExampleError, match="no field that can vary"):
        inferred(nothing)


def test_a_lone_text_is_what_is_to_be_written() -> None:
    found = inferred({"output": "A poem about rain."}).format
    assert found.roles.answer is None
    assert found.head is None


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"labels": {"lable": "a,b"}}, "no such field; it has text, stars"),
        ({"labels": {"stars": "1"}}, "two or more different values"),
        ({"labels": {"stars": "1,1"}}, "two or more different values"),
        ({"labels": {"stars": "good,bad"}}, "is of type integer"),
        ({"labels": {"stars": "2,3"}}, "not one of"),
        ({"ranges": {"text": "1..5"}}, "is not a number"),
        ({"ranges": {"stars": "1-5"}}, "write LOW..HIGH"),
        ({"ranges": {"stars": "5..1"}}, "LOW must be less"),
        ({"ranges": {"stars": "2..5"}}, "outside"),
        ({"ranges": {"stars": "1..5"}, "labels": {"stars": "1,2"}}, "both --labels and --range"),
    ],
)
def test_what_is_told_must_fit_the_example(told: dict[str, dict[str, str]], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        inferred(kinds.REVIEW, **told)


def test_only_single_values_can_be_labels() -> None:
    with pytest.raises(UsageError, match="has a list there"):
        inferred(kinds.TAGGED, labels={"tags": "a,b"})
    with pytest.raises(UsageError, match="has null there"):
        inferred({"text": "x", "label": None}, labels={"label": "a,b"})
    with pytest.raises(UsageError, match="of type boolean"):
        inferred({"text": "x", "label": True}, labels={"label": "yes,no"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**63, "\ud800", {1, 2}, {1: "x"}, b"x"])
def test_what_no_line_of_json_can_hold_is_refused(value: Any) -> None:
    with pytest.raises(ExampleError):
        inferred({"text": "a", "value": value})


def understood_or_refused(values: dict[str, Any]) -> InferredFormat | str:
    try:
        return inferred(values)
    except DatacreateError as error:
        return str(error)


@settings(max_examples=150)
@given(values=json_objects)
def test_any_object_is_understood_or_refused_in_one_line(values: dict[str, Any]) -> None:
    found = understood_or_refused(values)
    if isinstance(found, str):
        assert len(found.splitlines()) == 1
        return
    format = found.format
    assert all(len(note.splitlines()) == 1 for note in found.notes)
    assert format.validator.is_valid(values)
    assert bind(read_format(json.loads(json.dumps(format.document())), "inferred"), Example(values)) == format
    for style in ("positional", "keyed"):
        reads_what_it_writes(Layout(format, style), values)


def reads_what_it_writes(layout: Layout, values: dict[str, Any]) -> None:
    written = layout.write(Example(values))
    schema = json.loads(build_response_schema(layout, 1, None))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate([written], schema, jsonschema.Draft202012Validator)
    assert layout.read(written).keys() == values.keys()
    answer = layout.format.roles.answer
    if not answer or answer[0] in layout.fields:  # else it is the first option, and its spelling the option's
        assert layout.read(written) == values
    number = 2
    labels = list(layout.format.labels[:number]) if layout.format.labels else None
    made = fill(json.loads(build_response_schema(layout, number, labels)), seeded(), 10**6)
    for result in parse_completion(json.dumps(made), layout, number, truncated=False):
        assert isinstance(result, Reject) or layout.format.validator.is_valid(result.example.values)


BENCHMARKS = sorted(Path(__file__).parents[3].glob("shared/benchmarks/*/*/test.jsonl"))
SHIPPED = {"mcqa_2": "multiple_choice", "mcqa_5": "multiple_choice"} | {
    "yesno_close": "yes_no_closed_book",
    "yesno_open": "yes_no_open_book",
}


@pytest.mark.skipif(not BENCHMARKS, reason="the benchmarks are not on this machine")
@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.parent.name)
def test_every_benchmark_row_is_read_as_its_shipped_format(path: Path) -> None:
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for values in rows[:: max(1, len(rows) // 100)]:
        if len({option.strip().casefold() for option in values["options"]}) == len(values["options"]):
            assert inferred(values).format.name == SHIPPED[path.parts[-3]]
