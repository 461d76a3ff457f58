"""Layouts: how examples are written and read back."""

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
from datacreate.prompts.generation import chat_prompt
from tests.formats import examples
from tests.formats.examples import layout_of

IN_OBJECT = {"q": {"question": "Which is red?", "options": ["a rose", "snow", "grass"], "answer": "a rose"}}
OTHER_TYPE = {"question": "2+2?", "options": [4, 3, 5], "label": "4"}


def test_constants_are_not_written_and_are_restored() -> None:
    assert layout_of(examples.UMBRELLA).fields == ("question", "options")
    layout = layout_of(examples.NESTED)
    written = layout.write(Example(examples.NESTED))
    assert written == [
        {"label": "true", "why": "At sea level it does."},
        {"claim": "Water boils at 100 degrees."},
    ]
    assert json.dumps(layout.read(written)) == json.dumps(examples.NESTED)


def test_fixed_labels_come_first_and_become_constants_of_the_schema() -> None:
    layout = layout_of(examples.NLI, labels=examples.NLI_LABELS)
    assert layout.write(Example(examples.NLI)) == ["entailment", *list(examples.NLI.values())[:2]]
    assert layout.read(["neutral", "p", "h"]) == {"premise": "p", "hypothesis": "h", "label": "neutral"}
    schema = jsonschema.Draft202012Validator(
        json.loads(build_response_schema(layout, 2, ["neutral", "entailment"]))
    )
    assert schema.is_valid([["neutral", "p", "h"], ["entailment", "p", "h"]])
    assert not schema.is_valid([["entailment", "p", "h"], ["neutral", "p", "h"]])
    [item] = json.loads(build_response_schema(layout_of(examples.NESTED), 1, ["false"]))["prefixItems"]
    assert next(iter(item["prefixItems"][0]["properties"].items())) == ("label", {"const": "false"})


@pytest.mark.parametrize("values", [examples.CLAIM, examples.NESTED], ids=["flat", "in an object"])
def test_pseudo_labels_are_not_written(values: dict[str, Any]) -> None:
    layout = layout_of(values)
    assert layout.supports_pseudo_labels
    layout = replace(layout, pseudo_labels=True)
    answer, labels = layout.format.roles.answer, layout.format.labels
    assert answer
    assert labels
    written = layout.write(Example(values))
    assert "label" not in build_response_schema(layout, 2, None)
    read = layout.read(written)
    assert field_at(read, answer) == labels[0]
    assert read.keys() == values.keys()
    assert layout.write(Example(read)) == written


def test_the_right_option_is_written_first_and_the_answer_is_not() -> None:
    values = {**examples.UMBRELLA, "label": "oven"}
    layout = layout_of(values)
    assert layout.describe() == "[question, [right option, 4 wrong options]]"
    question, options = layout.write(Example(values))
    assert question == values["question"]
    assert options[0] == "oven"
    assert sorted(options) == sorted(examples.UMBRELLA["options"])
    item: list[Any] = ["q", ["a", "b", "c", "d", "e"]]
    read = layout.read(item)
    assert read["label"] == "a"
    assert sorted(read["options"]) == ["a", "b", "c", "d", "e"]
    assert layout.read(item) == read
    assert item == ["q", ["a", "b", "c", "d", "e"]]


def test_an_exact_option_is_first_before_one_that_differs_in_case() -> None:
    values = {"question": "Which comes from Warsaw?", "choices": ["polish", "Polish "], "label": "Polish "}
    layout = layout_of({**values, "choices": ["Polish ", "shine"]})
    assert layout.write(Example({**values, "choices": ["shine", "polish ", "Polish "]}))[1][0] == "Polish "


def check_uniform(orders: list[list[Any]]) -> None:
    """Every option must have every position equally often."""
    number = len(orders[0])
    for option in orders[0]:
        positions = Counter(options.index(option) for options in orders)
        expected = len(orders) / number
        chi_square = sum((positions[index] - expected) ** 2 / expected for index in range(number))
        assert chi_square < 30  # beyond the 99.9th percentile for 7 degrees of freedom


@pytest.mark.parametrize("number", [2, 3, 8])
def test_the_positions_of_options_are_uniform(number: int) -> None:
    values = {"question": "q", "options": [f"o{i}" for i in range(number)], "label": "o0"}
    layout = layout_of({**values, "context": None})
    items = [[f"question {i}", values["options"]] for i in range(400 * number)]
    check_uniform([layout.read(item)["options"] for item in items])


@pytest.mark.parametrize("values", [IN_OBJECT, OTHER_TYPE], ids=["in an object", "of another type"])
@pytest.mark.parametrize("position", [0, 2])
def test_options_with_a_separate_answer_are_shuffled_too(values: dict[str, Any], position: int) -> None:
    layout = layout_of(values)
    assert layout.format.roles.options
    *parents, name = layout.format.roles.options
    orders = []
    for i in range(1200):
        written = json.loads(json.dumps(values))
        fields = field_at(written, tuple(parents))
        fields[name].insert(position, fields[name].pop(0))
        fields["question"] = f"question {i}"
        read = layout.read(layout.write(Example(written)))
        orders.append(field_at(read, layout.format.roles.options))
        assert field_at(read, (*parents, "question")) == f"question {i}"
    check_uniform(orders)


@pytest.mark.parametrize("q", [3, {}, {"question": "q", "options": "none", "answer": "a"}, {"options": []}])
def test_malformed_options_are_unchanged(q: Any) -> None:
    assert layout_of(IN_OBJECT).read([q]) == {"q": q}


def test_options_keep_their_order_without_the_rule_and_in_the_paper_style() -> None:
    format = layout_of(IN_OBJECT).format
    for layout in (Layout(replace(format, rules=frozenset())), Layout(format, "keyed")):
        for i in range(20):
            values = {"q": {**IN_OBJECT["q"], "question": f"question {i}"}}
            assert layout.read([values["q"]] if layout.style == "positional" else values) == values


def test_the_paper_style_writes_the_object() -> None:
    layout = Layout(layout_of(examples.UMBRELLA).format, "keyed")
    assert layout.write(Example(examples.UMBRELLA)) == examples.UMBRELLA
    assert layout.describe() == "{question, context, options, label}"
    assert list(layout.read(dict(reversed(examples.UMBRELLA.items())))) == list(examples.UMBRELLA)


@pytest.mark.parametrize(
    "item", [None, "text", {}, [], ["q"], ["q", []], ["q", "text"], ["q", ["a"], "more"]]
)
def test_other_shapes_are_malformed(item: Any) -> None:
    with pytest.raises(MalformedItem):
        layout_of(examples.UMBRELLA).read(item)


def test_the_generation_prompt_asks_for_questions_that_a_fixed_label_answers() -> None:
    def sentence(values: dict[str, Any], labels: dict[str, str]) -> str:
        return chat_prompt(layout_of(values, labels=labels), Example(values), 5)[-1]["content"]

    claim = {"question": "Is ice cold?", "options": ["True", "False"], "label": True}
    assert "Each question is one that True or False alone answers." in sentence(claim, {})
    maybe = {"question": "Is ice cold?", "answer": "yes"}
    assert "yes, no or maybe alone answers." in sentence(maybe, {"answer": "yes,no,maybe"})
    assert "alone answers" not in sentence(examples.NLI, examples.NLI_LABELS)
