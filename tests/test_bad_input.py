"""Whatever is wrong: one line (what, where, what to do), the right exit code, nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datacreate.errors import PromptTooLong, RunError
from tests.inprocess import run
from tests.making import COMMONSENSE, NLI, examples, make
from tests.process import Ended

FORMAT: dict[str, Any] = {
    "type": "object",
    "properties": {"question": {"type": "string"}, "label": {"type": "string"}},
    "required": ["question", "label"],
}

# What the example's file holds, more arguments, the exit code, words of the line.
BAD: dict[str, tuple[Any, list[str], int, str]] = {
    "missing": (None, [], 2, "no such file; --example takes a JSON file with one object"),
    "empty": ("  \n", [], 2, "the file is empty"),
    "not JSON": ('{"a": 1,}', [], 2, "not JSON at line 1"),
    "not text": (b"\xff\xfe\x00", [], 2, "UTF-8"),
    "list": ("[1, 2]", [], 2, "a list of 2"),
    "number": ("7", [], 2, "not a JSON object"),
    "no fields": ("{}", [], 2, "no fields"),
    "lone surrogate": ('{"text": "\\ud800"}', [], 2, "lone surrogate"),
    "answer not among options": ({**COMMONSENSE, "label": "roof"}, [], 2, ""),
    "answer not among options, format named": (
        {**COMMONSENSE, "label": "roof"},
        ["--format", "multiple_choice"],
        2,
        "answer_in_options",
    ),
    "unknown format": (COMMONSENSE, ["--format", "essay"], 2, "choose one of"),
    "format contradicts": (
        {"question": "Why?", "label": 3},
        ["--format", "FORMAT"],
        2,
        "label: 3 is not of type 'string'",
    ),
    "unholdable keyword": (
        {"question": "Why?", "label": "a"},
        ["--format", "UNHOLDABLE"],
        2,
        "'allOf'",
    ),
    "unknown model": (
        COMMONSENSE,
        ["--model", "qwen2.5-coder-0.6b-instruct"],
        1,
        "qwen2.5-coder-0.5b-instruct",
    ),
    "an encoder as the model": (
        COMMONSENSE,
        ["--model", "all-minilm-l6-v2"],
        1,
        "an instruct model is needed",
    ),
    "no such checkpoint": (COMMONSENSE, ["--model", "./nowhere"], 1, "no such folder"),
    "unknown strategy": (COMMONSENSE, ["--strategy", "clever"], 2, "naive, random, diverse, similar, tree"),
    "count 0": (COMMONSENSE, ["--count", "0"], 2, "--count 0: give a number greater than 0"),
    "count negative": (COMMONSENSE, ["--count", "-3"], 2, "--count -3: give a number greater than 0"),
    "count no number": (COMMONSENSE, ["--count", "many"], 2, "--count many: give a valid integer"),
    "temperature": (
        COMMONSENSE,
        ["--temperature", "-1"],
        2,
        "--temperature -1: give a number greater than or equal to 0",
    ),
    "labels without =": (NLI, ["--labels", "label"], 2, "write it as NAME=VALUE"),
    "labels of no field": (NLI, ["--labels", "lable=a,b"], 2, "lable"),
    "labels without the example's": (NLI, ["--labels", "label=yes,no"], 2, "not one of"),
    "range of a text": (NLI, ["--range", "label=1..5"], 2, "not a number"),
    "prompt too long": ({**COMMONSENSE, "question": "long " * 4000}, [], 1, "use a shorter example"),
    "threshold": (NLI, ["--threshold", "1.5"], 2, "--threshold 1.5: give a number less than or equal to 1"),
    "near": (NLI, ["--near", "1.5"], 2, "--near 1.5: give a number less than or equal to 1"),
    "semantic": (NLI, ["--semantic", "nan"], 2, "--semantic nan: give a number less"),
    "gate below chance": (
        NLI,
        ["--label-noise-check", "0.3"],
        2,
        "--label-noise-check 0.3: give a number greater than or equal to 0.5",
    ),
    "verify free text": (
        {"question": "Why?", "label": "Because."},
        ["--verify", "drop"],
        2,
        "--verify drop: the answers of the format inferred are free text",
    ),
    "a verifier, and nothing verified": (
        COMMONSENSE,
        ["--verify", "off", "--verifier", "qwen2.5-coder-1.5b-instruct"],
        2,
        "--verifier: --verify off verifies nothing",
    ),
    "shares of no number": (NLI, ["--label-ratio", "a=much"], 2, "--label-ratio a=much: give a valid number"),
    "shares of free text": (COMMONSENSE, ["--label-ratio", "a=1"], 2, "has no fixed labels"),
    "shares of no such label": (
        NLI,
        ["--labels", "label=entailment,neutral", "--label-ratio", "entailment=0.5,no=0.5"],
        2,
        "unknown label 'no'; labels are entailment, neutral",
    ),
    "shares of more than all": (
        NLI,
        ["--labels", "label=entailment,neutral", "--label-ratio", "entailment=0.9,neutral=0.2"],
        2,
        "add up to 1.1; give positive shares",
    ),
    "shares the paper's way": (
        NLI,
        ["--labels", "label=entailment,neutral", "--label-ratio", "neutral=1", "--method", "paper"],
        2,
        "--label-ratio: --method paper has no such step",
    ),
    "no chains": (COMMONSENSE, ["--concurrency", "0"], 2, "--concurrency 0: give a number greater than 0"),
    "nearness the paper's way": (
        COMMONSENSE,
        ["--near", "0.9", "--method", "paper"],
        2,
        "--near: --method paper has no such step",
    ),
    "a gate the paper's way": (
        NLI,
        ["--label-noise-check", "0.9", "--method", "paper"],
        2,
        "--label-noise-check: --method paper",
    ),
    "a threshold, and nothing verified": (
        COMMONSENSE,
        ["--verify", "off", "--threshold", "0.9"],
        2,
        "--threshold: --verify off verifies nothing",
    ),
    "servers to wait for without a word where": (
        COMMONSENSE,
        ["--servers", "2"],
        2,
        "--servers: that is for running servers; name them with --url, or remove it",
    ),
    "a wait for no servers": (COMMONSENSE, ["--wait", "0"], 2, "--wait: that is for running servers"),
    "a limit for no servers": (
        COMMONSENSE,
        ["--request-timeout", "9"],
        2,
        "--request-timeout: that is for running servers",
    ),
    "served, and to be compiled here": (
        COMMONSENSE,
        ["--url", "http://127.0.0.1:1", "--compile"],
        2,
        "--enforce-eager: running servers have loaded their models",
    ),
    "against no such benchmark": (COMMONSENSE, ["--decontaminate", "csqb"], 1, "did you mean csqa?"),
    "against one that is not imported": (
        COMMONSENSE,
        ["--decontaminate", "csqa"],
        1,
        "datacreate benchmarks import",
    ),
    "an encoder that is not there": (
        COMMONSENSE,
        ["--semantic", "0.9", "--embedding-model", "./nowhere"],
        1,
        "no such folder",
    ),
    "a switch that is not the template's": (
        COMMONSENSE,
        ["--chat-template-kwargs", "tokenize=false"],
        2,
        "datacreate sets tokenize itself",
    ),
    "an adapter for two models": (
        COMMONSENSE,
        ["--model", "qwen2.5-coder-1.5b-instruct", "--adapter", "./mine"],
        2,
        "an adapter belongs to one model",
    ),
    "an adapter that is not there": (
        COMMONSENSE,
        ["--adapter", "./nowhere"],
        1,
        "adapter_config.json: no such file",
    ),
    "unknown option": (COMMONSENSE, ["--chain", "3"], 2, "--chain"),
}


def one_line(ended: Ended, code: int) -> str:
    assert ended.out == ""
    assert ended.code == code, ended.err
    return ended.failure


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, model: str, what: str) -> None:
    content, more, code, words = BAD[what]
    path = tmp_path / "example.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    (tmp_path / "FORMAT").write_text(json.dumps(FORMAT))
    unholdable = {**FORMAT, "properties": {**FORMAT["properties"], "label": {"allOf": [{"type": "string"}]}}}
    (tmp_path / "UNHOLDABLE").write_text(json.dumps(unholdable))
    more = [str(tmp_path / word) if word.isupper() else word for word in more]
    run_dir = tmp_path / "deep" / "run"
    common = ["create", "--example", path, "--run-dir", run_dir, "--count", "3", "--model", model]
    line = one_line(run(*common, *more), code)
    assert words in line
    assert not run_dir.parent.exists()


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path, model: str) -> None:
    (tmp_path / "example.json").write_text(json.dumps(COMMONSENSE))
    ended = run(
        "create",
        "--example",
        tmp_path / "example.json",
        "--run-dir",
        tmp_path,
        "--count",
        3,
        "--model",
        model,
    )
    assert "has other files and no run; choose an empty or new --run-dir" in one_line(ended, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["example.json"]


@pytest.mark.parametrize("kept", [True, False])
def test_an_empty_folder_stays_and_a_new_one_goes(tmp_path: Path, model: str, kept: bool) -> None:
    if kept:
        (tmp_path / "run").mkdir()
    with pytest.raises(PromptTooLong):
        make(tmp_path / "run", model, example={**COMMONSENSE, "question": "long " * 4000})
    assert (tmp_path / "run").exists() is kept


def test_a_damaged_log_and_a_damaged_config_are_one_line(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model)
    (tmp_path / "example.json").write_text(json.dumps(COMMONSENSE))
    log, config = tmp_path / "run" / "log.jsonl", tmp_path / "run" / "config.json"
    create = [
        "create",
        "--example",
        tmp_path / "example.json",
        "--concurrency",
        5,
        "--count",
        25,
        "--model",
        model,
    ]
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b"word", b"ward", 1))
    assert "log.jsonl, line 2: changed, missing or moved" in one_line(
        run(*create, "--run-dir", tmp_path / "run"), 1
    )
    assert "line 2" in one_line(run("show", tmp_path / "run"), 1)
    assert "line 2" in one_line(run("export", tmp_path / "run", "--layout", "chat"), 1)
    log.write_bytes(whole)
    for damage in ("", "[]", '{"layout": 2}', config.read_text().replace('"seed": 42', '"sead": 42')):
        config.write_text(damage)
        assert "config.json: damaged" in one_line(run(*create, "--run-dir", tmp_path / "run"), 1)
    assert len(examples(tmp_path / "run")) == 25


def test_a_run_directory_of_another_layout_names_the_version_that_wrote_it(
    tmp_path: Path, model: str
) -> None:
    make(tmp_path / "run", model, count=4)
    (tmp_path / "run" / "config.json").write_text('{"datacreate": "0.0.9", "identity": {}}')
    with pytest.raises(RunError, match=r"run: written by datacreate 0\.0\.9 in another layout"):
        make(tmp_path / "run", model, count=4)


@pytest.mark.parametrize("verb", [["show"], ["export", "--layout", "hf"]])
def test_a_folder_that_is_no_run(tmp_path: Path, verb: list[str]) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        assert "not a run directory (it has no config.json)" in one_line(run(*verb, path), 1)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["reference", "chat", "hf", "parquet"])
def test_export_to_a_place_that_cannot_be_written(tmp_path: Path, model: str, layout: str) -> None:
    make(tmp_path / "run", model, count=4)
    (tmp_path / "file").write_text("x")
    ended = run("export", tmp_path / "run", "--layout", layout, "--out", tmp_path / "file" / "deep")
    assert str(tmp_path / "file") in one_line(ended, 75)
    assert (tmp_path / "file").read_text() == "x"


def test_export_hf_does_not_replace_other_files(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, count=4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    ended = run("export", tmp_path / "run", "--layout", "hf", "--out", tmp_path / "mine")
    assert "has other files and no data set" in one_line(ended, 1)
    assert [path.name for path in tmp_path.glob("mine*")] == ["mine"]
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_a_hopeless_model_stops_with_reasons_and_samples_and_no_control_characters(
    tmp_path: Path, model: str
) -> None:
    (tmp_path / "example.json").write_text(json.dumps(COMMONSENSE))
    command = ["create", "--example", tmp_path / "example.json", "--run-dir", tmp_path / "run", "--count", 25]
    ended = run(*command, "--model", model, script="garbage")
    line = one_line(ended, 1)
    assert "no example accepted in 69 requests in a row (0 of 25 so far); rejects: invalid_json 69" in line
    assert line.count("nothing of use") == 3
    assert "\x1b" not in line


def test_a_full_output_is_one_line() -> None:
    import subprocess
    import sys

    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "datacreate", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 1
    assert (
        ended.stderr
        == "datacreate: the output: No space left on device; fix that and run the same command again\n"
    )
