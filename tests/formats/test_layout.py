"""What the model is asked to write, and how that becomes an example again."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from datacreate.formats.example import Example, field_at
from datacreate.formats.response_schema import build_response_schema
from datacreate.formats.serialization import Layout, MalformedItem
from tests.formats import kinds
from tests.formats.kinds import layout_of


def test_constants_are_never_written() -> None:
    assert layout_of(kinds.UMBRELLA).fields == ("question", "options")
    assert layout_of(kinds.CLAIM).fields == ("label", "question")


def test_constants_inside_objects_are_not_written_either_and_come_back() -> None:
    layout = layout_of(kinds.NESTED)
    written = layout.write(Example(kinds.NESTED))
    assert written == [
        {"label": "true", "why": "At sea level it does."},
        {"claim": "Water boils at 100 degrees."},
    ]
    assert json.dumps(layout.read(written)) == json.dumps(kinds.NESTED)


def test_a_fixed_label_comes_first_so_that_the_text_is_written_for_it() -> None:
    layout = layout_of(kinds.NLI, labels=kinds.NLI_LABELS)
    assert layout.write(Example(kinds.NLI)) == ["entailment", "A man plays a guitar.", "A man makes music."]
    assert layout.read(["neutral", "p", "h"]) == {"premise": "p", "hypothesis": "h", "label": "neutral"}


def test_labels_are_dealt_as_constants() -> None:
    layout = layout_of(kinds.NLI, labels=kinds.NLI_LABELS)
    schema = json.loads(build_response_schema(layout, 2, ["neutral", "entailment"]))
    assert [item["prefixItems"][0] for item in schema["prefixItems"]] == [
        {"const": "neutral"},
        {"const": "entailment"},
    ]
    checker = jsonschema.Draft202012Validator(schema)
    assert checker.is_valid([["neutral", "p", "h"], ["entailment", "p", "h"]])
    assert not checker.is_valid([["entailment", "p", "h"], ["neutral", "p", "h"]])


def test_a_label_inside_an_object_is_dealt_before_the_text_beside_it() -> None:
    layout = layout_of(kinds.NESTED)
    [item] = json.loads(build_response_schema(layout, 1, ["false"]))["prefixItems"]
    assert next(iter(item["prefixItems"][0]["properties"].items())) == ("label", {"const": "false"})


@pytest.mark.parametrize("values", [kinds.CLAIM, kinds.NESTED], ids=["beside the text", "inside an object"])
def test_where_the_text_comes_first_no_label_is_written_and_the_first_one_is_read(
    values: dict[str, Any],
) -> None:
    layout = layout_of(values)
    assert layout.supports_pseudo_labels
    first = replace(layout, pseudo_labels=True)
    answer, labels = layout.format.roles.answer, layout.format.labels
    assert answer
    assert labels
    written = first.write(Example(values))
    assert "label" not in build_response_schema(first, 2, None)
    read = first.read(written)
    assert field_at(read, answer) == labels[0]
    assert read.keys() == values.keys()
    assert first.write(Example(read)) == written


def test_with_options_that_vary_the_question_comes_first_and_the_right_option_leads() -> None:
    layout = layout_of({**kinds.UMBRELLA, "label": "oven"})
    assert layout.describe() == "[question, [right option, 4 wrong options]]"
    question, options = layout.write(Example({**kinds.UMBRELLA, "label": "oven"}))
    assert question == kinds.UMBRELLA["question"]
    assert options[0] == "oven"
    assert sorted(options) == sorted(kinds.UMBRELLA["options"])


def test_the_answer_is_among_the_options_by_construction() -> None:
    values = layout_of(kinds.UMBRELLA).read(["q", ["a", "b", "c", "d", "e"]])
    assert values["label"] == "a"
    assert sorted(values["options"]) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("number", [2, 3, 5, 8])
def test_the_right_options_place_and_everyone_elses_is_uniform(number: int) -> None:
    values = {"question": "q", "options": [f"o{i}" for i in range(number)], "label": "o0"}
    layout = layout_of({**values, "context": None})
    places_are_uniform(
        [layout.read([f"question {i}", values["options"]])["options"] for i in range(400 * number)]
    )


def places_are_uniform(read: list[list[Any]]) -> None:
    """Each list the same options in another order: of every option the places are counted."""
    number = len(read[0])
    for option in read[0]:
        places = Counter(options.index(option) for options in read)
        expected = len(read) / number
        chi_square = sum((places[place] - expected) ** 2 / expected for place in range(number))
        assert chi_square < 30  # far beyond the 99.9th percentile of 7 degrees of freedom


INSIDE = {"q": {"question": "Which is red?", "options": ["a rose", "snow", "grass"], "answer": "a rose"}}
MIXED = {"question": "2+2?", "options": [4, 3, 5], "label": "4"}


@pytest.mark.parametrize("values", [INSIDE, MIXED], ids=["inside an object", "of another type"])
@pytest.mark.parametrize("place", [0, 2])
def test_options_beside_an_answer_of_their_own_are_uniform_wherever_the_model_puts_the_right_one(
    values: dict[str, Any], place: int
) -> None:
    layout = layout_of(values)
    assert layout.format.roles.options
    *inside, name = layout.format.roles.options
    read = []
    for i in range(1200):
        written = json.loads(json.dumps(values))
        told = field_at(written, tuple(inside))
        told[name].insert(place, told[name].pop(0))
        told["question"] = f"question {i}"
        item = layout.write(Example(written))
        read.append(field_at(layout.read(item), layout.format.roles.options))
        assert field_at(layout.read(item), (*inside, "question")) == f"question {i}"
        assert layout.read(item) == layout.read(item)
    places_are_uniform(read)


@pytest.mark.parametrize("q", [3, {}, {"question": "q", "options": "none", "answer": "a"}, {"options": []}])
def test_what_has_no_options_to_deal_out_is_left_for_validation(q: Any) -> None:
    assert layout_of(INSIDE).read([q]) == {"q": q}


def test_options_that_need_not_hold_the_answer_keep_their_order() -> None:
    format = replace(layout_of(INSIDE).format, rules=frozenset())
    for i in range(20):
        q = {"question": f"question {i}", "options": ["x", "y", "z"], "answer": "none of them"}
        assert Layout(format).read([q]) == {"q": q}


def test_the_paper_style_keeps_the_order_of_options() -> None:
    layout = Layout(layout_of(INSIDE).format, "keyed")
    for i in range(20):
        item = {"q": {**INSIDE["q"], "question": f"question {i}"}}
        assert layout.read(item) == item


def test_what_is_read_twice_is_the_same_twice() -> None:
    layout = layout_of(kinds.UMBRELLA)
    item: list[Any] = ["q", ["a", "b", "c", "d", "e"]]
    assert layout.read(item) == layout.read(item)
    assert item == ["q", ["a", "b", "c", "d", "e"]]


def test_an_exact_answer_leads_before_one_that_differs_in_case() -> None:
    values = {"question": "Which comes from Warsaw?", "choices": ["polish", "Polish "], "label": "Polish "}
    layout = layout_of({**values, "choices": ["Polish ", "shine"]})
    assert layout.write(Example({**values, "choices": ["shine", "polish ", "Polish "]}))[1][0] == "Polish "


def test_options_of_another_type_than_the_answer_are_not_merged_with_it() -> None:
    values = {"question": "2+2?", "options": [3, 4], "label": "4"}
    layout = layout_of(values)
    assert layout.fields == ("question", "options", "label")
    read = layout.read(layout.write(Example(values)))
    assert {**read, "options": sorted(read["options"])} == values


def test_the_paper_style_writes_the_object_as_it_is() -> None:
    layout = Layout(layout_of(kinds.UMBRELLA).format, "keyed")
    assert layout.write(Example(kinds.UMBRELLA)) == kinds.UMBRELLA
    assert layout.describe() == "{question, context, options, label}"
    assert list(layout.read(dict(reversed(kinds.UMBRELLA.items())))) == list(kinds.UMBRELLA)


@pytest.mark.parametrize(
    "item", [None, 3, "text", {}, [], ["q"], ["q", []], ["q", "options"], ["q", ["a"], "more"]]
)
def test_what_has_another_shape_is_malformed(item: Any) -> None:
    with pytest.raises(MalformedItem):
        layout_of(kinds.UMBRELLA).read(item)


def test_the_grammar_is_the_same_string_for_the_same_request() -> None:
    layout = layout_of(kinds.CLAIM)
    assert build_response_schema(layout, 2, [True, False]) == build_response_schema(layout, 2, [True, False])
