"""Parsing and validation of completions, and the reject reasons."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datacreate.formats import FormatOptions
from datacreate.formats.candidate import Candidate
from datacreate.formats.example import Example, canonical_json
from datacreate.formats.prompt_encoding import PromptEncoding
from datacreate.formats.reject import Reject, RejectReason
from datacreate.formats.response import parse_completion, parse_item
from datacreate.formats.task_format import TaskFormat, read_format, specialize
from datacreate.runs.formatting_examples import read_examples
from tests.formats import examples
from tests.formats.examples import encoding_of, inferred, json_objects, json_values

CHOICE = encoding_of(examples.UMBRELLA)
KEYED = PromptEncoding(CHOICE.format, "keyed")
CLAIMS = encoding_of(examples.CLAIM)
NUMBERS = encoding_of({"text": "a b", "score": 0.5, "count": 3})
OPTIONS = ["a", "b", "c", "d", "e"]
TEXT = json.dumps([["Where do boats sleep?", ["harbour", *OPTIONS[1:]]], ["Who bakes?", OPTIONS]])
FIRST, SECOND = "Where do boats sleep?", "Who bakes?"


def parse(text: str, encoding: PromptEncoding = CHOICE, count: int = 5, **options: Any) -> list[str]:
    """The result of each item: its question, or the reject reason."""
    results = parse_completion(text, encoding, count, **{"truncated": False, **options})
    return [
        str(result.example.values.get("question")) if isinstance(result, Candidate) else result.reason.value
        for result in results
    ]


def reason_of(item: Any, encoding: PromptEncoding) -> RejectReason | None:
    result = parse_item(item, encoding)
    return result.reason if isinstance(result, Reject) else None


@pytest.mark.parametrize(
    ("text", "options", "results"),
    [
        (TEXT, {}, [FIRST, SECOND]),
        (TEXT, {"count": 1}, [FIRST, "not_needed"]),
        (f"Here you are:\n```json\n{TEXT}\n```", {}, [FIRST, SECOND]),
        (TEXT.replace("bakes", "</think>"), {}, [FIRST, "Who </think>?"]),
        (TEXT, {"longest_text": len(FIRST)}, [FIRST, SECOND]),
        (TEXT, {"longest_text": len(FIRST) - 1}, ["truncated", SECOND]),
        (TEXT[:-8], {}, [FIRST, "invalid_json"]),
        (TEXT[:-8], {"truncated": True, "keep_complete_items": False}, ["truncated"]),
        ("  \n", {}, ["no_response"]),
        ("[]", {}, ["no_response"]),
        ("I cannot do that.", {}, ["invalid_json"]),
        ('{"question": "q"}', {}, ["invalid_json"]),
        ("[" * 100_000, {}, ["invalid_json"]),
        ("[" + "[" * 900 + "]" * 900 + "]", {}, ["schema_violation"]),
        ("[1, null, true]", {}, ["schema_violation"] * 3),
        ("[" + "9" * 5000 + "]", {}, ["invalid_json"]),
    ],
)
def test_the_results_of_a_completion(text: str, options: dict[str, Any], results: list[str]) -> None:
    assert parse(text, **options) == results


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (["Q?", OPTIONS[:4]], RejectReason.SCHEMA_VIOLATION),
        (["Q?", [*OPTIONS[:4], 5]], RejectReason.SCHEMA_VIOLATION),
        ([None, OPTIONS], RejectReason.SCHEMA_VIOLATION),
        (["", OPTIONS], RejectReason.BLANK),
        (["Q?", ["a", "b", " \u200b\n", "d", "e"]], RejectReason.BLANK),
        ([" -- ", OPTIONS], RejectReason.BLANK),
        (["Q\x00?", OPTIONS], RejectReason.INVALID_CHARACTERS),
        ([f"Q {chr(0xD83D)}?", OPTIONS], RejectReason.INVALID_CHARACTERS),
        (["Q \ufffd?", OPTIONS], RejectReason.INVALID_CHARACTERS),
        (["Q â\x80\x99?", OPTIONS], RejectReason.INVALID_CHARACTERS),
        (["Q?", ["a", "b", "c", "B ", "e"]], RejectReason.DUPLICATE_OPTIONS),
        (["Q?", ["right option", *OPTIONS[1:]]], RejectReason.PLACEHOLDER),
        (["Q?", ["a", "-1 wrong option", *OPTIONS[2:]]], RejectReason.PLACEHOLDER),
        (["Q?", ["a", "Option 2", *OPTIONS[2:]]], RejectReason.PLACEHOLDER),
        (["[question]", OPTIONS], RejectReason.PLACEHOLDER),
        (["Q?", ["a", "] pharmacy", *OPTIONS[2:]]], RejectReason.PLACEHOLDER),
        (["Q?", ["a", ", b", *OPTIONS[2:]]], RejectReason.PLACEHOLDER),
        (["Who has a park? [", OPTIONS], RejectReason.PLACEHOLDER),
        (["Who has a park?},{", OPTIONS], RejectReason.PLACEHOLDER),
        (["[Who has a park?", OPTIONS], RejectReason.PLACEHOLDER),
        (["[sic] Who has a park?", OPTIONS], None),
        (["Q?", ["a", "and then,", *OPTIONS[2:]]], RejectReason.PLACEHOLDER),
        (["Q?", ["a", ",", *OPTIONS[2:]]], None),
        (["What is a = [", OPTIONS], None),
        (["options", OPTIONS], None),
        (["Q?", ["Paris", "Paris.", *OPTIONS[2:]]], RejectReason.DUPLICATE_OPTIONS),
        (["Q?", ["Caf\u00e9", "Cafe\u0301", *OPTIONS[2:]]], RejectReason.DUPLICATE_OPTIONS),
        (["Q?", ["New  York", "new york", *OPTIONS[2:]]], RejectReason.DUPLICATE_OPTIONS),
        (["Q?", ["+", "-", "5", "5!", "-5"]], None),
        (["Q?", ["[a]", "{b}", ":)", ".c", ","]], None),
        *((["Q?", [text, *OPTIONS[1:]]], None) for text in ("+", "😀", "an option to buy", "نعم", "\u2028 x")),
    ],
)
def test_the_reason_against_an_item(item: Any, reason: RejectReason | None) -> None:
    assert reason_of(item, CHOICE) is reason


@pytest.mark.parametrize(
    ("answer", "context", "valid"),
    [
        ("Haus", "Das Haus ist rot.", True),
        ("Haus", "Die Haustür ist rot.", False),
        ("Haus", "Die Haustür am Haus ist rot.", True),
        ("5", "It was 15 degrees.", False),
        ("cafe", "The cafe\u0301 is open.", False),
        ("The house is red.", "The house is red.", False),
        ("The house is red", " The house is red.", False),
        ("东京", "他住在东京附近。", True),
        ("서울", "서울은 수도이다.", True),
        ("not there", "The house is red.", False),
    ],
)
def test_an_answer_from_the_context_is_whole_words_but_not_everything(answer: str, context: str, valid: bool) -> None:
    reason = reason_of([context, "Which one?", answer], encoding_of(examples.SPAN))
    assert reason is (None if valid else RejectReason.ANSWER_NOT_IN_CONTEXT)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (" Who cooks rice? ", "Who cooks rice?"),
        ("\r\n\tWho cooks rice?\t\n", "Who cooks rice?"),
        ("\n \n    if rice:\n        cook()\n", "    if rice:\n        cook()"),
    ],
)
def test_space_around_a_text_is_removed(written: str, kept: str) -> None:
    result = parse_item([written, ["\nrice cooker", *OPTIONS[1:]]], CHOICE)
    assert isinstance(result, Candidate)
    assert result.example.values["question"] == kept
    assert result.example.values["label"] == "rice cooker" in result.example.values["options"]


@pytest.mark.parametrize(
    ("notes", "written", "kept"),
    [
        (("A note.", None), "\n\n  hello  \n", "hello"),
        (("A note.", ""), "\n\n  hello  \n", "hello"),
        ((["A note.", "Another."], None), [" hello ", "there"], ["hello", "there"]),
    ],
)
def test_space_is_also_removed_from_what_may_be_null_or_empty(notes: Any, written: Any, kept: Any) -> None:
    values = [{"text": "Some text.", "note": note} for note in notes]
    encoding = PromptEncoding(read_examples(values, FormatOptions())[1].format)
    result = parse_item(["other words", written], encoding)
    assert isinstance(result, Candidate)
    assert result.example.values["note"] == kept


TITLED = encoding_of({"title": "On words", "genre": "essay", "tags": ["a", "b"]})
TOKENS = encoding_of({"words": ["(", "so", ")"], "tags": ["O", "O", "O"]})
ASKED = {"text": "Ask me.", "note": "", "label": "question"}
NAMED = encoding_of(ASKED, labels={"label": "question,statement"})
TOPICS = {"text": "They won.", "keywords": ["cup", "final"], "about": {"who": "a team"}, "label": "sport"}
KEYWORDS = encoding_of(TOPICS, labels={"label": "sport,politics"})


@pytest.mark.parametrize(
    ("encoding", "item", "reason"),
    [
        (TITLED, ["On rain", "title", ["genre"]], None),  # the name of another field
        (TITLED, ["Title.", "essay", ["a"]], RejectReason.PLACEHOLDER),
        (TITLED, ["On rain", "essay", ["a", "tags"]], RejectReason.PLACEHOLDER),
        (TOKENS, [["(", "well", ","], ["O", "O", "O"]], None),
        (NAMED, ["question", "What is it?"], None),  # a label is no placeholder, a constant is not blank
        (KEYWORDS, ["sport", "They lost.", ["sport", "final"], {"who": "a club"}], None),
        (KEYWORDS, ["sport", "They lost.", ["final"], {"who": "Sport."}], RejectReason.PLACEHOLDER),
        (KEYWORDS, ["sport", "politics", ["final"], {"who": "a club"}], RejectReason.PLACEHOLDER),
        (KEYED, {**examples.UMBRELLA, "label": "attic"}, RejectReason.ANSWER_NOT_IN_OPTIONS),
        *((NUMBERS, ["some words", 0.5, n], RejectReason.SCHEMA_VIOLATION) for n in (3.0, 2**70, "3", True)),
    ],
)
def test_the_reason_in_other_formats(encoding: PromptEncoding, item: Any, reason: RejectReason | None) -> None:
    assert reason_of(item, encoding) is reason


def test_tools_that_are_no_objects_are_rejected() -> None:
    call = {"type": "object", "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}}}
    document = {
        "properties": {"query": {"type": "string"}, "tools": {"type": "array"}, "call": call},
        "x-datacreate": {"roles": {"tools": "tools", "answer": "call.name"}, "rules": ["call_fits_tool"]},
    }
    encoding = PromptEncoding(read_format(document))
    for tools in (["fly"], [5], [{"function": "fly"}]):
        assert reason_of(["Go.", tools, {"name": "fly", "arguments": {}}], encoding) is RejectReason.SCHEMA_VIOLATION


@pytest.mark.parametrize(("labels", "written"), [("3.0,4.0", 4), ("3,4", 4.0)])
@pytest.mark.parametrize("style", ["positional", "keyed"])
def test_a_number_is_stored_as_the_label(labels: str, written: float, style: Any) -> None:
    label = float if "." in labels else int
    values = {"text": "Very good.", "stars": label(3)}
    encoding = PromptEncoding(inferred(values, labels={"stars": labels}).format, style)
    item = [written, "Good."] if style == "positional" else {"text": "Good.", "stars": written}
    result = parse_item(item, encoding)
    assert isinstance(result, Candidate)
    assert canonical_json(result.example.values["stars"]) == canonical_json(label(4))
    assert encoding.format.answers.right_index(result.example.values) == 1


def test_numbers_that_json_lacks_are_rejected_and_the_next_item_is_kept() -> None:
    task_format = format_of(text={"type": "string"}, x={"multipleOf": 0.5})  # which cannot be checked for them
    encoding = PromptEncoding(specialize(task_format, Example({"text": "a b", "x": 1.5})))
    for number in ("NaN", "-Infinity", "1e999", f"1{'0' * 400}"):
        text = f'[["some words", {number}], ["other words", 1.3], ["fine", 2.5]]'
        assert parse(text, encoding) == ["schema_violation", "constraint_violation", "None"]


@given(values=json_objects)
def test_equal_values_have_equal_ids(values: dict[str, object]) -> None:
    assert Example(values).id == Example(dict(reversed(values.items()))).id
    assert Example({"label": True}).id != Example({"label": 1}).id


def test_the_text_of_a_reject_is_short_and_printable() -> None:
    [result] = parse_completion(json.dumps([["\ud800" * 1000]]), CHOICE, 1, truncated=False)
    assert isinstance(result, Reject)
    assert len(result.text) < 450
    result.text.encode("utf-8")


def format_of(**properties: Any) -> TaskFormat:
    roles = {role: role for role in ("context", "answer") if role in properties}
    return read_format({"properties": properties, "x-datacreate": {"roles": roles}}, "mine")


ANY_TEXT, NULLABLE, NUMBER = {"type": "string"}, {"type": ["string", "null"]}, {"type": "integer"}
YES_NO = {"enum": ["yes", "no"]}
REVIEWS = format_of(question={"const": "Good?"}, context=ANY_TEXT, note=NULLABLE, answer=YES_NO)
REVIEW = {"question": "Good?", "context": "Great.", "note": None, "answer": "yes"}
SUMS = format_of(question={"const": "a + b?"}, a=NUMBER, b=NUMBER, answer=ANY_TEXT)


@pytest.mark.parametrize(
    ("task_format", "values", "changes", "repeats"),
    [
        (None, examples.UMBRELLA, {"options": [*OPTIONS[:4], "stand"]}, True),
        (None, examples.UMBRELLA, {"question": "Where is a dry umbrella?"}, False),
        (REVIEWS, REVIEW, {"context": "Bad."}, False),
        (REVIEWS, REVIEW, {"context": "great", "answer": "no"}, True),
        (REVIEWS, REVIEW, {"note": "Twice."}, False),
        (None, examples.NLI, {"premise": "A man plays the piano."}, False),
        (None, examples.NLI, {"label": "neutral"}, True),
        (None, examples.SPAN, {"context": "It is in the Giant Mountains."}, False),
        (None, examples.SPAN, {"answer": "Mountains"}, True),
        (None, {"subject": "Hello", "body": "Shall we meet?", "label": "ham"}, {"body": "Buy now!"}, False),
        (None, {"subject": "Hello you", "body": "two", "label": "ham"}, {"subject": "Hello", "body": "you two"}, False),
        (SUMS, {"question": "a + b?", "a": 1, "b": 6, "answer": "7"}, {"a": 2, "b": 5}, False),
        (None, {**examples.UMBRELLA, "question": ""}, {"options": [*OPTIONS[:4], "stand"]}, False),
        (None, {"instruction": "", "output": "One poem."}, {"output": "Another poem."}, False),
        (None, {"text": "a b", "score": 0.5, "tags": []}, {"score": 0.25}, True),
    ],
)
def test_an_example_repeats_another_if_all_its_inputs_are_equal(
    task_format: TaskFormat | None, values: dict[str, Any], changes: dict[str, Any], repeats: bool
) -> None:
    task_format = task_format or inferred(values).format
    key, changed = (Candidate.of(v, task_format).exact_key for v in (values, {**values, **changes}))
    assert (key == changed) is repeats


@settings(max_examples=200)
@given(
    text=st.text() | json_values.map(json.dumps) | st.text(alphabet='[]{},":1eE.-tn ul\\'),
    keep_complete_items=st.booleans(),
)
@example(text="[[[]]", keep_complete_items=True)
def test_any_text_gives_results(text: str, keep_complete_items: bool) -> None:
    for encoding in (CHOICE, CLAIMS, NUMBERS, KEYED):
        assert parse_completion(text, encoding, 3, truncated=False, keep_complete_items=keep_complete_items)


@settings(max_examples=100)
@given(items=st.lists(json_values, min_size=1, max_size=4), data=st.data())
def test_a_truncated_array_gives_a_prefix_of_its_items(items: list[Any], data: st.DataObject) -> None:
    text = json.dumps(items)
    cut = data.draw(st.integers(1, len(text)))
    complete = parse_completion(text, CHOICE, 9, truncated=True)
    *prefix, last = parse_completion(text[:cut], CHOICE, 9, truncated=True)
    if cut == len(text):
        prefix.append(last)
    else:
        assert isinstance(last, Reject)
        assert last.reason is RejectReason.TRUNCATED
    assert prefix == complete[: len(prefix)]
