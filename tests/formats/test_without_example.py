"""Formats without an example: from a schema, or from the names of fields."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datacreate.creation.requests import max_example_tokens
from datacreate.errors import ExampleError, FormatError, UsageError
from datacreate.files import shipped
from datacreate.formats import FormatOptions
from datacreate.formats.example import Example
from datacreate.formats.infer import declare_format, infer_format
from datacreate.formats.prompt_encoding import PromptEncoding
from datacreate.formats.task_format import load_format, specialize
from datacreate.prompts.generation import RequestContent, chat_prompt


def declared(**options: Any) -> Any:
    return declare_format(FormatOptions.of(**options)).format


def types(**options: Any) -> dict[str, Any]:
    properties = declared(**options).schema["properties"]
    return {name: part.get("enum", part.get("type")) for name, part in properties.items()}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"inputs": "subject,body", "answer": "topic", "labels": "topic=bug, other"},
         {"subject": "string", "body": "string", "topic": ["bug", "other"]}),
        ({"inputs": "text", "labels": "label=0,1"}, {"text": "string", "label": [0, 1]}),
        ({"inputs": "text", "labels": "label=0,1,x"}, {"text": "string", "label": ["0", "1", "x"]}),
        ({"inputs": "text", "labels": "label=true,false"}, {"text": "string", "label": [True, False]}),
        ({"inputs": "text", "range": "stars=1..5"}, {"text": "string", "stars": "integer"}),
        ({"inputs": "text", "range": "score=0..0.5"}, {"text": "string", "score": "number"}),
        ({"inputs": "instruction,input", "answer": "output"},
         {"instruction": "string", "input": "string", "output": "string"}),
        ({"inputs": "text"}, {"text": "string"}),
        ({"inputs": "mail.text", "labels": "mail.mood=good,bad"}, {"mail": "object"}),
    ],
)  # fmt: skip
def test_named_fields(options: dict[str, Any], expected: dict[str, Any]) -> None:
    assert types(**options) == expected


def test_named_fields_keep_the_roles_that_are_given() -> None:
    assert declared(inputs="mail.text", labels="mail.mood=good,bad").labels == ("good", "bad")
    roles = declared(inputs="context,question,id", answer="reply", labels={"reply": "a,b", "tone": "x,y"}).roles
    assert roles.named() == {"inputs": "context, question, id", "context": "context", "answer": "reply"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answer": "topic", "labels": "topic=a,b"}, "--inputs must name the fields"),
        ({"inputs": "a,a.b"}, "'a.b': a field needs a name, and cannot be a part of another"),
        ({"inputs": "a..b"}, "'a..b': a field needs a name"),
        ({"inputs": "text", "answer": "text"}, "text is named twice"),
        ({"inputs": "text", "labels": "topic=a"}, "two or more different values"),
        ({"inputs": "text", "range": "stars=high..low"}, "--range stars=high..low"),
        ({"inputs": "text", "ignore": "id"}, "--ignore: without an example"),
        ({"inputs": "text", "turns": 2}, "--turns: without an example"),
        ({"inputs": "text", "options": "o"}, "--options: without an example"),
        ({"format": "preference", "labels": "a=b,c"}, "--labels cannot be combined with --format"),
        ({"format": "preference", "turns": 2}, "not a conversation"),
    ],
)
def test_options_that_do_not_suffice(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        declared(**options)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("chat", ["messages"]),
        ("sharegpt", ["conversations"]),
        ("multiple_choice", ["question", "options", "label"]),
        ("preference", ["prompt", "chosen", "rejected"]),
        ("yes_no_closed_book", ["question", "label"]),
        ("yes_no_open_book", ["question", "context", "label"]),
    ],
)
def test_shipped_formats(name: str, fields: list[str]) -> None:
    task_format = declared(format=name)
    assert list(task_format.schema["properties"]) == fields
    assert max_example_tokens(PromptEncoding(task_format)) < 1000


@pytest.mark.parametrize("name", ["chat", "sharegpt"])
def test_the_format_of_a_conversation_can_be_saved_and_read(tmp_path: Path, name: str) -> None:
    example = Example(json.loads(shipped("data", "examples", f"{name}.json").read_text()))
    original = infer_format([example]).format
    path = tmp_path / "saved.json"
    path.write_text(json.dumps(original.document()))
    assert specialize(load_format(str(path)), example).schema == original.schema
    assert declared(format=str(path)).schema == original.schema
    longer = declared(format=str(path), turns=3)
    assert longer.schema == specialize(load_format(name), example, turns=3).schema


def test_speakers_that_the_format_does_not_fix_are_the_usual_ones(tmp_path: Path) -> None:
    message = {
        "type": "object",
        "properties": {"role": {"type": "string"}, "content": {"type": "string"}},
        "required": ["role", "content"],
    }
    messages = {"type": "array", "prefixItems": [message] * 4, "minItems": 4, "maxItems": 4}
    task_format = declared(format=schema_file(tmp_path, {"messages": messages}, roles={"turns": "messages"}))
    turns = task_format.schema["properties"]["messages"]["prefixItems"]
    assert [turn["properties"]["role"] for turn in turns] == [{"const": "user"}, {"const": "assistant"}] * 2


@pytest.mark.parametrize("name", ["function_call", "sequence_labelling"])
def test_formats_that_need_an_example(name: str) -> None:
    with pytest.raises(FormatError, match="come from an example; give --example FILE"):
        declared(format=name)


def schema_file(tmp_path: Path, fields: dict[str, Any], **extension: Any) -> str:
    document = {"type": "object", "properties": fields, "required": [*fields][:1], "x-datacreate": extension}
    (tmp_path / "mine.json").write_text(json.dumps(document))
    return str(tmp_path / "mine.json")


def test_optional_fields_are_left_out_and_the_note_says_it(tmp_path: Path) -> None:
    optional = {"tone": {"type": ["string", "null"]}, "label": {"enum": ["a", "b"]}}
    fields = {"text": {"type": ["string", "null"]}, **optional}
    path = schema_file(tmp_path, fields, roles={"answer": "label"})
    inferred = declare_format(FormatOptions.of(format=path))
    assert inferred.format.schema["properties"] == {"text": {"type": "string"}, "label": {"enum": ["a", "b"]}}
    assert inferred.notes[0].endswith("; left out, since not required: tone")


def test_a_rule_whose_field_is_optional(tmp_path: Path) -> None:
    fields = {"answer": {"type": "string"}, "context": {"type": "string"}}
    path = schema_file(tmp_path, fields, roles={"context": "context", "answer": "answer"}, rules=["answer_in_context"])
    with pytest.raises(FormatError, match="answer_in_context needs the role context"):
        declared(format=path)


def test_an_optional_conversation(tmp_path: Path) -> None:
    fields = {"title": {"type": "string"}, "messages": load_format("chat").schema["properties"]["messages"]}
    without_rule = declared(format=schema_file(tmp_path, fields, roles={"turns": "messages"}))
    assert list(without_rule.schema["properties"]) == ["title"]
    path = schema_file(tmp_path, fields, roles={"turns": "messages"}, rules=["turns_alternate"])
    with pytest.raises(FormatError, match="turns_alternate needs the role turns"):
        declared(format=path)


def test_a_schema_of_constants(tmp_path: Path) -> None:
    with pytest.raises(ExampleError, match="no field can vary"):
        declared(format=schema_file(tmp_path, {"text": {"const": "x"}}))


def test_a_list_that_must_be_empty_is_described_without_items(tmp_path: Path) -> None:
    fields = {"none": {"type": "array", "items": False}, "text": {"type": "string"}}
    encoding = PromptEncoding(declared(format=schema_file(tmp_path, fields, roles={"answer": "text"})))
    assert "each written as [none, text]. Write" in chat_prompt(encoding, (), 5)[1]["content"]
    assert max_example_tokens(encoding) > 0


def test_positions_decide_the_number_of_options(tmp_path: Path) -> None:
    document = {
        "type": "object",
        "properties": {
            "question": {"type": "string"},
            "choices": {"type": "array", "items": {"type": "string"}},
            "answer": {"enum": ["A", "B", "C"]},
        },
        "x-datacreate": {"roles": {"options": "choices", "answer": "answer"}, "rules": ["answer_in_options"]},
    }
    (tmp_path / "mine.json").write_text(json.dumps(document))
    task_format = declared(format=str(tmp_path / "mine.json"))
    assert task_format.schema["properties"]["choices"]["maxItems"] == 3
    assert PromptEncoding(task_format).describe() == "[question, [right option, 2 wrong options]]"


def test_the_prompt_describes_the_fields(tmp_path: Path) -> None:
    properties = {
        "subject": {"type": "string", "description": "as in a mail"},
        "body": {"type": "string", "minLength": 20, "maxLength": 400},
        "stars": {"type": "integer", "minimum": 1, "maximum": 50},
        "opened": {"type": "string", "format": "date"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
        "from": {"type": "object", "properties": {"name": {"type": "string"}, "vip": {"type": "boolean"}}},
        "topic": {"enum": ["bug", "other"]},
        "version": {"const": 1},
    }
    document = {"type": "object", "properties": properties, "x-datacreate": {"roles": {"answer": "topic"}}}
    (tmp_path / "mine.json").write_text(json.dumps(document))
    encoding = PromptEncoding(declared(format=str(tmp_path / "mine.json")))
    system, user = chat_prompt(encoding, (), 5, RequestContent("Mails to a shop."))
    assert system["content"] == "You write data for training language models.\n\nMails to a shop."
    assert user["content"] == (
        "Write a JSON array of 5 examples, each written as [topic, subject, body, stars, opened, tags, from]. The "
        "topic is one of bug, other. The body is a text of 20 to 400 characters. The stars is a whole number of 1 to "
        "50. The opened is a date. The tags is a list of 1 to 3 texts. The from is an object with name, vip (one of "
        "true, false). The subject: as in a mail. Write a real subject, body, tags and from in each, all about "
        "different things."
    )


def test_a_question_with_fixed_labels_is_asked_for_as_a_sentence() -> None:
    encoding = PromptEncoding(declared(inputs="question", labels="answer=yes,no"))
    user = chat_prompt(encoding, (), 5)[1]["content"]
    assert user == (
        "Write a JSON array of 5 examples, each written as [answer, question]. In each, write a question as a whole "
        "sentence that someone would ask, and whose answer is the yes or no before it, all about different things."
    )
    pseudo = replace(encoding, pseudo_labels=True)
    user = chat_prompt(pseudo, (), 5)[1]["content"]
    assert user.startswith("Write a JSON array of 5 examples, each written as [question]. Write a real question")
    assert "Each question is one that yes or no alone answers. The answer of each is one of yes, no" in user


@pytest.mark.parametrize(
    ("text", "expected"), [("Yes.", True), ("no", True), ("Is it yes or no?", False), ("question", True)]
)
def test_a_label_is_no_content_of_another_field(text: str, expected: bool) -> None:
    encoding = PromptEncoding(declared(inputs="question", labels="answer=yes,no"))
    assert encoding.has_placeholder({"question": text, "answer": "yes"}) is expected


def test_a_conversation_is_described() -> None:
    user = chat_prompt(PromptEncoding(declared(format="chat", turns=2)), (), 5)[1]["content"]
    assert "then an object with role assistant, content" in user
    assert "The user writes 2 messages in each" in user


def test_longer_texts_may_take_more_tokens(tmp_path: Path) -> None:
    def tokens(**limits: int) -> int:
        path = schema_file(tmp_path, {"text": {"type": "string", **limits}})
        return max_example_tokens(PromptEncoding(declared(format=path)))

    assert tokens(maxLength=60) < tokens() < tokens(maxLength=1000) < tokens(maxLength=1500) < 600
    assert tokens(maxLength=10**9) < 600
    assert tokens(minLength=3000) > 2000
