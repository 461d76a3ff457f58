"""Inference of the format: any JSON object can be the example."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.errors import DatacreateError, ExampleError, UsageError
from datacreate.formats import FormatOptions
from datacreate.formats.candidate import Candidate
from datacreate.formats.prompt_encoding import PromptEncoding
from datacreate.formats.reject import Reject
from datacreate.formats.response import build_response_schema, parse_completion
from datacreate.formats.task_format import read_format
from datacreate.runs.formatting_examples import read_examples
from tests.formats import examples
from tests.formats.examples import encoding_of, inferred, json_objects
from tests.support.scripted import fill


def roles(values: dict[str, Any], **overrides: dict[str, str]) -> dict[str, str]:
    return inferred(values, **overrides).format.roles.named()


@pytest.mark.parametrize("values", examples.ALL.values(), ids=examples.ALL)
def test_a_model_that_obeys_the_schema_writes_the_same_fields(values: dict[str, Any]) -> None:
    encoding = encoding_of(values)
    assert encoding.format.validator.is_valid(values)
    text = json.dumps(fill(json.loads(build_response_schema(encoding, 3, None)), random.Random(0), 10**6))
    results = parse_completion(text, encoding, 3, truncated=False)
    assert len(results) == 3
    accepted = [result for result in results if isinstance(result, Candidate)]
    assert all(list(candidate.example.values) == list(values) for candidate in accepted)


def test_shipped_formats_are_recognized() -> None:
    assert inferred(examples.UMBRELLA).format.name == "multiple_choice"
    assert inferred(examples.CLAIM).format.name == "yes_no_closed_book"
    assert inferred(examples.PASSAGE).format.name == "yes_no_open_book"
    with pytest.raises(ExampleError, match="answer_in_options"):
        inferred({**examples.UMBRELLA, "label": "attic"})


@pytest.mark.parametrize(
    ("values", "options", "note"),
    [
        ({"a": "I left.", "b": None, "mood": "sad"}, {"inputs": "a,b"}, "warning: --inputs b: null or empty in each"),
        ({"text": "I left.", "scores": [1, 4]}, {"answer": "scores"}, "add --range scores=LOW..HIGH"),
        ({"text": "I left.", "flags": [True]}, {"answer": "flags"}, "add --labels flags=true,false"),
        (
            {"q": "Which swim?", "options": ["cod", "cow", "eel"], "answer": ["cod", "eel"]},
            {},
            "warning: answer: each part is one of options, but new answers are not checked for this",
        ),
    ],
)
def test_notes_about_empty_inputs_and_about_answers_that_are_lists(
    values: dict[str, Any], options: dict[str, Any], note: str
) -> None:
    assert any(note in line for line in inferred(values, **options).notes)


def test_labels_that_the_user_gives() -> None:
    result = inferred(examples.NLI, labels=examples.NLI_LABELS)
    assert result.format.roles.named() == {"inputs": "premise, hypothesis", "context": "premise", "answer": "label"}
    assert result.format.labels == ("entailment", "neutral", "contradiction")
    assert result.format.head == "sequence_classification"
    assert "labels: entailment, neutral, contradiction" in result.notes[0]
    assert len(result.notes) == 1
    two = inferred({"text": "I left.", "mood": "sad", "label": "a"}, labels={"mood": "sad,glad", "label": "a,b"})
    assert two.notes[1] == "only the answer, label, is balanced and verified, not mood"
    with_dots = inferred(examples.DOTTED, labels={"a.label": "yes,no"}).format
    assert with_dots.roles.answer == ("a.label",)
    options = {"question": "How is it?", "options": ["good", "bad"], "label": "good"}
    encoding = encoding_of(options, labels={"label": "bad,good"})
    assert not encoding.format.options_vary
    assert list(encoding.field_schemas) == ["label", "question"]


def test_a_list_that_the_user_names_as_options_is_not_ignored_for_its_name() -> None:
    values = {"q": "Which is a fish?", "url": ["cod", "crow"]}
    assert roles(values, options="url") == {"inputs": "q", "options": "url"}
    assert roles(values)["ignored"] == "url"


@pytest.mark.parametrize(
    ("values", "labels", "advice"),
    [
        ({"text": "I love it.", "stars": 4}, None, "--range stars=LOW..HIGH"),
        ({"text": "I love it.", "label": "YES"}, ("YES", "NO"), "--labels label=a,b,c"),
        ({"text": "I love it.", "label": True}, (True, False), None),
        ({"text": "I love it.", "score": 4.2}, None, None),
        ({"prompt": "Name a fish.", "response": "Cod.", "category": "open"}, None, "--labels response=a,b,c"),
        ({"text": "It hurts.", "triage": {"urgent": True}}, None, "--labels FIELD=a,b,c"),
        ({"text": "It hurts.", "triage": {"label": "no"}}, None, "--labels FIELD=a,b,c"),
        ({"text": "It hurts.", "urgent": True}, None, "--labels FIELD=a,b,c"),
        (
            {"subject": "Hi", "body": "Yes."},
            None,
            "--answer FIELD; for a field with fixed values add --labels FIELD=a,b,c",
        ),
        ({"text": "It hurts."}, None, None),
    ],
)
def test_a_label_has_a_usual_name_at_the_top_and_the_line_says_how_to_change_it(
    values: dict[str, Any], labels: Any, advice: str | None
) -> None:
    result = inferred(values)
    assert result.format.labels == labels
    [line] = result.notes
    assert line.endswith(f"add {advice}") if advice else "add --" not in line


@pytest.mark.parametrize(
    ("field", "answers", "warning"),
    [
        ("sentiment", ["positive"], "only one value of sentiment is known (positive); the model will invent others. If "
         "it has a fixed set of values, name all: --labels sentiment=positive,..."),
        ("Category", ["spam", "ham"], "only 2 values of Category are known (spam, ham);"),
        ("label", ["off topic"], "name all: --labels 'label=off topic,...'"),
        ("answer", list("abcabdce"), "only 5 values of answer are known (a, b, c, d, e); the"),
        ("label", list("abcdefgh"), "only 8 values of label are known (a, b, c, d, e, ...); the"),
        ("stars", ["1", "5", "5"], "name all: --labels stars=1,5,..."),
        ("answer", ["Cod."], None),
        ("answer", ["Cod.", "Eel.", "Ray.", "Cod."], None),
        ("label", ["spam", "ham", "spam"], None),
        ("label", ["A sentence with its own words, and so many of them that it is no label."], None),
    ],
)  # fmt: skip
def test_a_warning_says_that_the_answers_are_no_labels(field: str, answers: list[str], warning: str | None) -> None:
    rows = [{"text": f"Text {index}.", field: answer} for index, answer in enumerate(answers)]
    _, *warnings = read_examples(rows, FormatOptions())[1].notes
    assert len(warnings) == bool(warning)
    assert not warning or (warnings[0].startswith("warning: ") and warning in warnings[0])


@pytest.mark.parametrize("answer", ["the Swis Alps", "The Swiss Alps.", "In a hut.", "Peter"])
def test_an_answer_that_the_context_spells_otherwise_gets_a_note(answer: str) -> None:
    values = {"context": "Heidi lives in the Swiss Alps with Peter.", "question": "Where does she live?"}
    warnings = inferred({**values, "answer": answer}).notes[1:]
    assert len(warnings) == ("Alps" in answer)
    assert all(f"{answer!r} does not occur in context, but 'the Swiss Alps' does" in text for text in warnings)


def conversation(*speakers: str) -> list[dict[str, str]]:
    return [{"role": speaker, "content": f"Text {index}."} for index, speaker in enumerate(speakers)]


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ({"messages": conversation("user", "assistant"), "label": "good"}, "label"),
        ({"id": "c1", "messages": conversation("system", "user", "assistant", "user"), "intent": "refund"}, "intent"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "No"}], "answer": "x"}, "answer"),
        ({"sentences": ["One.", "Two."], "label": "good"}, "label"),
    ],
)  # fmt: skip
def test_a_label_of_lists_is_the_answer_and_speakers_stay(values: dict[str, Any], answer: str) -> None:
    result = inferred(values).format
    content = next(name for name in values if name not in ("id", answer))
    ignored = {"ignored": "id"} if "id" in values else {}
    assert result.roles.named() == {"inputs": content, "answer": answer, **ignored}
    assert inferred(values, labels={answer: f"{values[answer]},other"}).format.head == "sequence_classification"
    assert result.validator.is_valid(values)
    if isinstance(values[content][0], dict):
        assert not result.validator.is_valid({**values, content: values[content][::-1]})
        assert result.text_for_model(values) == " ".join(list(turn.values())[1] for turn in values[content])


def test_conversations_of_different_length_keep_their_speakers() -> None:
    rows = [{"messages": conversation(*("user", "assistant") * size), "label": "good"} for size in (1, 2)]
    validator = read_examples(rows, FormatOptions(labels={"label": "good,bad"}))[1].format.validator
    assert all(map(validator.is_valid, rows))
    assert not validator.is_valid({**rows[0], "messages": conversation("user", "user")})


@pytest.mark.parametrize(
    ("question", "answer", "labels"),
    [
        ("Schwimmt Eis?", "ja", ("ja", "nein")),
        ("Drijft het ijs op een meer?", "Ja", ("Ja", "Nee")),
        ("Flyter is och är det kallt?", "nej", ("ja", "nej")),
        ("¿Flota el hielo en los lagos?", "No", ("Sí", "No")),
        ("Il ghiaccio è di acqua?", "no", ("sì", "no")),
        ("Does the ice float?", "no", ("yes", "no")),
        ("冰会浮吗？", "是", ("是", "否")),
        ("氷は浮きますか？", "いいえ", ("はい", "いいえ")),
        ("Est-ce froid ?", "OUI", ("OUI", "NON")),
        ("Flutua?", "não", ("sim", "não")),
        ("Лёд плавает?", "Нет", ("Да", "Нет")),
        ("क्या बर्फ तैरती है?", "नहीं", ("हाँ", "नहीं")),
        ("هل يطفو الجليد؟", "نعم", ("نعم", "لا")),
        ("얼음은 뜨나요?", "예", ("예", "아니요")),
        ("Buz yüzer mi?", "Hayır", ("Evet", "Hayır")),
        ("Băng có nổi không?", "không", ("có", "không")),
        ("Czy lód pływa?", "tak", ("tak", "nie")),
        ("Apakah es mengapung?", "tidak", ("ya", "tidak")),
    ],
)
def test_yes_and_no_in_many_languages(question: str, answer: str, labels: tuple[str, str]) -> None:
    assert inferred({"question": question, "answer": answer}).format.labels == labels
    for name in ("answer", "label"):
        with_options = inferred({"question": question, "options": list(labels), name: answer}).format
        assert with_options.labels == labels
        assert not with_options.options_vary


@pytest.mark.parametrize(
    ("question", "name", "answer"),
    [("質問", "答え", "はい"), ("질문", "정답", "예"), ("q", "a", "yes"), ("Q", "A", "No"),
     ("pytanie", "Odpowiedź", "tak"), ("câu hỏi", "trả lời", "có"),
     ("domanda", "risposta", "sì"), ("คำถาม", "คำตอบ", "ใช่"), ("प्रश्न", "उत्तर", "हाँ")],
)  # fmt: skip
def test_the_answer_has_its_name_in_the_languages_of_yes_and_no(question: str, name: str, answer: str) -> None:
    result = inferred({question: "?? x", name: answer}).format
    assert result.roles.answer == (name,)
    assert answer in (result.labels or ())
    assert inferred({"q": "Which?", "a": "fish", "b": "bird"}).format.roles.answer is None


def test_an_answer_that_is_a_span_of_the_context() -> None:
    assert inferred(examples.SPAN).format.rules == {"answer_in_context"}
    yes = {"context": "yes, it rained.", "question": "Did it rain?", "answer": "yes"}
    assert inferred(yes).format.rules == frozenset()
    assert inferred(yes).format.labels == ("yes", "no")
    good = {"context": "good weather", "question": "How was it?", "answer": "good"}
    assert inferred(good, labels={"answer": "good,bad"}).format.rules == frozenset()


@pytest.mark.parametrize(
    ("name", "value", "option", "arguments", "labels"),
    [
        ("triage", {"urgent": True}, "labels", {"triage.urgent": "true,false"}, (True, False)),
        ("stars", 4, "labels", {"stars": "4,5"}, (4, 5)),
        ("stars", 4, "range", {"stars": "1..5"}, (1, 2, 3, 4, 5)),
        ("celsius", 40, "range", {"celsius": "-50..60"}, None),
        ("score", 0.5, "range", {"score": "0..1"}, None),
    ],
)
def test_labels_and_ranges_end_the_advice(
    name: str, value: Any, option: str, arguments: dict[str, str], labels: Any
) -> None:
    result = inferred({"text": "It hurts.", name: value}, **{option: arguments})
    assert result.format.labels == labels
    assert "add --" not in result.notes[0]
    outside = 101 if option == "range" else "other"
    assert not result.format.validator.is_valid({"text": "It hurts.", name: outside})


@pytest.mark.parametrize("argument", ["0..9", "0..100"])
def test_a_list_with_a_range_may_repeat_numbers_and_be_twice_as_long(argument: str) -> None:
    validator = inferred({"text": "Good.", "scores": [1, 3, 3]}, range={"scores": argument}).format.validator
    assert validator.is_valid({"text": "Bad.", "scores": [2] * 6})
    for wrong in ([], [2] * 7, [101]):
        assert not validator.is_valid({"text": "Bad.", "scores": wrong})


def test_roles_in_objects_and_of_a_single_text() -> None:
    task_format = inferred(examples.NESTED).format
    assert task_format.roles.named() == {"inputs": "input.claim, output.why", "answer": "output.label"}
    assert task_format.labels == ("true", "false")
    assert roles({"output": "A poem about rain."}) == {"inputs": "output"}


@pytest.mark.parametrize(
    ("answer", "first", "remark"),
    [
        (0, 0, ""),
        (1, 0, "label 1 is taken for 'four', counted from 0; if it counts from 1, add --labels label=1,2,3"),
        (3, 1, ""),
        ("2", "0", "if it counts from 1, add --labels label=1,2,3"),
        ("B", "A", ""),
        ("c", "a", ""),
    ],
)
def test_an_answer_may_be_a_position_or_a_letter(answer: Any, first: Any, remark: str) -> None:
    values = {"stem": "Two and two?", "choices": ["three", "four", "five"], "label": answer}
    result = inferred(values)
    assert result.format.head == "multiple_choice"
    assert result.format.labels is None
    assert (result.format.first_key, type(result.format.first_key)) == (first, type(first))
    assert remark in result.notes[0] if remark else "if it counts" not in result.notes[0]
    if answer == 1:
        assert inferred(values, labels={"label": "1,2,3"}).format.first_key == 1


def test_lists_that_show_no_type_may_differ() -> None:
    rows = [{"text": f"t{place}", "tags": tags} for place, tags in enumerate(([""], [], [""], None))]
    all_examples, result = read_examples(rows, FormatOptions())
    assert [example.values for example in all_examples] == rows
    assert result.format.schema["properties"]["tags"] == {"enum": [[""], [], None]}
    _, result = read_examples([{"question": "q", "answer": [""] * size} for size in (1, 0)], FormatOptions())
    assert result.format.labels is None


@pytest.mark.parametrize("values", [{"a": None}, {"a": ""}, {"a": []}, {"a": {"b": None}}, {}])
def test_an_example_without_a_variable_field_is_an_error(values: dict[str, Any]) -> None:
    with pytest.raises(ExampleError, match="no field that can vary"):
        inferred(values)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"labels": {"lable": "a,b"}}, "no such field; it has text, stars"),
        ({"labels": {"text.kind": "a,b"}}, "no such field; it has text, stars"),
        ({"labels": {"stars": "1,1"}}, "two or more different values"),
        ({"labels": {"text": "complaint,Complaint"}}, "two or more different values; case does not count"),
        ({"labels": {"stars": "good,bad"}}, "'good' is not of the example's type, integer; give one"),
        ({"labels": {"stars": "2,3"}}, "expected 2, 3 .integer"),
        ({"range": {"text": "1..5"}}, "is not a number"),
        ({"range": {"stars": "1-5"}}, "write LOW..HIGH"),
        ({"range": {"stars": "5..1"}}, "LOW must be less"),
        ({"range": {"stars": "2..5"}}, "stars: 1 is less than the minimum of 2"),
        ({"range": {"stars": "1..5"}, "labels": {"stars": "1,2"}}, "both --labels and --range"),
    ],
)
def test_overrides_must_fit_the_example(overrides: dict[str, dict[str, str]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        inferred(examples.REVIEW, **overrides)


@pytest.mark.parametrize("name", ["entities", "entities.label"])
def test_labels_of_objects_in_a_list_need_a_format(name: str) -> None:
    values = {"text": "Replace NP-200.", "entities": [{"span": "NP-200", "label": "PRODUCT"}]}
    assert "--labels" not in inferred(values, answer="entities").notes[0]
    with pytest.raises(UsageError, match=f"--labels {name}: .* write `enum` into the output of"):
        inferred(values, labels={name: "PRODUCT,SITE"})


@pytest.mark.parametrize("value", [2**63, {1, 2}, {1: "x"}, b"x"])
def test_values_that_json_cannot_hold_are_an_error(value: Any) -> None:
    with pytest.raises(ExampleError):
        inferred({"text": "a", "value": value})


def variants(value: Any) -> st.SearchStrategy[Any]:
    """The value, null, or another value of its type; of an object with the same keys."""
    if isinstance(value, dict):
        return st.fixed_dictionaries({key: variants(part) for key, part in value.items()})
    if isinstance(value, list):
        return st.just(value) | st.none() | st.just([]) | st.just(value * 2)
    others = {str: st.text(max_size=12), int: st.integers(-9, 9)}
    return st.just(value) | st.none() | others.get(type(value), st.just(value))


@settings(max_examples=300)
@given(data=st.data(), values=json_objects)
def test_any_objects_give_a_format_of_all_or_an_error_of_one_line(data: st.DataObject, values: dict[str, Any]) -> None:
    rows = [values, *data.draw(st.lists(variants(values), max_size=4))]
    try:
        all_examples, result = read_examples(rows, FormatOptions())
    except DatacreateError as error:
        if len(str(error).splitlines()) != 1:
            raise AssertionError(str(error)) from error
        return
    task_format = result.format
    assert all(len(note.splitlines()) == 1 for note in result.notes)
    assert read_format(json.loads(json.dumps(task_format.document())), "inferred") == task_format
    for style in ("positional", "keyed"):
        encoding = PromptEncoding(task_format, style)
        schema = json.loads(build_response_schema(encoding, 1, None))
        jsonschema.Draft202012Validator.check_schema(schema)
        for example in all_examples:
            written = encoding.write(example)
            jsonschema.validate([written], schema, jsonschema.Draft202012Validator)
            read, answer = encoding.read(written), task_format.roles.answer
            assert read.keys() == example.values.keys()
            if len(all_examples) == 1 and (not answer or answer[0] in encoding.field_schemas):
                assert read == values  # otherwise the answer gets the spelling of its option
        labels = list(task_format.labels[:2]) if task_format.labels else None
        made = fill(json.loads(build_response_schema(encoding, 2, labels)), random.Random(0), 10**6)
        for item in parse_completion(json.dumps(made), encoding, 2, truncated=False):
            assert isinstance(item, Reject) or task_format.validator.is_valid(item.example.values)
