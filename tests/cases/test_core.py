"""Kinds of examples that people have: what is understood, and that every answer in the made set is right."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from datacreate.commands.filter_rows import FilterConfig, filter_rows
from datacreate.engines.request import Completion, Request
from datacreate.errors import ExampleError, UsageError
from datacreate.finetuning.training_rows import make_training_set, read_source
from datacreate.formats import FormatOptions
from datacreate.formats.candidate import Candidate, validate_example
from datacreate.formats.example import Example, FieldPath
from datacreate.formats.infer import infer_format
from datacreate.formats.infer_rows import infer_from_rows
from datacreate.formats.reject import Reject
from datacreate.formats.roles import option_keys
from datacreate.formats.task_format import read_format, specialize
from datacreate.runs.directory import RunDirectory
from tests.support.making import examples, exported, make
from tests.support.scripted import written

ARC = {
    "id": "q1",
    "question": "Which tool measures air pressure?",
    "choices": {"text": ["ruler", "barometer", "scale", "clock"], "label": ["A", "B", "C", "D"]},
    "answerKey": "B",
}
NUMBERED = {**ARC, "choices": {**ARC["choices"], "label": ["1", "2", "3", "4"]}, "answerKey": "2"}  # type: ignore[dict-item]
MMLU = {
    "question": "Which planet is closest to the sun?",
    "subject": "astronomy",
    "choices": ["Venus", "Mercury", "Mars", "Earth"],
    "answer": 1,
}
SQUAD = {
    "id": "57",
    "title": "Elbe",
    "context": "The Elbe rises in the Giant Mountains and flows to the North Sea.",
    "question": "Where does the Elbe rise?",
    "answers": {"text": ["the Giant Mountains"], "answer_start": [18]},
}
FLAT = {k: SQUAD[k] for k in ("context", "question")} | {"answer": "the Giant Mountains", "answer_start": 18}
ALPACA = {"instruction": "Translate into Spanish.", "input": "Where is it?", "output": "¿Dónde está?"}
SYSTEM = {"system": "You are terse.", **ALPACA, "source": "phrasebook"}
NLI = {"premise": "A man sleeps.", "hypothesis": "Somebody rests.", "label": "neutral"}

SPAN = "the Giant Mountains"

SAID: dict[str, Any] = {"role": "user", "content": "Name a fish."}

KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "ARC": (ARC, {}, "inputs: question; options: choices.text; keys: choices.label; answer: answerKey; 4 options per "
            "example; same in all rows: id", "barometer"),
    "numbered keys": (NUMBERED, {}, "keys: choices.label; answer: answerKey", "barometer"),
    "MMLU": (MMLU, {}, "inputs: question, subject; options: choices; answer: answer (position from 0", "Mercury"),
    "MMLU from 1": (MMLU, {"range": {"answer": "1..4"}}, "answer: answer (position from 1", "Venus"),
    "letter": ({"question": "Which flies?", "options": ["a fish", "a bird"], "answer": "b"}, {},
               "answer: answer (letter of the right option)", "a bird"),
    "options in an object": ({"q": {"stem": "Which flies?", "options": ["fish", "bird"], "answer": "bird"}}, {},
                             "inputs: q.stem; options: q.options; answer: q.answer", "bird"),
    "named options": ({"stem": "Which flies?", "what": ["fish", "bird"], "number": 1},
                      {"options": "what", "answer": "number"},
                      "inputs: stem; options: what; answer: number (position from 0", "bird"),
    "SQuAD": (SQUAD, {}, "inputs: title, context, question; context: context; answer: answers.text; answer start: "
              "answers.answer_start; the answer is a span of the context; same in all rows: id", SPAN),
    "SQuAD with several answers": (SQUAD | {"answers": {"text": [SPAN] * 2, "answer_start": [18, 18]}}, {},
                                   "answer: answers.text; answer start: answers.answer_start", SPAN),
    "options with keys, named": ({"q": "Which flies?", "a": ["x a", "x bird"], "b": ["A", "B"], "right": "B", "id": 3},
                                 {"options": "a", "answer": "right", "ignore": "b"},
                                 "inputs: q; options: a; answer: right (letter of the right option); 2 options per "
                                 "example; same in all rows: b, id", "x bird"),
    "SQuAD with --answer": (SQUAD, {"answer": "answers"}, "answer: answers.text; answer start: answers.", SPAN),
    "flat SQuAD": (FLAT, {}, "answer: answer; answer start: answer_start; the answer is a span", SPAN),
    "flat SQuAD with --answer": (FLAT, {"answer": "answer"}, "answer: answer; answer start: answer_start; the a", SPAN),
    "NLI": (NLI, {}, "inputs: premise, hypothesis; context: premise; answer: label; labels: entailment, n", "neutral"),
    "Alpaca": (ALPACA, {}, "inputs: instruction, input; answer: output", "¿Dónde está?"),
    "Alpaca with system": (SYSTEM, {}, "inputs: system, instruction, input; answer: output; same in all rows: source",
                           "¿Dónde está?"),
    "prompt and completion": ({"prompt": "Write a haiku.", "completion": "Soft rain"}, {},
                              "inputs: prompt; answer: completion", "Soft rain"),
    "several labels": ({"text": "A storm delays the match.", "labels": ["weather", "sport"]},
                       {"labels": {"labels": "weather,sport,art"}}, "inputs: text; answer: labels", "weather, sport"),
    "label with a comma": ({"headline": "Vote delayed", "section": "Politics, US"},
                           {"label": ["section=Politics, US", "section=Arts"]},
                           "inputs: headline; answer: section; labels: Politics, US, Arts", "Politics, US"),
    "rating": ({"text": "Good.", "stars": 4}, {"range": {"stars": "1..5"}}, "labels: 1, 2, 3, 4, 5", "4"),
    "label of a conversation": ({"messages": [SAID, {"role": "assistant", "content": "Cod."}], "label": "good"},
                                {"labels": {"label": "good,bad"}}, "inputs: messages; answer: label; labels", "good"),
    "numbers": ({"x": 3, "y": 0.5, "label": "high"}, {}, "inputs: x, y; answer: label", "high"),
    "Chinese": ({"问题": "天空是什么颜色？", "答案": "蓝色"}, {}, "inputs: 问题; answer: 答案", "蓝色"),
    "German": ({"frage": "Was ist rot?", "antwort": "Blut"}, {}, "inputs: frage; answer: antwort", "Blut"),
    "ignored": ({"text": "Good.", "by": "Kim", "label": "yes"}, {"ignore": "by"},
                "inputs: text; answer: label; labels: yes, no; same in all rows: by", "yes"),
    "some inputs": ({"text": "Good.", "by": "Kim", "label": "yes"}, {"inputs": "text"},
                    "inputs: text; answer: label; labels: yes, no; not used as inputs: by", "yes"),
}  # fmt: skip
"""Name -> example, options, a part of the line about it, the answer in words."""


@pytest.mark.parametrize("name", KINDS)
def test_what_is_understood(name: str) -> None:
    values, options, line, text = KINDS[name]
    result = infer_format([Example(values)], FormatOptions(**options))
    assert line in result.notes[0]
    assert result.format.answers.text(values) == text
    document = json.loads(json.dumps(result.format.document()))
    assert specialize(read_format(document, "inferred"), Example(values)) == result.format


def knowing(request: Request) -> Completion:
    """Writes valid rows in which the right option, and nothing else, starts with `right`."""
    rng = random.Random(request.id)
    rows = written(request, rng)
    for row in rows:
        for part in (row, *row):
            inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else []
            for options in inner:
                if isinstance(options, list) and len(options) > 1 and str(options[0]).startswith("word"):
                    options[0] = f"right {rng.random()}"
        if "Giant" in str(request.messages) or "A context" in str(request.messages):
            span = f"span {rng.random()}"
            answer = span if isinstance(row[-1], str) else {"text": [span]}
            row[-3:] = [f"A context with {span} in it.", row[-2], answer]
    return Completion(request.id, json.dumps(rows), "stop", 50, 50)


@pytest.mark.parametrize("name", KINDS)
def test_every_answer_in_the_made_set_is_right(tmp_path: Path, model: str, name: str) -> None:
    values, options, _, _ = KINDS[name]
    make(tmp_path / "run", model, knowing, example=values, count=12, **options)
    task_format = infer_format([Example(values)], FormatOptions(**options)).format
    rows = examples(tmp_path / "run")
    places = set()
    for row in rows:
        assert list(row) == list(values)
        assert isinstance(validate_example(row, task_format), Candidate)
        if task_format.options_vary:
            assert task_format.answers.text(row).startswith("right")
            assert sum(str(option).startswith("right") for option in task_format.answers.choices(row)) == 1
            places.add(task_format.answers.right_index(row))
        if task_format.roles.answer_start:
            flat = {"text": [row.get("answer")], "answer_start": [row.get("answer_start")]}
            [text], [start] = row.get("answers", flat).values()
            assert row["context"][start:].startswith(text)
            assert start == 15
    if task_format.options_vary:
        assert len(places) > 1
    if "id" in values:
        assert {row["id"] for row in rows} == {values["id"]}


@pytest.mark.parametrize("name", ["ARC", "numbered keys", "MMLU", "MMLU from 1", "letter", "options in an object"])
def test_the_answer_follows_its_option(name: str) -> None:
    values, options, _, text = KINDS[name]
    task_format = infer_format([Example(values)], FormatOptions(**options)).format
    number = len(task_format.answers.choices(values))
    moved = task_format.answers.with_options(values, list(reversed(range(number))))
    assert task_format.answers.text(moved) == text
    assert task_format.answers.with_options(moved, list(reversed(range(number)))) == values
    for index in range(number):
        other = task_format.answers.with_choice(values, index)
        assert task_format.answers.right_index(other) == index
        assert isinstance(validate_example(other, task_format), Candidate)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ARC", {"answerKey": "E"}),
        ("ARC", {"choices": {"text": ["a", "b", "c"], "label": ["A", "B", "C", "D"]}}),
        ("MMLU", {"answer": 4}),
        ("letter", {"answer": "c"}),
        ("SQuAD", {"answers": {"text": ["the Giant Mountains"], "answer_start": [17]}}),
        ("SQuAD", {"answers": {"text": ["the Alps"], "answer_start": [18]}}),
        ("flat SQuAD", {"answer_start": 0}),
        ("several labels", {"labels": ["music"]}),
    ],
)
def test_a_wrong_answer_is_rejected(name: str, change: dict[str, Any]) -> None:
    values, options, _, _ = KINDS[name]
    task_format = infer_format([Example(values)], FormatOptions(**options)).format
    assert isinstance(validate_example({**values, **change}, task_format), Reject)


def test_an_answer_without_a_start_is_no_span() -> None:
    values = FLAT | {"answer_start": None}
    task_format = infer_format([Example(values)], FormatOptions()).format
    assert task_format.roles.answer_start is None
    assert isinstance(validate_example(values, task_format), Candidate)


def rows_file(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["ARC", "MMLU", "SQuAD"])
def test_exports_have_the_answer_in_words(tmp_path: Path, model: str, name: str) -> None:
    values, options, _, _ = KINDS[name]
    make(tmp_path / "run", model, knowing, example=values, count=2, **options)
    for line in exported(RunDirectory(tmp_path / "run"), "chat").read_text().splitlines():
        answer = json.loads(line)["messages"][-1]["content"]
        assert answer.startswith("span" if name == "SQuAD" else "right")


def test_filter_and_train_read_coded_answers(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        ARC | {"id": f"q{i}", "question": f"Question {i}?", "answerKey": "ABCD"[i % 4]} for i in range(12)
    ]
    rows[5]["choices"] = {"text": ["ruler", "barometer"], "label": ["A", "B"]}
    report = filter_rows(rows_file(tmp_path, rows), FilterConfig(near=None))
    assert (report["rows"], report["kept"]) == (12, 12)
    training = make_training_set([read_source(str(rows_file(tmp_path, rows)))])
    assert training.head.classes == 4
    assert [example.answer_index for example in training.examples] == [i % 4 for i in range(12) if i != 5]
    assert training.examples[1].options == ("ruler", "barometer", "scale", "clock")


@pytest.mark.parametrize("first", [0, 1, "0", "1", "A"])
def test_the_rows_show_where_a_position_counts_from(tmp_path: Path, first: Any) -> None:
    answers = option_keys(first, 4)
    rows = [MMLU | {"question": f"Question {i}?", "answer": answers[(i + 1) % 4]} for i in range(12)]
    rows[7] |= {"choices": [*MMLU["choices"], "Ceres"], "answer": option_keys(first, 5)[4]}  # type: ignore[misc]
    report = filter_rows(rows_file(tmp_path, rows), FilterConfig(near=None))
    assert (report["rows"], report["kept"]) == (12, 12)
    training = make_training_set([read_source(str(rows_file(tmp_path, rows)))])
    assert [example.answer_index for example in training.examples] == [(i + 1) % 4 for i in range(12) if i != 7]


def test_filter_reads_lists_of_labels_and_train_refuses_them(tmp_path: Path) -> None:
    lists: list[list[Any]] = [["sea"], ["sea", "land"], [], ["air"]]
    rows = [{"text": f"Report {i}.", "labels": lists[i % 4]} for i in range(12)]
    file = rows_file(tmp_path, rows)
    assert filter_rows(file, FilterConfig(near=None))["kept"] == 12
    labels = infer_from_rows(rows, FormatOptions()).schema["properties"]["labels"]
    assert labels["items"] == {"enum": ["air", "land", "sea"]}
    with pytest.raises(UsageError, match="no field is recognized as the label of a row"):
        make_training_set([read_source(str(file))])


LETTERS: dict[str, Any] = {"question": "Which flies?", "answer": "B"}
OBJECTS = [{"label": "A", "text": "fish"}, {"label": "B", "text": "bird"}]
CALL = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "function_call", "value": "{}"}]}
NAMED = {"text": "John Smith lives in Paris."}
POSITIONS: list[tuple[Any, str]] = [
    ([{"start": 0, "end": 10, "label": "PER"}], "entities.start, entities.end: models do not count characters or"),
    ([{"start": 0, "end": 9, "label": "PER"}], "entities.end: models"),
    ([{"type": "LOC", "offset": 20, "length": 5}], "entities.length: models"),
    ([{"begin_offset": 20, "end_offset": 25}], "entities.begin_offset, entities.end_offset: models"),
    ({"charStart": 20, "charEnd": 25}, "entities.charEnd: models"),
    ({"start": [0, 20], "end": [10, 25]}, "entities.end: models"),
    ([{"text": "Smith", "start": 5}], "entities.start, entities.text: models"),
    ([[0, 10, "PER"]], "entities: models do not count"),
    ([{"offsets": [[0, 10]], "type": "PER"}], "entities.offsets: models"),
]


@pytest.mark.parametrize(
    ("example", "options", "message"),
    [
        (LETTERS | {"choices": OBJECTS}, {}, "answer: 'B' names an option that is a field or an object of choices;"),
        ({"q": {"stem": "Which flies?", "choices": OBJECTS}, "answerKey": "B"}, {}, "or an object of q.choices"),
        (LETTERS | {"options": [{"id": 1, "text": "fish"}, {"id": 2, "text": "bird"}], "answer": 2}, {},
         "answer: 2 names an option"),
        (LETTERS | {"options": {"A": "fish", "B": "bird"}}, {}, "'B' names an option that is a field or an object"),
        (LETTERS | {"A": "fish", "B": "bird"}, {}, "a field or an object of the example; write the options as"),
        (ARC, {"options": "choices"}, "--options choices: the example has no list of two or more values there;"),
        (CALL, {}, "conversations: only conversations of system, user and assistant can be created"),
        ({"messages": [SAID, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]}, {},
         "messages: only conversations of system, user and assistant"),
        ({"messages": [SAID, {"role": "tool", "content": "cold"}]}, {}, "or write query, tools and call"),
        ({"prompt": [SAID], "chosen": [SAID], "rejected": [SAID]}, {},
         "prompt: only conversations of system, user and assistant can be created and checked; write prompt,"),
        *((MMLU | {"answer": answer}, {}, f"answer: {answer!r} is not among choices, and no position or letter of one;")
          for answer in ("Pluto", "E", "e", 5, "5", -1, 1.0)),
        (ARC | {"answerKey": "E"}, {}, "answerKey: 'E' is not among choices.text"),
        (LETTERS | {"options": {"A": "fish", "B": "bird"}, "answer": "C"}, {}, "'C' names an option that is a field"),
        (LETTERS | {"A": "fish", "B": "bird", "answer": "C"}, {}, "'C' names an option that is a field"),
        (LETTERS | {"choices": OBJECTS, "answer": "C"}, {}, "'C' names an option that is a field"),
        (ARC, {"labels": {"answerKey": "A,B"}}, "which of the 4 options in choices.text is right"),
        (MMLU, {"range": {"answer": "1..3"}}, "give the position, letter or key of each, in their order"),
        (NLI, {"inputs": "label", "answer": "label"}, "label is named twice in --inputs, --answer, --options and"),
        (NLI, {"ignore": "label", "answer": "label"}, "label is named twice"),
    ],
)  # fmt: skip
def test_what_would_be_misread_is_refused(
    tmp_path: Path, example: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ExampleError, UsageError), match=re.escape(message)):
        infer_format([Example(example)], FormatOptions.model_validate(options))
    with pytest.raises(UsageError, match=re.escape(message)):
        read_source(str(rows_file(tmp_path, [example] * 3)), options=FormatOptions.model_validate(options))


@pytest.mark.parametrize(
    ("example", "message"),
    [
        *((NAMED | {"entities": entities}, message) for entities, message in POSITIONS),
        ({"tokens": ["John", "Smith", "lives"], "entity": {"start": 0, "end": 2}}, "entity.end: models do not"),
        (SQUAD | {"answers": {**SQUAD["answers"], "answer_end": [SQUAD["answers"]["answer_start"][0] + len(SPAN)]}},
         "answers.answer_end: models do not count"),
    ],
)  # fmt: skip
def test_positions_are_refused_where_a_model_would_write_them(
    tmp_path: Path, example: dict[str, Any], message: str
) -> None:
    with pytest.raises((ExampleError, UsageError), match=re.escape(message)):
        infer_format([Example(example)], FormatOptions())
    text = next(iter(example))
    assert infer_format([Example(example)], FormatOptions(inputs=(text,))).format.roles.inputs == ((text,),)
    assert read_source(str(rows_file(tmp_path, [example] * 3))).rows  # nobody writes rows that exist


def test_one_pair_of_numbers_that_fits_words_may_be_something_else() -> None:
    shop = {"text": "Our shop in the old town sells bread.", "hours": {"start": 9, "end": 24}, "label": "yes"}
    [line, warning, *_] = infer_format([Example(shop)], FormatOptions()).notes
    assert "hours.start" in line
    assert warning.startswith("warning: hours.start, hours.end: models do not count characters or words")
    assert not any("positions" in note for note in infer_format([Example(shop)], FormatOptions(inputs="text")).notes)
    two = shop | {"hours": [{"start": 4, "end": 8}, {"start": 9, "end": 24}]}
    with pytest.raises(ExampleError, match=r"hours\.start, hours\.end: models do not count"):
        infer_format([Example(two)], FormatOptions())


@pytest.mark.parametrize(
    ("example", "answer"),
    [
        ({"question": "Who is older?", "table": [[1, 20, "Alice"], [2, 31, "Bob"]], "answer": "Bob"}, ("answer",)),
        ({"segments": [{"start": 0, "end": 5, "text": "Hello there"}, {"start": 5, "end": 9, "text": "all of you"}],
          "summary": "A greeting"}, None),
        ({"messages": [{"role": "assistant", "content": "Hi"}, SAID], "label": "good"}, ("label",)),
        ({"a": "A man sleeps", "b": "A man rests", "label": "e"}, ("label",)),
        ({"title": "Shoe", "options": ["red", "blue"], "category": 3}, ("category",)),
    ],
)  # fmt: skip
def test_numbers_and_letters_of_another_kind_are_accepted(example: dict[str, Any], answer: FieldPath | None) -> None:
    assert infer_format([Example(example)], FormatOptions()).format.roles.answer == answer


def test_filter_reads_extractive_answers(tmp_path: Path) -> None:
    rows = [SQUAD | {"id": str(i), "question": f"Question {i}?"} for i in range(3)]
    rows += [rows[2] | {"question": "Why?", "answers": {"text": ["the Giant Mountains"], "answer_start": [4]}}]
    report = filter_rows(rows_file(tmp_path, rows), FilterConfig(near=None))
    assert (report["rows"], report["invalid"], report["kept"]) == (4, 1, 3)


def test_train_reads_all_inputs_but_constant_ones(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Give the topic.", "input": f"harbour {i}", "output": ("sea", "land")[i % 2]} for i in range(8)
    ]
    training = make_training_set([read_source(str(rows_file(tmp_path, rows)))])
    assert [example.text for example in training.examples] == [row["input"] for row in rows]
    rows[3]["instruction"] = "Name the topic."
    training = make_training_set([read_source(str(rows_file(tmp_path, rows)))])
    assert training.examples[3].text == "instruction: Name the topic.\ninput: harbour 3"
