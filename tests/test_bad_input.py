"""Errors: one line that says what, where and what to do, the right exit code, and no partial files."""

from __future__ import annotations

import json
import re
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

BAD: dict[str, tuple[Any, str, int, str]] = {
    "missing file": (None, "", 2, "No such file or directory; give a JSON file with one object"),
    "invalid JSON": ('{"a": 1,}', "", 2, "not JSON at column 9"),
    "list": ("[1, 2]", "", 2, "not a JSON object: [1,2]"),
    "answer not in options": (
        {**COMMONSENSE, "label": "roof"},
        "--format multiple_choice",
        2,
        "answer_in_options",
    ),
    "unknown format": (COMMONSENSE, "--format essay", 2, "choose one of"),
    "other format": (
        {"question": "Why?", "label": 3},
        "--format FORMAT",
        2,
        "label: 3 (integer), expected text",
    ),
    "unsupported keyword": ({"question": "Why?", "label": "a"}, "--format UNSUPPORTED", 2, "'allOf'"),
    "unknown model": (COMMONSENSE, "--model qwen2.5-coder-0.6b-instruct", 2, "qwen2.5-coder-0.5b-instruct"),
    "encoder as the model": (COMMONSENSE, "--model all-minilm-l6-v2", 1, "an instruct model is needed"),
    "missing checkpoint": (COMMONSENSE, "--model ./nowhere", 1, "no such folder"),
    "unknown strategy": (COMMONSENSE, "--strategy clever", 2, "naive, random, diverse, similar, tree"),
    "count of 0": (COMMONSENSE, "--count 0", 2, "--count 0: give a number greater than 0"),
    "too many per request": (COMMONSENSE, "--num-examples 1001", 2, "less than or equal to 1000"),
    "labels without =": (NLI, "--labels label", 2, "write it as NAME=VALUE"),
    "labels without the example's": (NLI, "--labels label=yes,no", 2, "not one of"),
    "long prompt": ({**COMMONSENSE, "question": "long " * 4000}, "", 1, "use a shorter example"),
    "verify free text": (
        {"question": "Why?", "label": "Because."},
        "--verify drop",
        2,
        "--verify drop: free text cannot be scored",
    ),
    "verifier without verification": (
        COMMONSENSE,
        "--verify off --verifier qwen2.5-coder-1.5b-instruct",
        2,
        "--verifier: --verify off verifies nothing",
    ),
    "ratio of free text": (COMMONSENSE, "--label-ratio a=1", 2, "has no fixed labels"),
    "ratio of an unknown label": (
        NLI,
        "--labels label=entailment,neutral --label-ratio entailment=0.5,no=0.5",
        2,
        "unknown label 'no'; labels are entailment, neutral",
    ),
    "ratio without a label": (
        NLI,
        "--labels label=entailment,neutral --label-ratio entailment=1",
        2,
        "no share for the label 'neutral'",
    ),
    "ratio that is not 1": (
        NLI,
        "--labels label=entailment,neutral --label-ratio entailment=1,neutral=1",
        2,
        "the shares add up to 2",
    ),
    "address without a scheme": (COMMONSENSE, "--url localhost", 2, "neither an address nor a folder"),
    "ratio with the paper": (
        NLI,
        "--labels label=entailment,neutral --label-ratio neutral=1 --method paper",
        2,
        "--label-ratio: --method paper has no such step",
    ),
    "servers without --url": (
        COMMONSENSE,
        "--servers 2",
        2,
        "--servers: that is for running servers; name them with --url, or remove it",
    ),
    "compile for running servers": (
        COMMONSENSE,
        "--url http://127.0.0.1:1 --compile",
        2,
        "--enforce-eager: running servers have loaded their models",
    ),
    "unknown benchmark": (COMMONSENSE, "--decontaminate csqb", 2, "did you mean csqa?"),
    "benchmark not imported": (COMMONSENSE, "--decontaminate csqa", 1, "datacreate benchmarks import"),
    "missing encoder": (COMMONSENSE, "--semantic 0.9 --embedding-model ./nowhere", 1, "no such folder"),
    "reserved template argument": (
        COMMONSENSE,
        "--chat-template-kwargs tokenize=false",
        2,
        "datacreate sets tokenize itself",
    ),
    "adapter for two models": (
        COMMONSENSE,
        "--model qwen2.5-coder-1.5b-instruct --adapter ./mine",
        2,
        "an adapter belongs to one model",
    ),
    "missing adapter": (COMMONSENSE, "--adapter ./nowhere", 1, "adapter_config.json: no such file"),
    "unknown option": (COMMONSENSE, "--chain 3", 2, "--chain"),
}
"""Name -> content of the example file, further arguments, exit code, part of the message."""

LOCAL = {"servers without --url", "adapter for two models", "unknown model"}
"""Cases that --url would change."""


def one_line(ended: Ended, code: int) -> str:
    assert ended.out == ""
    assert ended.code == code, ended.err
    return ended.failure


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_creates_nothing(tmp_path: Path, model: str, name: str) -> None:
    content, arguments, code, message = BAD[name]
    path = tmp_path / "example.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    (tmp_path / "FORMAT").write_text(json.dumps(FORMAT))
    unsupported = {**FORMAT, "properties": {**FORMAT["properties"], "label": {"allOf": [{"type": "string"}]}}}
    (tmp_path / "UNSUPPORTED").write_text(json.dumps(unsupported))
    more = [str(tmp_path / word) if word.isupper() else word for word in arguments.split()]
    run_dir = tmp_path / "deep" / "run"
    count = [] if "--count" in more else ["--count", "3"]
    command = ["create", "--example", path, "--run-dir", run_dir, *count, "--model", model]
    assert message in one_line(run(*command, *more), code)
    if name != "long prompt":  # only a server counts tokens
        assert message in one_line(run(*command, *more, "--dry-run"), code)
    if code == 2 and "--url" not in more and name not in LOCAL:
        command = [*command[:-2], "--url", "http://127.0.0.1:9"]
        assert message in one_line(run(*command, *more), code)
    assert not run_dir.parent.exists()


