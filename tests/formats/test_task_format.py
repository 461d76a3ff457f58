"""Format files: what a schema may contain, and the errors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from datacreate.errors import ExampleError, FormatError
from datacreate.formats.candidate import Candidate, validate_example
from datacreate.formats.example import Example, canonical_json, field_text
from datacreate.formats.prompt_encoding import PromptEncoding
from datacreate.formats.reject import Reject, RejectReason
from datacreate.formats.response import build_response_schema, parse_item
from datacreate.formats.schema_keywords import resolve_refs
from datacreate.formats.task_format import TaskFormat, load_format, read_format, specialize
from tests.formats import examples

TEXT = {"type": "string"}


def document(properties: dict[str, Any], roles: Any = None, rules: Any = (), **more: Any) -> dict[str, Any]:
    extension = {"roles": roles or {}, "rules": list(rules)}
    return {"type": "object", "properties": properties, "x-datacreate": extension, **more}


def read(properties: dict[str, Any], roles: Any = None, rules: Any = (), **more: Any) -> TaskFormat:
    return read_format(document(properties, roles, rules, **more), "mine")


def test_the_text_for_an_encoder_has_all_inputs_and_never_the_answer() -> None:
    roles = {"context": "thread", "answer": "topic"}
    task_format = read({"subject": TEXT, "body": TEXT, "thread": TEXT, "to": {"const": "us"}, "topic": TEXT}, roles)
    values = {"subject": "Hi", "body": "It broke.", "thread": "Earlier: hello", "to": "us", "topic": "repair"}
    assert task_format.text_for_model(values) == "subject: Hi\nbody: It broke."
    assert task_format.text_for_model({**values, "body": ""}) == "Hi"
    number = {"type": "integer"}
    numbers = read({"x": number, "y": number, "label": {"enum": ["a", "b"]}}, {"answer": "label"})
    assert numbers.text_for_model({"x": 3, "y": 0, "label": "a"}) == "x: 3\ny: 0"


def test_optional_fields_are_those_of_the_example() -> None:
    about = {"type": "object", "properties": {"who": TEXT, "when": TEXT}}
    task_format = read({"text": TEXT, "note": TEXT, "about": about})
    specialized = specialize(task_format, Example({"text": "a", "about": {"who": "b"}}))
    assert list(PromptEncoding(specialized).field_schemas) == ["text", "about"]
    assert not specialized.validator.is_valid({"text": "a", "about": {"who": "b", "when": "c"}})


@pytest.mark.parametrize("nullable", [{"type": ["string", "null"]}, {"anyOf": [TEXT, {"type": "null"}]}])
def test_the_example_decides_whether_a_field_is_null(nullable: dict[str, Any]) -> None:
    task_format = read({"text": TEXT, "note": nullable})
    without_note = specialize(task_format, Example({"text": "a", "note": None}))
    assert PromptEncoding(without_note).field_schemas.keys() == {"text"}
    specialized = specialize(task_format, Example({"text": "a", "note": "b"}))
    assert specialized.validator.is_valid({"text": "a", "note": "c"})
    assert not specialized.validator.is_valid({"text": "a", "note": None})


def test_definitions_are_resolved() -> None:
    mood = {"enum": ["good", "bad"]}
    entry = {"type": "object", "properties": {"m": {"$ref": "#/$defs/mood"}}}
    defs = {"$defs": {"mood": mood, "entry": entry}}
    task_format = read({"text": TEXT, "entry": {"$ref": "#/$defs/entry"}}, {"answer": "entry.m"}, **defs)
    specialized = specialize(task_format, Example({"text": "a", "entry": {"m": "bad"}}))
    assert specialized.labels == ("good", "bad")
    schema = json.loads(build_response_schema(PromptEncoding(specialized), 1, ["good"]))
    jsonschema.validate([[{"m": "good"}, "b"]], schema)
    assert not jsonschema.Draft202012Validator(schema).is_valid([[{"m": "bad"}, "b"]])


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"allOf": [TEXT]}, "cannot use 'allOf' at /properties/x; docs/formats.md"),
        ({"type": "array", "items": {"additionalItems": TEXT}}, "'additionalItems' at /properties/x/items"),
        ({"anyOf": [TEXT, {"maxlength": 3}]}, "cannot use 'maxlength' at /properties/x/anyOf/1"),
        ({"type": "string", "format": "phone"}, "cannot check the format 'phone' at /properties/x"),
        ({"type": "string", "pattern": "(a"}, "at /properties/x/pattern: '(a' is not a 'regex'"),
        ({"$ref": "https://example.org/text.json"}, "unknown $ref 'https://example.org/text.json' at"),
        ({"$ref": "#/$defs/none"}, "unknown $ref '#/$defs/none' at /properties/x"),
        ({"$ref": "#/$defs/tree"}, "recursive $ref at /properties/x/properties/part"),
        (False, "cannot use the schema false at /properties/x"),
    ],
)
def test_unsupported_keywords_are_errors_with_their_location(schema: Any, message: str) -> None:
    tree = {"type": "object", "properties": {"part": {"$ref": "#/$defs/tree"}}}
    with pytest.raises(FormatError) as raised:
        read({"x": schema}, **{"$defs": {"tree": tree}})
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_keyword_that_is_null_counts_as_not_set() -> None:
    # The tools of a Parquet row have the keywords of all tools; those that a tool does not have are null.
    value = {"type": "array", "items": None, "additionalProperties": None}
    assert resolve_refs({"properties": {"x": value}}, "format") == {"properties": {"x": value}}


def test_a_schema_that_is_no_object_is_an_error_with_its_location() -> None:
    with pytest.raises(FormatError, match=r"^format: cannot use the schema \[\{\"type.* at /properties/x/items; docs"):
        resolve_refs({"properties": {"x": {"type": "array", "items": [TEXT]}}}, "format")


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string", "minLength": 3, "maxLength": 5}, "fives", "far too long"),
        ({"type": "string", "pattern": r"^(?=.*x)\w+$"}, "a_x", "a_y"),
        ({"type": "string", "format": "email"}, "a.b@c.org", "a@b c"),
        ({"type": "string", "format": "date"}, "2024-02-29", "2024-99-99"),
        ({"type": "string", "format": "time"}, "23:59:59Z", "23:59:61Z"),
        ({"type": "string", "format": "date-time"}, "2024-02-29T01:02:03+01:00", "2024-02-29T01:02:03"),
        ({"type": "string", "format": "duration"}, "P1DT12H", "1 day"),
        ({"type": "string", "format": "hostname"}, "a-b.example.org", "-a.example.org"),
        ({"type": "string", "format": "ipv4"}, "192.0.2.1", "192.0.2.256"),
        ({"type": "string", "format": "ipv6"}, "2001:db8::1", "2001:db8::g"),
        ({"type": "string", "format": "uri"}, "https://example.org/a%20b?c#d", "example.org/a b"),
        ({"type": "string", "format": "uuid"}, "12345678-1234-1234-1234-123456789abc", "1234"),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, 0.5, 1.0),
        ({"type": "string", "not": {"enum": ["other"]}}, "this", "other"),
        ({"type": "array", "items": TEXT, "contains": {"const": "a"}}, ["b", "a"], ["b"]),
        ({"type": "object", "patternProperties": {"^n": {"type": "integer"}}}, {"n": 1}, {"n": "x"}),
        ({"type": "integer", "if": {"minimum": 9}, "then": {"multipleOf": 2}}, 10, 11),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, 0.5, 1),
        ({"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 1}]}, "a", "ab"),
    ],
    ids=canonical_json,
)
def test_validation_checks_what_engines_cannot(schema: dict[str, Any], good: Any, bad: Any) -> None:
    encoding = PromptEncoding(specialize(read({"text": TEXT, "x": schema}), Example({"text": "a text", "x": good})))
    written = json.loads(build_response_schema(encoding, 1, None))["items"]["prefixItems"][1]
    jsonschema.validate(bad, written)
    assert isinstance(parse_item(["another", good], encoding), Candidate)
    result = parse_item(["another", bad], encoding)
    assert isinstance(result, Reject)
    assert result.reason is RejectReason.CONSTRAINT_VIOLATION
    assert result.detail.startswith("x")


def test_other_keywords_exclude_labels() -> None:
    task_format = read(
        {"text": TEXT, "x": {"type": "integer", "exclusiveMinimum": 0, "maximum": 15, "multipleOf": 5}}, {"answer": "x"}
    )
    assert task_format.labels == (5, 10, 15)


@pytest.mark.parametrize("labels", [["low", "high", "low"], [1, 2, 1.0], [1, "1"]])
def test_a_label_is_named_once(labels: list[Any]) -> None:
    with pytest.raises(FormatError, match="mine: two of the labels are the same"):
        read({"text": TEXT, "x": {"enum": labels}}, {"answer": "x"})


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "string", "minLength": 5, "maxLength": 3}, "minLength 5 and maxLength 3 leave no value at /prop"),
        ({"type": "array", "items": TEXT, "minItems": 3, "maxItems": 2}, "minItems 3 and maxItems 2"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "minimum 2 and maximum 1"),
        ({"type": "number", "exclusiveMinimum": 1, "maximum": 1}, "exclusiveMinimum 1 and maximum 1"),
        ({"type": "array", "items": {"type": "string", "minLength": 5, "maxLength": 3}}, "at /properties/x/items"),
        ({"anyOf": [{"minimum": 3, "maximum": 1}, {"minimum": 2, "maximum": 1}]}, "at /properties/x/anyOf/0"),
        ({"anyOf": [{"type": "null"}, {"minimum": 2, "maximum": 1}]}, None),
        ({"type": "object", "properties": {"a": TEXT}, "required": ["b"]}, "'b' is required, but not one of"),
        ({"enum": ["spam"]}, "the answer x needs two or more values, which differ in more than case; change"),
        ({"enum": ["spam", "Spam", "ham"]}, "the answer x needs two or more values"),
        ({"type": "integer", "minimum": 1, "maximum": 1, "not": {"required": ["y"]}}, None),
        ({"type": "object", "properties": {"a": TEXT}, "anyOf": [{"properties": {}, "required": ["a"]}]}, None),
    ],
)  # fmt: skip
def test_a_format_in_which_no_example_is_valid_is_an_error(tmp_path: Path, schema: Any, message: str | None) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(document({"text": TEXT, "x": schema}, {"answer": "x"})))
    if message is None:
        load_format(str(tmp_path / "mine.json"))
        return
    with pytest.raises(FormatError, match=re.escape(message)):
        load_format(str(tmp_path / "mine.json"))


def test_any_value_fits_the_schema_true() -> None:
    task_format = read({"text": TEXT, "note": True, "x": True}, {"inputs": ["text", "note"], "answer": "x"})
    encoding = PromptEncoding(specialize(task_format, Example({"text": "a", "note": "b", "x": 1})))
    build_response_schema(encoding, 1, None)
    assert isinstance(parse_item(["some words", ["more"], {"y": None}], encoding), Candidate)


def test_a_conversation_is_shown_with_a_line_per_turn() -> None:
    turns = [{"role": "user", "content": "Is it open?"}, {"role": "assistant", "content": "Yes."}]
    assert field_text(turns) == "user: Is it open?\nassistant: Yes."
    assert field_text([{"from": "human", "value": "Hi"}]) == "human: Hi"
    for other in ([{**turns[0], "name": "Ann"}], [{"role": "user", "content": None}], turns[0]):
        assert field_text(other) == json.dumps(other)


def test_an_empty_conversation_does_not_alternate() -> None:
    message = {"type": "object", "properties": {"role": TEXT, "content": TEXT}}
    turns = {"turns": {"type": "array", "items": message}}
    task_format = read(turns, {"turns": "turns", "inputs": ["turns"]}, ["turns_alternate"])
    result = validate_example({"turns": []}, task_format)
    assert isinstance(result, Reject)
    assert result.reason is RejectReason.WRONG_TURNS


def test_a_field_may_have_the_name_of_a_keyword() -> None:
    assert read({"uniqueItems": TEXT, "oneOf": TEXT}).schema["properties"].keys() == {"uniqueItems", "oneOf"}


@pytest.mark.parametrize(
    ("roles", "rules", "message"),
    [
        ({"title": "a"}, [], "/x-datacreate/roles: Additional properties are not allowed ('title' was"),
        ({"inputs": ["a.b"]}, [], "the role inputs names a.b, which the schema lacks"),
        ({"answer": 3}, [], "/x-datacreate/roles/answer: 3 is not of type 'string', 'array'"),
        ({"options": "a"}, [], "the role options names a, which is not a list"),
        ({"tags": ["a"]}, [], "the role tags names a, which is not a list"),
        ({"turns": "texts"}, [], "which is not a conversation; name a list of objects with role and content"),
        ({}, ["options_vary"], "'options_vary' is not one of ['answer_in_options'"),
        ({"answer": "a"}, ["answer_in_options"], "needs the role options; give it to a required field"),
        (["answer"], [], "/x-datacreate/roles: ['answer'] is not of type 'object'"),
    ],
)
def test_unknown_roles_and_rules_are_errors(roles: Any, rules: list[Any], message: str) -> None:
    with pytest.raises(FormatError) as raised:
        read({"a": TEXT, "b": TEXT, "texts": {"type": "array", "items": TEXT}}, roles, rules)
    assert message in str(raised.value)


ONLY = "not the JSON Schema of an object"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        *((document, ONLY) for document in ([], 3, {}, {"properties": []}, {"type": "array", "properties": {}})),
        (document({"x": TEXT}, anyOf=[{"required": ["x"]}]), "cannot use 'anyOf' at /; docs"),
        (document({"x": TEXT}, definitions={}), "cannot use 'definitions'"),
    ],
)
def test_a_malformed_document_is_an_error(document: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_format(document, "mine")


def test_an_example_that_the_schema_rejects_is_an_error() -> None:
    task_format = read({"text": TEXT, "stars": {"type": "integer", "minimum": 1, "maximum": 5}})
    for values, message in [
        ({"text": "a", "stars": 6}, "stars: 6 is greater than the maximum of 5"),
        ({"text": "a", "stars": "five"}, 'stars: "five" (text), expected integer'),
        ({"text": "a", "stars": 3.0}, "stars: 3.0 (number), expected integer"),
        ({"text": "a", "rating": 5}, "the field 'rating' is not in the format mine"),
    ]:
        with pytest.raises(ExampleError) as raised:
            specialize(task_format, Example(values))
        assert message in str(raised.value)


def test_an_example_that_breaks_a_rule_is_an_error() -> None:
    fields = {"context": {"type": ["string", "null"]}, "answer": TEXT}
    span = read(fields, {role: role for role in fields}, ["answer_in_context"])
    with pytest.raises(ExampleError, match="breaks the rule answer_in_context"):
        specialize(span, Example({"answer": "a"}))
    with pytest.raises(ExampleError, match="breaks the rule answer_in_context"):
        specialize(span, Example({"context": None, "answer": "None"}))
    with pytest.raises(ExampleError, match="breaks the rule options_differ"):
        specialize(load_format("multiple_choice"), Example({**examples.UMBRELLA, "options": ["stand", "Stand "]}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory; --format takes"),
        (b"{", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read"),
        (b"\xff", "cannot be read"),
    ],
)
def test_an_unreadable_format_file_is_an_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        load_format(str(path))
    with pytest.raises(FormatError, match="choose one of chat, function_call, multiple_choice"):
        load_format("multiple_choices")
