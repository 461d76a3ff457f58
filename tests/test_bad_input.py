"""Errors: one line that says what, where and what to do, the right exit code, and no partial files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from datacreate.errors import PromptTooLong, RunError
from tests.support.inprocess import run
from tests.support.making import COMMONSENSE, NLI, examples, make
from tests.support.process import Ended

FORMAT: dict[str, Any] = {
    "type": "object",
    "properties": {"question": {"type": "string"}, "label": {"type": "string"}},
    "required": ["question", "label"],
}

CONTENTS: dict[str, Any] = {
    "commonsense": COMMONSENSE,
    "nli": NLI,
    "why": {"question": "Why?", "label": "Because."},
    "absent": None,
    "broken": '{"a": 1,}',
    "list": "[1, 2]",
    "number": {"question": "Why?", "label": 3},
    "roof": {**COMMONSENSE, "label": "roof"},
    "long": {**COMMONSENSE, "question": "long " * 4000},
}

BAD = """
absent      |                                    | 2 | no such file; give JSONL, JSON, CSV, TSV or Parquet
broken      |                                    | 2 | not JSON at column 9
list        |                                    | 2 | line 1: not a JSON object: 1
roof        | --format multiple_choice           | 2 | answer_in_options
commonsense | --format essay                     | 2 | choose one of
number      | --format FORMAT                    | 2 | label: 3 (integer), expected text
why         | --format UNSUPPORTED               | 2 | 'allOf'
commonsense | --strategy clever                  | 2 | naive, random, diverse, similar, tree
commonsense | --count 0                          | 2 | --count 0: give a number greater than 0
commonsense | --seed 12345678901234567890        | 2 | give a number less than 9223372036854775808
commonsense | --num-examples 1001                | 2 | less than or equal to 1000
nli         | --labels label                     | 2 | write it as NAME=VALUE
nli         | --labels label=yes,no              | 2 | expected "yes", "no" (text)
long        |                                    | 1 | use a shorter --example
why         | --verify drop                      | 2 | --verify drop: free text cannot be scored
commonsense | --verify off --verifier qwen3-8b   | 2 | --verifier: --verify off verifies nothing
commonsense | --label-ratio a=1                  | 2 | has no fixed labels
nli         | LABELS --label-ratio entailment=0.5,no=0.5         | 2 | give a share for each of the labels entail
nli         | LABELS --label-ratio entailment=1                  | 2 | give a share for each of the labels
nli         | LABELS --label-ratio entailment=1,neutral=1        | 2 | the shares add up to 2
nli         | LABELS --label-ratio entailment=nan,neutral=1      | 2 | the shares add up to nan
commonsense | --recipe paper --max-parent-uses 3 | 2 | --max-parent-uses: --recipe paper has no such step
commonsense | --recipe paper --semantic 0.9 | 2 | --semantic: --recipe paper has no such step
nli         | LABELS --label-ratio neutral=1 --recipe paper      | 2 | --label-ratio: --recipe paper has no such step
commonsense | --url localhost                    | 2 | neither an address nor a folder
commonsense | --url ~nobody-here                 | 2 | neither an address nor a folder
commonsense | --url http://127.0.0.1:1 --compile | 2 | --enforce-eager: remote servers have loaded their models
commonsense | --decontaminate csqb               | 2 | did you mean csqa?
commonsense | --decontaminate csqa               | 1 | datacreate benchmarks import
commonsense | --semantic 0.9 --embedding-model ./nowhere         | 2 | no such folder
commonsense | --embedding-model ./nowhere        | 2 | --embedding-model: nowhere: no such folder
commonsense | --embedding-model nosuch           | 2 | --embedding-model: unknown model 'nosuch'
commonsense | --strategy coverage --embedding-model roberta-base | 1 | --embedding-model: roberta-base is not downloaded
commonsense | --chain 3                          | 2 | --chain
"""
"""Content of the example file, further arguments, exit code, part of the message."""

LOCAL = """
commonsense | --model qwen2.5-coder-0.6b-instruct | 2 | qwen2.5-coder-0.5b-instruct
commonsense | --model all-minilm-l6-v2            | 2 | give an instruct model
commonsense | --model=                            | 2 | the name of a model is empty
commonsense | --model ./nowhere                   | 2 | no such folder
commonsense | --model ~nobody-here/model          | 2 | ~nobody-here/model: no such folder
commonsense | --adapter ~nobody-here/adapter      | 2 | adapter_config.json: no such file
commonsense | --adapter ./nowhere                 | 2 | adapter_config.json: no such file
commonsense | --model qwen3-8b --adapter ./mine   | 2 | an adapter belongs to one model
commonsense | --servers 2                         | 2 | --servers only applies to remote servers; name them with --url
"""
"""Cases that --url would change."""


def cases(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def one_line(ended: Ended, code: int) -> str:
    assert ended.out == ""
    assert ended.code == code, ended.err
    return ended.failure


@pytest.mark.parametrize(("content", "arguments", "code", "message"), [*cases(BAD), *cases(LOCAL)])
def test_bad_input_is_one_line_and_creates_nothing(
    tmp_path: Path, model: str, content: str, arguments: str, code: str, message: str
) -> None:
    path, text = tmp_path / "example.json", CONTENTS[content]
    if text is not None:
        path.write_text(text if isinstance(text, str) else json.dumps(text))
    unsupported = {**FORMAT, "properties": {**FORMAT["properties"], "label": {"allOf": [{"type": "string"}]}}}
    for name, document in {"FORMAT": FORMAT, "UNSUPPORTED": unsupported}.items():
        (tmp_path / name).write_text(json.dumps(document))
        arguments = arguments.replace(f" {name}", f" {tmp_path / name}")
    more = arguments.replace("LABELS", "--labels label=entailment,neutral").split()
    run_dir = tmp_path / "deep" / "run"
    count = [] if "--count" in more else ["--count", "3"]
    command = ["create", "--example", path, "--run-dir", run_dir, *count]
    hows = [["--model", model], ["--model", model, "--dry-run"], ["--url", "http://127.0.0.1:9"]]
    if content == "long":  # only a server counts tokens
        hows = hows[:1]
    elif code == "1" or "--url" in more or message in LOCAL:
        hows = hows[:2]
    for how in hows:
        assert message in one_line(run(*command, *how, *more), int(code))
    assert not run_dir.parent.exists()


@pytest.mark.parametrize("how", [[], ["--dry-run"], ["--url", "http://127.0.0.1:9"]])
def test_a_run_directory_that_cannot_be_used_stays_as_it_is(tmp_path: Path, model: str, how: list[str]) -> None:
    path = tmp_path / "mine" / "example.json"
    path.parent.mkdir()
    path.write_text(json.dumps(COMMONSENSE))
    make(tmp_path / "run", model, count=5)
    create = ("create", "--example", path, *(how or ["--model", model]), "--concurrency", 5)
    for run_dir, options, says in [
        (path.parent, [], "has other files and no run; choose an empty or new --run-dir"),
        (path, [], "a part of this path is a file; choose another --run-dir"),
        (path / "run", [], "a part of this path is a file; choose another --run-dir"),
        (tmp_path / "run", ["--seed", 7], "another --seed: 42 stored, 7 requested"),
        (tmp_path / "run", ["--num-examples", 7], "another --num-examples: 5 stored, 7 requested"),
        (tmp_path / "run", ["--count", 4], "which cannot be reduced to 4"),
    ]:
        count = [] if "--count" in options else ["--count", 5]
        code = 1 if options else 2
        assert says in one_line(run(*create, "--run-dir", run_dir, *count, *options), code)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine", "run"]
    assert [file.name for file in path.parent.iterdir()] == ["example.json"]


@pytest.mark.parametrize("existed", [True, False])
def test_a_failed_start_removes_only_a_folder_that_it_created(tmp_path: Path, model: str, existed: bool) -> None:
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
    for damage in ("", "[]", '{"schema_version": 3}', config.read_text().replace('"seed": 42', '"sead": 42')):
        config.write_text(damage)
        assert "config.json: damaged" in one_line(run(*create), 1)
    for foreign in ('{"model_type": "qwen2"}', "{}"):  # a folder of a model also has a config.json
        config.write_text(foreign)
        assert "not a run directory (its config.json is of another program)" in one_line(run(*create), 2)
    assert len(examples(tmp_path / "run")) == 25


@pytest.mark.parametrize(
    ("version", "found"),
    [({"schema_version": 4}, "run format 4"), ({"schema_version": "x"}, "an unknown run format"), ({}, "an unknown")],
)
def test_a_run_directory_of_another_format_says_which(
    tmp_path: Path, model: str, version: dict[str, Any], found: str
) -> None:
    make(tmp_path / "run", model, count=4)
    (tmp_path / "run" / "config.json").write_text(json.dumps({"datacreate": "0.1.0", **version}))
    with pytest.raises(RunError, match=rf"run: {found}.*, this datacreate reads \d+; .*train\.jsonl; start again"):
        make(tmp_path / "run", model, count=4)


@pytest.mark.parametrize("verb", [["show"], ["export", "--layout", "hf"]])
def test_a_folder_without_a_run_is_an_error(tmp_path: Path, verb: list[str]) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        assert "not a run directory (it has no config.json)" in one_line(run(*verb, path), 2)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["csv", "chat", "hf", "parquet"])
def test_export_to_an_unwritable_path_is_one_line(tmp_path: Path, model: str, layout: str) -> None:
    make(tmp_path / "run", model, count=4)
    (tmp_path / "file").write_text("x")
    ended = run("export", tmp_path / "run", "--layout", layout, "--out", tmp_path / "file" / "deep")
    line = one_line(ended, 2)
    assert str(tmp_path / "file" / "deep") in line
    assert ".part" not in line
    assert (tmp_path / "file").read_text() == "x"


def test_export_hf_keeps_other_files(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, count=4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    ended = run("export", tmp_path / "run", "--layout", "hf", "--out", tmp_path / "mine")
    assert "has other files and no data set" in one_line(ended, 2)
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