@pytest.mark.parametrize("how", [[], ["--dry-run"], ["--url", "http://127.0.0.1:9"]])
def test_a_run_directory_that_cannot_be_used_stays_as_it_is(
    tmp_path: Path, model: str, how: list[str]
) -> None:
    path = tmp_path / "mine" / "example.json"
    path.parent.mkdir()
    path.write_text(json.dumps(COMMONSENSE))
    make(tmp_path / "run", model, count=5)
    create = ("create", "--example", path, *(how or ["--model", model]), "--concurrency", 5)
    for run_dir, options, says in [
        (path.parent, [], "has other files and no run; choose an empty or new --run-dir"),
        (path, [], "a part of this path is a file; choose another --run-dir"),
        (path / "run", [], "a part of this path is a file; choose another --run-dir"),
        (tmp_path / "run", ["--seed", 7], "another seed: 42 stored, 7 requested"),
        (tmp_path / "run", ["--num-examples", 7], "another num_examples: 5 stored, 7 requested"),
        (tmp_path / "run", ["--count", 4], "which cannot be reduced to 4"),
    ]:
        count = [] if "--count" in options else ["--count", 5]
        assert says in one_line(run(*create, "--run-dir", run_dir, *count, *options), 1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine", "run"]
    assert [file.name for file in path.parent.iterdir()] == ["example.json"]


@pytest.mark.parametrize("existed", [True, False])
def test_a_failed_start_removes_only_a_folder_that_it_created(
    tmp_path: Path, model: str, existed: bool
) -> None:
    if existed:
        (tmp_path / "run").mkdir()
    with pytest.raises(PromptTooLong):
        make(tmp_path / "run", model, example={**COMMONSENSE, "question": "long " * 4000})
    assert (tmp_path / "run").exists() is existed


def test_a_damaged_log_or_config_is_one_line(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model)
    (tmp_path / "example.json").write_text(json.dumps(COMMONSENSE))
    log, config = tmp_path / "run" / "log.jsonl", tmp_path / "run" / "config.json"
    path = tmp_path / "example.json"
    create = ["create", "--example", path, "--concurrency", 5, "--count", 25, "--model", model]
    create += ["--run-dir", tmp_path / "run"]
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b"word", b"ward", 1))
    assert "log.jsonl, line 2: changed, missing or moved" in one_line(run(*create), 1)
    assert "line 2" in one_line(run("show", tmp_path / "run"), 1)
    assert "line 2" in one_line(run("export", tmp_path / "run", "--layout", "chat"), 1)
    log.write_bytes(whole)
    for damage in ("", "[]", '{"layout": 3}', config.read_text().replace('"seed": 42', '"sead": 42')):
        config.write_text(damage)
        assert "config.json: damaged" in one_line(run(*create), 1)
    for foreign in ('{"model_type": "qwen2"}', "{}"):  # a folder of a model has a config.json, too
        config.write_text(foreign)
        assert "not a run directory (its config.json is of another program)" in one_line(run(*create), 1)
    assert len(examples(tmp_path / "run")) == 25


def test_a_run_directory_of_an_old_layout_names_the_version(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, count=4)
    (tmp_path / "run" / "config.json").write_text('{"datacreate": "0.0.9", "identity": {}}')
    with pytest.raises(RunError, match=r"run: written by datacreate 0\.0\.9 in another format"):
        make(tmp_path / "run", model, count=4)


@pytest.mark.parametrize("verb", [["show"], ["export", "--layout", "hf"]])
def test_a_folder_without_a_run_is_an_error(tmp_path: Path, verb: list[str]) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        assert "not a run directory (it has no config.json)" in one_line(run(*verb, path), 1)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["reference", "chat", "hf", "parquet"])
def test_export_to_an_unwritable_path_is_one_line(tmp_path: Path, model: str, layout: str) -> None:
    make(tmp_path / "run", model, count=4)
    (tmp_path / "file").write_text("x")
    ended = run("export", tmp_path / "run", "--layout", layout, "--out", tmp_path / "file" / "deep")
    line = one_line(ended, 1)
    assert str(tmp_path / "file" / "deep") in line
    assert ".part" not in line
    assert (tmp_path / "file").read_text() == "x"


def test_export_hf_keeps_other_files(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, count=4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    ended = run("export", tmp_path / "run", "--layout", "hf", "--out", tmp_path / "mine")
    assert "has other files and no data set" in one_line(ended, 1)
    assert [path.name for path in tmp_path.glob("mine*")] == ["mine"]
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_rejected_samples_are_printed_without_control_characters(tmp_path: Path, model: str) -> None:
    (tmp_path / "example.json").write_text(json.dumps(COMMONSENSE))
    command = ["create", "--example", tmp_path / "example.json", "--run-dir", tmp_path / "run", "--count", 25]
    line = one_line(run(*command, "--model", model, script="garbage"), 1)
    words = r"no example accepted in (\d+) requests in a row \(0 of 25 so far\); rejects: invalid_json \1;"
    assert re.search(words, line)
    assert line.count("nothing of use") == 3
    assert "\x1b" not in line
