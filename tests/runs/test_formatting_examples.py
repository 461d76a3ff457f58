"""Formatting examples: files and values, and the one format of several."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from datacreate.errors import ExampleError
from datacreate.formats import FormatOptions
from datacreate.runs.formatting_examples import read_examples
from tests.benchmarks.conftest import home
from tests.support.inprocess import run
from tests.support.making import COMMONSENSE

__all__ = ["home"]  # a fixture

Row = dict[str, Any]

MAIL = ["Win a free phone.", "Lunch at noon?", "Verify your account now.", "The minutes are attached."]


def mails(*labels: str) -> list[Row]:
    return [{"text": text, "label": label} for text, label in zip(MAIL, labels, strict=False)]


def questions(number: int) -> list[Row]:
    return [{**COMMONSENSE, "question": f"Where is thing {index} kept?"} for index in range(number)]


def jsonl(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


FORMATS: dict[str, tuple[list[Row], str, dict[str, Any]]] = {
    "labels that repeat are the label set": (
        mails("spam", "ham", "spam"),
        "answer: label; labels: spam, ham;",
        {"label": {"type": "string", "enum": ["spam", "ham"]}},
    ),
    "answers that do not repeat are no label set": (
        mails("spam", "ham"),
        "answer: label",
        {"label": {"type": "string"}},
    ),
    "a field of another name is no label, but it could be one": (
        [{"body": text, "topic": topic} for text, topic in zip(MAIL, ("bug", "bill", "bug"), strict=False)],
        "body, topic; if a field is the answer, add --answer FIELD; if topic is a label, add --labels topic=bug,bill",
        {"topic": {"type": "string"}},
    ),
    "nor is a part of a scale": (
        [{"text": text, "stars": stars} for text, stars in zip(MAIL, (1, 5, 5, 4), strict=True)],
        "add --range stars=LOW..HIGH",
        {"stars": {"type": "integer"}},
    ),
    "grades that are no numbers are labels": (
        [{"text": text, "label": label} for text, label in zip(MAIL, ("1-", "2-", "1-"), strict=False)],
        "labels: 1-, 2-",
        {"label": {"type": "string", "enum": ["1-", "2-"]}},
    ),
    "a label of all languages of yes and no stays whole": (
        [{"text": text, "label": label} for text, label in zip(MAIL, ("yes", "yes"), strict=False)],
        "labels: yes, no",
        {"label": {"type": "string", "enum": ["yes", "no"]}},
    ),
    "a field that is null or missing in one may be null": (
        [
            {"question": "Why?", "context": "It rains.", "note": "a"},
            {"question": "How?", "context": None, "note": "b"},
            {"question": "Who?", "context": "A man."},
        ],
        "may be null: context, note",
        {"context": {"type": ["string", "null"]}, "note": {"type": ["string", "null"]}},
    ),
    "an input that is empty in one may be empty": (
        [{"instruction": "Add.", "input": input_text, "output": "Three"} for input_text in ("1 and 2", "", "4 and 5")],
        "inputs: instruction, input",
        {"input": {"anyOf": [{"type": "string"}, {"const": ""}]}},
    ),
    "whole numbers and others are numbers": (
        [{"text": "a b", "size": 1}, {"text": "c d", "size": 1.5}],
        "not used as inputs: size",
        {"size": {"type": "number"}},
    ),
    "lists have the length of the longest": (
        [{"text": "a b", "names": ["a"]}, {"text": "c d", "names": []}, {"text": "e", "names": list("abcd")}],
        "names",
        {"names": {"type": "array", "items": {"type": "string"}, "minItems": 0, "maxItems": 8}},
    ),
    "not all answers are spans": (
        [
            {"context": "Rome is in Italy.", "question": "Where is Rome?", "answer": "in Italy"},
            {"context": "Rome is in Italy.", "question": "Is it large?", "answer": "The text does not say"},
        ],
        "only 1 of 2 answers are spans of the context, so that it is not required",
        {"answer": {"type": "string"}},
    ),
    "a span that is also a yes or no is no label": (
        [
            {"context": "There is no snow in Rome.", "question": "Which city?", "answer": answer}
            for answer in ("no", "Rome")
        ],
        "the answer is a span of the context",
        {"answer": {"type": "string"}},
    ),
    "repeated spans are no labels": (
        [
            {"context": f"{city} is in Italy.", "question": "Which city?", "answer": city}
            for city in ("Rome", "Milan", "Rome")
        ],
        "the answer is a span of the context",
        {"answer": {"type": "string"}},
    ),
    "a shipped format with a context in one": (
        [COMMONSENSE, {**COMMONSENSE, "question": "Where is it?", "context": "It is wet."}],
        "format multiple_choice: inputs: question, context",
        {"context": {"type": ["string", "null"]}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_one_format_is_inferred_from_all_of_them(name: str) -> None:
    rows, note, parts = FORMATS[name]
    found, inferred = read_examples(rows, FormatOptions())
    assert note in inferred.notes[0]
    properties = inferred.format.schema["properties"]
    assert {field: properties[field] for field in parts} == parts
    assert all(inferred.format.validator.is_valid(each.values) for each in found)


def test_labels_override_what_the_examples_show() -> None:
    _, inferred = read_examples(mails("spam", "ham", "spam"), FormatOptions(labels={"label": "ham,spam,news"}))
    assert inferred.format.labels == ("ham", "spam", "news")


def test_a_label_that_occurs_once_among_many_is_named(tmp_path: Path) -> None:
    labels = ["spam"] * 6 + ["ham"] * 5 + ["hma"]
    rows = [{"text": f"Text {index}.", "label": label} for index, label in enumerate(labels)]
    _, inferred = read_examples([jsonl(tmp_path / "mail.jsonl", rows)], FormatOptions())
    assert "labels: spam, ham, hma" in inferred.notes[0]
    warning = "mail.jsonl: line 12: 'hma' occurs once; correct it if it is not a separate label"
    assert inferred.notes[1].endswith(warning)


def test_repeated_examples_are_named() -> None:
    first, second, third = mails("spam", "ham", "spam")
    found, inferred = read_examples([first, second, third, first], FormatOptions())
    assert [each.values for each in found] == [first, second, third]
    assert inferred.notes[1:] == ("example 4: the same as example 1; left out",)


BAD: dict[str, tuple[str, str]] = {
    "mixed.jsonl": (
        '{"text": "a b", "label": "x"}\n{"text": "c d", "label": "y"}\n{"text": "e f", "label": 3}\n',
        "mixed.jsonl: line 3: label: 3 (integer), expected text",
    ),
    "other.jsonl": (
        '{"text": "a b", "label": "x"}\n{"text": "c d", "label": "y"}\n{"name": "e f", "stars": 3}\n',
        "other.jsonl: line 3: its fields are name, stars, but those of {path}: line 1 are text, label; give examples",
    ),
    "options.jsonl": (
        '{"q": "Who?", "options": ["a", "b"], "label": "a"}\n{"q": "Why?", "options": ["c"], "label": "c"}\n',
        "options.jsonl: line 2: options: all examples need the same number of options",
    ),
    "turns.jsonl": (
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
        '{"messages": [{"role": "system", "content": "c"}, {"role": "user", "content": "d"}, '
        '{"role": "assistant", "content": "e"}]}\n',
        "turns.jsonl: line 2: messages: all examples need the same role of the first message; make them alike",
    ),
    "answer.jsonl": (
        "".join(json.dumps({**COMMONSENSE, "label": label}) + "\n" for label in ("stand", "oven", "roof")),
        "answer.jsonl: line 3: the example breaks the rule answer_in_options",
    ),
    "mac.csv": ("text,label\ra b,x\r", "mac.csv: line 1: its line ends are carriage returns; convert them with `tr"),
    "null.jsonl": (
        '{"text": "a b", "label": "x"}\n{"text": "c d", "label": "x"}\n{"text": "e f"}\n',
        "null.jsonl: line 3: label: null, expected text",
    ),
    "control.jsonl": (
        '{"text": "a b", "label": "x"}\n{"text": "c\\u0000d", "label": "x"}\n',
        "control.jsonl: line 2: text: the character U+0000 is not allowed; remove it",
    ),
    "fields.jsonl": ('{"text": "a"}\n{}\n', "fields.jsonl: line 2: the object has no fields"),
    "many.jsonl": ('{"text": "a"}\n' * 1001, "--example: more than 1000 rows, and a few are enough; take the first"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_examples_are_one_line_and_nothing_is_written(tmp_path: Path, model: str, name: str) -> None:
    content, message = BAD[name]
    path = tmp_path / name
    path.write_bytes(content.encode())
    ended = run("create", "--example", path, "--count", 5, "--run-dir", tmp_path / "run", "--model", model)
    assert (ended.code, ended.out) == (2, "")
    assert message.replace("{path}", str(path)) in ended.failure
    assert len(ended.lines) == 1
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_row_that_does_not_fit_the_named_format_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [*questions(2), {**questions(1)[0], "label": 3}])
    with pytest.raises(ExampleError, match=r"rows\.jsonl: line 3: label: 3 \(integer\), expected text"):
        read_examples([path], FormatOptions(format="multiple_choice"))


def test_only_the_first_rows_of_a_large_file_are_read(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "large.jsonl", questions(800))
    with path.open("r+b") as file:
        file.truncate(300 << 20)  # the rest cannot be read as rows
    found, _ = read_examples([path], FormatOptions(), 3)
    assert [each.values for each in found] == questions(3)


def test_a_table_has_the_types_of_the_options(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,stars\nGood,4\nBad,1\n")
    found, inferred = read_examples([tmp_path / "rows.csv"], FormatOptions(range={"stars": "1..5"}))
    assert [each.values["stars"] for each in found] == [4, 1]
    assert inferred.format.labels == (1, 2, 3, 4, 5)
