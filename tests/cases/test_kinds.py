"""Kinds of examples that people have: recognized without options, made, and exported without losing a field."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from datacreate.commands.filter_rows import FilterConfig, filter_rows
from datacreate.creation.recipe import verify_mode
from datacreate.errors import ExampleError, FormatError, UsageError
from datacreate.finetuning.training_rows import infer_head, read_source
from datacreate.formats import FormatOptions
from datacreate.formats.candidate import Candidate, validate_example
from datacreate.formats.example import Example, Json
from datacreate.formats.infer import infer_format
from datacreate.formats.reject import Reject, RejectReason
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from datacreate.runs.export import LAYOUTS
from tests.cases import test_core
from tests.cases.test_core import knowing
from tests.support.making import examples, exported, make
from tests.support.scripted import Script, answering

TOOLS = [
    {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
            "required": ["city"],
        },
    },
    {"type": "function", "function": {"name": "list_alarms", "description": "All alarms."}},
]
PREFERENCE = {"prompt": "Name a fish.", "chosen": "Cod.", "rejected": "Table."}
SAID = {"system": "Be brief.", "user": "What is a fjord?", "assistant": "A narrow sea inlet."}
CHAT = {"messages": [{"role": role, "content": text} for role, text in SAID.items()]}
SHAREGPT = {"conversations": [{"from": "human", "value": SAID["user"]}, {"from": "gpt", "value": SAID["assistant"]}]}
TAGS = {"tokens": ["Kim", "visited", "Oslo"], "ner_tags": [1, 0, 3]}
NAMED_TAGS = {"tokens": ["Kim", "visited", "Oslo"], "tags": ["B-PER", "O", "B-LOC"]}
CALLED = {"name": "get_weather", "arguments": {"city": "Oslo"}}
CALL = {"query": "How warm is it in Oslo?", "tools": TOOLS, "call": CALLED}
ALPACA = {key: test_core.SYSTEM[key] for key in ("system", "instruction", "input", "output")}
EMPTY_OBJECT = {"question": "What is blue?", "answer": "the sky", "metadata": {}, "source": None, "tags": []}
MAP = {"name": "desk lamp", "attrs": {"colour": "black", "watt": "7"}}

SHIPPED: dict[str, tuple[dict[str, Json], dict[str, Any], str]] = {
    "preference": (PREFERENCE, {}, "preference"),
    "chat": (CHAT, {}, "chat"),
    "chat of two turns": (CHAT, {"turns": 2}, "chat"),
    "sharegpt": (SHAREGPT, {}, "sharegpt"),
    "tags": (TAGS, {"range": {"ner_tags": "0..4"}}, "sequence_labelling"),
    "named tags": (NAMED_TAGS, {"labels": {"tags": "O,B-PER,B-LOC"}}, "sequence_labelling"),
    "function call": (CALL, {}, "function_call"),
}
"""Name -> example, options, the shipped format that it gets."""


@pytest.mark.parametrize(("values", "options", "name"), SHIPPED.values(), ids=SHIPPED)
def test_a_kind_of_example_is_recognized(values: dict[str, Json], options: dict[str, Any], name: str) -> None:
    assert infer_format([Example(values)], FormatOptions(**options)).format.name == name


def test_turns_of_sharegpt_may_have_other_fields() -> None:
    turns = [{**turn, "content": "raw"} for turn in SHAREGPT["conversations"]]
    task_format = infer_format([Example({"conversations": turns})], FormatOptions()).format
    speakers = [turn["properties"]["from"] for turn in task_format.schema["properties"]["conversations"]["prefixItems"]]
    assert speakers == [{"const": "human"}, {"const": "gpt"}]


def test_kinds_are_read_with_the_fields_of_their_origin(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, example={"id": "c1", **SHAREGPT}, count=4)
    assert RunDirectory(tmp_path / "run").read_config().format.name == "sharegpt"
    assert {row["id"] for row in examples(tmp_path / "run")} == {"c1"}
    rows = [{"id": str(i), **PREFERENCE, "prompt": f"Name fish {i}."} for i in range(6)]
    rows[3]["rejected"] = "cod"
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = filter_rows(path, FilterConfig(near=None), out=tmp_path / "kept.jsonl")
    assert (report["format"], report["rows"], report["invalid"], report["kept"]) == ("preference", 6, 1, 5)


def test_chat_rows_differ_by_what_the_assistant_answers_to(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, example=CHAT, turns=2, count=6)
    task_format = RunDirectory(tmp_path / "run").read_config().format
    for row in examples(tmp_path / "run"):
        assert [turn["role"] for turn in row["messages"]] == ["system", *["user", "assistant"] * 2]
        contents = [turn["content"] for turn in row["messages"]]
        assert task_format.input_texts(row) == (contents[0], contents[1], contents[3])


CHAT_TURNS = [{"role": role, "content": role} for role in ("user", "assistant", "user", "system")]

INVALID: dict[str, tuple[dict[str, Json], dict[str, Any], dict[str, Json], RejectReason]] = {
    "equal answers": (PREFERENCE, {}, {**PREFERENCE, "rejected": "cod"}, RejectReason.EQUAL_ANSWERS),
    "two users": (CHAT, {}, {"messages": [CHAT_TURNS[0]] * 2}, RejectReason.WRONG_TURNS),
    "ends with the user": (CHAT, {}, {"messages": CHAT_TURNS[:3]}, RejectReason.WRONG_TURNS),
    "system in the middle": (CHAT, {}, {"messages": CHAT_TURNS}, RejectReason.WRONG_TURNS),
    "a tag too few": (
        TAGS, {"range": {"ner_tags": "0..4"}}, {**TAGS, "ner_tags": [1, 0]}, RejectReason.WRONG_TAGS,
    ),
    "unknown tool": (CALL, {}, {**CALL, "call": {"name": "fly", "arguments": {}}}, RejectReason.INVALID_CALL),
    "argument missing": (
        CALL, {}, {**CALL, "call": {"name": "get_weather", "arguments": {}}}, RejectReason.INVALID_CALL,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("values", "options", "row", "reason"), INVALID.values(), ids=INVALID)
def test_what_a_schema_cannot_hold_has_its_own_reject_reason(
    values: dict[str, Json], options: dict[str, Any], row: dict[str, Json], reason: RejectReason
) -> None:
    from datacreate.formats.task_format import load_format

    task_format = load_format(infer_format([Example(values)], FormatOptions(**options)).format.name)
    assert isinstance(validate_example(values, task_format), Candidate)
    result = validate_example(row, task_format)
    assert isinstance(result, Reject)
    assert result.reason is reason
    with pytest.raises(ExampleError, match="breaks the rule"):
        infer_format([Example(row)], FormatOptions(**options))


def test_kinds_that_need_more_say_so() -> None:
    with pytest.raises(ExampleError, match=r"ner_tags: .*add --range ner_tags=0\.\.N"):
        infer_format([Example(TAGS)])
    with pytest.raises(ExampleError, match=r"tags: .*add --labels tags=O,B-PER"):
        infer_format([Example(NAMED_TAGS)])
    with pytest.raises(UsageError, match="--verify relabel: a call cannot be relabeled"):
        verify_mode(
            CreateConfig(example=CALL, count=1, run_dir=Path("run"), verify="relabel"),
            infer_format([Example(CALL)]).format,
        )
    with pytest.raises(UsageError, match="--turns"):
        infer_format([Example(PREFERENCE)], FormatOptions(turns=2))
    tool = {"name": "f", "parameters": {"x": {"type": "str"}}}
    with pytest.raises(FormatError, match="the tool f"):
        infer_format([Example({**CALL, "tools": [tool], "call": {"name": "f", "arguments": {}}})])


def test_functions_are_called_equally_often(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, example=CALL, count=8)
    calls = [row["call"] for row in examples(tmp_path / "run")]
    assert sorted(call["name"] for call in calls) == ["get_weather"] * 4 + ["list_alarms"] * 4
    assert all(call["name"] != "list_alarms" or call["arguments"] == {} for call in calls)
    assert {len(call["arguments"]) for call in calls if call["name"] == "get_weather"} == {1, 2}


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "function call"])
def test_no_encoder_is_trained_on_a_kind_without_a_head(name: str, tmp_path: Path, model: str) -> None:
    values, options, _ = SHIPPED[name]
    make(tmp_path / "run", model, example=values, **options, count=4)
    source = read_source(str(tmp_path / "run"))
    with pytest.raises(UsageError, match="no field is recognized as the label"):
        infer_head(source)


def texts(value: Json) -> list[Json]:
    """Every value in an example, except who speaks."""
    if isinstance(value, dict):
        return [text for key, part in value.items() if key not in ("role", "from") for text in texts(part)]
    return [text for part in value for text in texts(part)] if isinstance(value, list) else [value]


def read(layout: str, path: Path) -> list[Json]:
    if layout == "hf":
        import datasets

        return list(datasets.load_from_disk(str(path))["train"].to_list())
    if layout == "parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_table(path).to_pylist())
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file) if layout == "csv" else map(json.loads, file))


EXPORTED: dict[str, tuple[dict[str, Json], dict[str, Any], Script]] = {
    **{name: (values, options, answering()) for name, (values, options, _) in SHIPPED.items()},
    **{name: (values, options, knowing) for name, (values, options, _, _) in test_core.KINDS.items()},
    "empty object": (EMPTY_OBJECT, {}, answering()),
    "map": (MAP, {}, answering()),
}
"""Name -> example, options, and a model that writes correct rows."""


@pytest.mark.parametrize(("values", "options", "script"), EXPORTED.values(), ids=EXPORTED)
def test_every_export_holds_every_field_or_names_it(
    values: dict[str, Json], options: dict[str, Any], script: Script, tmp_path: Path, model: str
) -> None:
    make(tmp_path / "run", model, script, example=values, **options, count=6)
    run = RunDirectory(tmp_path / "run")
    made = list(run.examples())
    task_format = run.read_config().format
    in_words = {(task_format.roles.answer or ("",))[0]} if task_format.answers.are_keys else set[str]()
    for layout in LAYOUTS:
        notes: list[str] = []
        target = tmp_path / "out" / layout
        try:
            path = exported(run, layout, target, notify=notes.append)
        except UsageError as error:
            refused = str(error)
        else:
            lost = [lost_fields(*pair) for pair in zip(read(layout, path), made, strict=True)]
            assert set().union(*lost) <= named(notes) | in_words
            continue
        assert "; export " in refused
        assert layout in ("alpaca", "preference")
        assert not target.exists()


def lost_fields(row: Json, values: dict[str, Json]) -> set[str]:
    """The fields of an example that have a value which an exported row does not contain."""
    text = json.dumps(row, ensure_ascii=False).replace("\\", "")
    return {
        name
        for name, value in values.items()
        if any(str(part) not in text and json.dumps(part) not in text for part in texts(value) if part)
    }


def named(notes: list[str]) -> set[str]:
    """The top-level fields that notes name."""
    lists = (note.partition("leaves out ")[2].partition(";")[0] for note in notes)
    return {name.partition(".")[0] for names in lists for name in names.split(", ")}


def test_exports_of_chat_layouts(tmp_path: Path, model: str) -> None:
    make(tmp_path / "chat", model, example=CHAT, count=2)
    run = RunDirectory(tmp_path / "chat")
    made = examples(tmp_path / "chat")
    assert read("chat", exported(run, "chat")) == made
    assert read("alpaca", exported(run, "alpaca"))[0] == {
        "instruction": made[0]["messages"][1]["content"],
        "input": "",
        "output": made[0]["messages"][2]["content"],
        "system": made[0]["messages"][0]["content"],
    }
    make(tmp_path / "sharegpt", model, example=SHAREGPT, turns=2, count=2)
    run, [first, _] = RunDirectory(tmp_path / "sharegpt"), examples(tmp_path / "sharegpt")
    speakers = {"human": "user", "gpt": "assistant"}
    assert read("chat", exported(run, "chat"))[0] == {
        "messages": [{"role": speakers[t["from"]], "content": t["value"]} for t in first["conversations"]]
    }
    with pytest.raises(UsageError, match="one turn of the user, these have more; export chat"):
        exported(run, "alpaca")


def test_a_chat_export_has_calls_as_chat_templates_read_them(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, example=CALL, count=2)
    [first, _] = examples(tmp_path)
    call = {"type": "function", "function": first["call"]}
    assert read("chat", exported(RunDirectory(tmp_path), "chat"))[0] == {
        "messages": [
            {"role": "user", "content": first["query"]},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ],
        "tools": [{"type": "function", "function": TOOLS[0]}, TOOLS[1]],
    }


def test_exports_of_instructions_and_preferences(tmp_path: Path, model: str) -> None:
    make(tmp_path / "alpaca", model, example=ALPACA, count=2)
    run, [first, _] = RunDirectory(tmp_path / "alpaca"), examples(tmp_path / "alpaca")
    assert read("alpaca", exported(run, "alpaca"))[0] == first
    assert read("chat", exported(run, "chat"))[0]["messages"] == [
        {"role": "system", "content": first["system"]},
        {"role": "user", "content": f"instruction: {first['instruction']}\ninput: {first['input']}"},
        {"role": "assistant", "content": first["output"]},
    ]
    with pytest.raises(UsageError, match="needs a chosen and a rejected answer; export chat"):
        exported(run, "preference")
    make(tmp_path / "preference", model, example=PREFERENCE, count=2)
    run = RunDirectory(tmp_path / "preference")
    assert read("preference", exported(run, "preference")) == examples(tmp_path / "preference")
    notes: list[str] = []
    exported(run, "chat", notify=notes.append)
    assert notes == ["the chat layout leaves out rejected; export hf or csv for all fields"]
