"""The command as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from datacreate.cli.group import COMMANDS
from tests.support.inprocess import run
from tests.support.making import COMMONSENSE, examples, make
from tests.support.process import ROOT


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "example.json"
    path.write_text(json.dumps(COMMONSENSE))
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_says_what_the_list_says_it_is(name: str) -> None:
    assert COMMANDS[name].endswith(".")
    ended = run(name, "--help")
    assert ended.code == 0
    assert ended.out.startswith(f"Usage: datacreate {name}")


def test_the_page_of_the_docs_is_up_to_date() -> None:
    # A process of its own, since click keeps the names of help options that other tests have used.
    found = subprocess.run([sys.executable, ROOT / "scripts" / "docs-cli", "--check"], check=False)
    assert found.returncode == 0, "run scripts/docs-cli, and commit docs/cli.md"


def test_the_list_of_commands_and_no_command_at_all() -> None:
    ended = run("--help")
    assert all(f"  {name} " in ended.out for name in COMMANDS)
    assert "Did you mean 'create'?" in run("crate").failure
    bare = run()
    assert bare.code == 2
    assert bare.err == ended.out


@pytest.mark.parametrize(
    "command",
    [
        "nope",
        "models pull nope",
        "benchmarks import nope",
        "schema check nope",
        "sweep nope",
        "serve --model nope",
        "export /tmp --layout nope",
        "evaluate --zero-shot any --url http://127.0.0.1:9 --benchmark nope --out out",
        "filter nope --verifier any --url http://127.0.0.1:9",
    ],
)
def test_an_unknown_name_is_wrong_usage_whatever_servers_do(command: str) -> None:
    ended = run(*command.split())
    assert (ended.code, "nope" in ended.failure) == (2, True), ended.err


@pytest.mark.parametrize(
    "words",
    [
        "export run --out",
        "report --out",
        "create --count 1 --run-dir",
        "create --count 1 --example",
        "create --config",
        "improve",
        "train --out out",
    ],
)
def test_an_empty_path_is_not_the_current_folder(words: str) -> None:
    ended = run(*words.split(), "")
    assert ended.code == 2
    assert "the path is empty; give a file or a folder" in ended.failure


def test_create_prints_its_summary_on_stdout_and_progress_on_stderr(tmp_path: Path, example: Path, model: str) -> None:
    command = ("create", "--example", example, "--run-dir", tmp_path / "run", "--count", 25, "--model", model)
    ended = run(*command)
    assert ended.code == 0
    assert "25 of 25" in ended.out
    assert ended.out.rstrip().endswith("train.jsonl")
    assert "format multiple_choice" in ended.err
    assert "25 of 25 examples" in ended.err
    assert "\x1b" not in ended.out + ended.err
    assert json.loads(run(*command, "--json").out)["accepted"] == 25


def test_preview_shows_examples_and_writes_nothing(
    tmp_path: Path, example: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    before = sorted(tmp_path.rglob("*"))
    ended = run("preview", "--example", example, "--model", model)
    assert ended.code == 0
    assert ended.out.count("question") == 5
    as_json = run("preview", "--example", example, "--model", model, "--count", 3, "--json")
    assert [list(json.loads(line)) for line in as_json.out.splitlines()] == [list(COMMONSENSE)] * 3
    assert sorted(tmp_path.rglob("*")) == before


def test_show_gives_figures_and_samples(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model)
    ended = run("show", tmp_path / "run", "--samples", 2)
    assert ended.code == 0
    assert "25 of 25" in ended.out
    assert ended.out.count("\noptions  ") == 2
    document = json.loads(run("show", tmp_path / "run", "--json", "--samples", 100).out)
    assert document["samples"] == examples(tmp_path / "run")
    assert document["summary"] == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert document["spec"]["seed"] == 42
    for words in ("this set", "chance", "longest option", "options alone", "self-BLEU", "Vendi score"):
        assert words in ended.out
    assert document["metrics"]["diversity"]["texts"] == 25


def test_show_counts_a_run_that_was_killed_from_its_log(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model)
    (tmp_path / "run" / "summary.json").unlink()
    (tmp_path / "run" / "train.jsonl").unlink()
    log = (tmp_path / "run" / "log.jsonl").read_bytes()
    (tmp_path / "run" / "log.jsonl").write_bytes(b"".join(log.splitlines(keepends=True)[:3]) + b'{"requ')
    assert "10 of 25" in run("show", tmp_path / "run").out


def test_markup_and_control_characters_of_a_model_are_shown_as_text(tmp_path: Path, example: Path, model: str) -> None:
    command = ("create", "--example", example, "--run-dir", tmp_path / "run", "--count", 5, "--model", model)
    assert run(*command, script="marked").code == 0
    shown = run("show", tmp_path / "run").out
    assert "[bold red]a[/]" in shown
    assert "[link=x]y[/link]" in shown
    assert "日本　語" in shown
    assert not {"\x1b", "\u202e"} & set(shown)


def test_a_file_where_a_folder_has_to_be_is_wrong_usage(tmp_path: Path, model: str, example: Path) -> None:
    make(tmp_path / "run", model, count=8)
    for words in (
        ["export", tmp_path / "run", "--out", example],
        ["report", tmp_path / "run", "--out", example],
        ["create", "--example", example, "--model", model, "--count", 3, "--run-dir", example],
    ):
        ended = run(*words)
        assert (ended.code, ended.out) == (2, "")
        assert f"{example}" in ended.failure
        assert ended.failure.endswith(("choose another path", "choose another --run-dir"))


@pytest.mark.parametrize(("command", "option"), [("export", "--split"), ("review", "--sample")])
def test_a_seed_that_draws_nothing_is_refused(command: str, option: str, tmp_path: Path) -> None:
    ended = run(command, tmp_path / "run", "--seed", 0)
    assert (ended.code, f"; give {option}, or remove --seed" in ended.failure) == (2, True), ended.err


def test_export_prints_the_path_of_its_file(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, count=8)
    ended = run("export", tmp_path / "run", "--layout", "chat")
    assert Path(ended.out.strip()) == tmp_path / "run" / "export" / "chat" / "train_chat.jsonl"
