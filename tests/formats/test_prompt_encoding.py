"""Prompt encodings: how examples are written and read back."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from datacreate.formats.example import Example, field_at, replace_field
from datacreate.formats.prompt_encoding import MalformedItem, PromptEncoding
from datacreate.formats.response import build_response_schema
from datacreate.prompts.generation import RequestContent, chat_prompt
from tests.formats import examples
from tests.formats.examples import encoding_of

IN_OBJECT = {"q": {"question": "Which is red?", "options": ["a rose", "snow", "grass"], "answer": "a rose"}}
OTHER_TYPE = {"question": "2+2?", "options": [4, 3, 5], "label": "4"}


def test_constants_are_not_written_and_are_restored() -> None:
    assert list(encoding_of(examples.UMBRELLA).field_schemas) == ["question", "options"]
    encoding = encoding_of(examples.NESTED)
    written = encoding.write(Example(examples.NESTED))
    assert json.dumps(written) == json.dumps(
        [{"label": "true", "why": "At sea level it does."}, {"claim": "Water boils at 100 degrees."}]
    )
    assert json.dumps(encoding.read(written)) == json.dumps(examples.NESTED)


def test_fixed_labels_come_first_and_become_constants_of_the_schema() -> None:
    encoding = encoding_of(examples.NLI, labels=examples.NLI_LABELS)
    assert encoding.write(Example(examples.NLI)) == ["entailment", *list(examples.NLI.values())[:2]]
    assert encoding.read(["neutral", "p", "h"]) == {"premise": "p", "hypothesis": "h", "label": "neutral"}
    schema = jsonschema.Draft202012Validator(json.loads(build_response_schema(encoding, 2, ["neutral", "entailment"])))
    assert schema.is_valid([["neutral", "p", "h"], ["entailment", "p", "h"]])
    assert not schema.is_valid([["entailment", "p", "h"], ["neutral", "p", "h"]])
    [item] = json.loads(build_response_schema(encoding_of(examples.NESTED), 1, ["false"]))["prefixItems"]
    assert next(iter(item["prefixItems"][0]["properties"].items())) == ("label", {"const": "false"})


def test_pseudo_labels_are_not_written() -> None:
    values = examples.CLAIM
    assert not encoding_of(examples.NESTED).supports_pseudo_labels
    encoding = encoding_of(values)
    assert encoding.supports_pseudo_labels
    encoding = replace(encoding, pseudo_labels=True)
    answer, labels = encoding.format.roles.answer, encoding.format.labels
    assert answer
    assert labels
    written = encoding.write(Example(values))
    assert "label" not in build_response_schema(encoding, 2, None)
    read = encoding.read(written)
    assert field_at(read, answer) == labels[0]
    assert read.keys() == values.keys()
    assert encoding.write(Example(read)) == written


def test_the_right_option_is_written_first_and_the_answer_is_not() -> None:
    values = {**examples.UMBRELLA, "label": "oven"}
    encoding = encoding_of(values)
    assert encoding.describe() == "[question, [right option, 4 wrong options]]"
    question, options = encoding.write(Example(values))
    assert question == values["question"]
    assert options[0] == "oven"
    assert sorted(options) == sorted(examples.UMBRELLA["options"])
    item: list[Any] = ["q", ["a", "b", "c", "d", "e"]]
    read = encoding.read(item)
    assert read["label"] == "a"
    assert sorted(read["options"]) == ["a", "b", "c", "d", "e"]
    assert encoding.read(item) == read
    assert item == ["q", ["a", "b", "c", "d", "e"]]


def test_an_exact_option_is_first_before_one_that_differs_in_case() -> None:
    values = {"question": "Which comes from Warsaw?", "choices": ["polish", "Polish "], "label": "Polish "}
    encoding = encoding_of({**values, "choices": ["Polish ", "shine"]})
    assert encoding.write(Example({**values, "choices": ["shine", "polish ", "Polish "]}))[1][0] == "Polish "


@pytest.mark.parametrize("values", [examples.UMBRELLA, IN_OBJECT, OTHER_TYPE])
def test_reading_shuffles_the_options_whatever_their_written_order(values: dict[str, Any]) -> None:
    encoding = encoding_of(values)
    path = encoding.format.roles.options
    assert path
    question = (*path[:-1], "question")
    places: Counter[int] = Counter()
    for i in range(1000):
        written = encoding.write(Example(replace_field(values, question, f"question {i}")))
        read = encoding.read(written)
        assert encoding.read(written) == read
        assert field_at(read, question) == f"question {i}"
        assert sorted(field_at(read, path)) == sorted(field_at(values, path))
        places[field_at(read, path).index(field_at(values, path)[0])] += 1
    expected = 1000 / len(field_at(values, path))
    assert all(abs(places[place] - expected) < 60 for place in range(len(field_at(values, path))))


def test_the_paper_style_writes_the_object() -> None:
    encoding = PromptEncoding(encoding_of(examples.UMBRELLA).format, "keyed")
    assert encoding.write(Example(examples.UMBRELLA)) == examples.UMBRELLA
    assert list(encoding.read(dict(reversed(examples.UMBRELLA.items())))) == list(examples.UMBRELLA)


@pytest.mark.parametrize(
    ("values", "item"),
    [
        *((examples.UMBRELLA, item) for item in (None, "x", {}, [], ["q"], ["q", []], ["q", "x"], ["q", ["a"], "x"])),
        *((IN_OBJECT, [q]) for q in (3, {}, {"question": "q", "options": "none", "answer": "a"}, {"options": []})),
    ],
)  # fmt: skip
def test_other_shapes_are_malformed(values: dict[str, Any], item: Any) -> None:
    with pytest.raises(MalformedItem):
        encoding_of(values).read(item)


def prompt(values: dict[str, Any], labels: dict[str, str], **pseudo_labels: Any) -> str:
    """The user message of the generation prompt; `ratio`: of pseudo-labels."""
    encoding = replace(encoding_of(values, labels=labels), pseudo_labels=bool(pseudo_labels))
    content = RequestContent(label_ratio=pseudo_labels.get("ratio"))
    return chat_prompt(encoding, [Example(values)], 5, content)[-1]["content"]


def test_the_generation_prompt_asks_for_questions_that_a_fixed_label_answers() -> None:
    claim = {"question": "Is ice cold?", "options": ["True", "False"], "label": True}
    assert "Each question is one that True or False alone answers." in prompt(claim, {})
    maybe = {"question": "Is ice cold?", "answer": "yes"}
    assert "yes, no or maybe alone answers." in prompt(maybe, {"answer": "yes,no,maybe"})
    assert "alone answers" not in prompt(examples.NLI, examples.NLI_LABELS)


@pytest.mark.parametrize(
    ("ratio", "sentence"),
    [
        (None, "The label of each is one of entailment, neutral, contradiction, each equally often."),
        (
            {"entailment": 0.7, "neutral": 0.3, "contradiction": 0},
            "The label of the examples is entailment for 70%, neutral for 30% of them.",
        ),
    ],
)
def test_with_pseudo_labels_the_prompt_says_how_frequent_each_label_is(ratio: Any, sentence: str) -> None:
    assert prompt(examples.NLI, examples.NLI_LABELS, ratio=ratio).endswith(sentence)
    assert "often" not in prompt(examples.NLI, examples.NLI_LABELS)
