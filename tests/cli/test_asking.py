"""Every verb that asks a model has the same options for it; here only a server has the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.finetuning.conftest import import_rows
from tests.finetuning.sets import claims, write_rows
from tests.support.inprocess import typed
from tests.support.making import COMMONSENSE
from tests.support.servers import MODEL, Server


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))
    with Server() as server:
        yield server.url


def test_a_served_model_answers_test_sets_and_is_not_asked_again(tmp_path: Path, url: str) -> None:
    import_rows(tmp_path / "rows", "creak", test=claims(6))
    command = ["evaluate", "--zero-shot", MODEL, "--url", url, "--benchmark", "creak", "--out"]
    ended = typed(*command, str(tmp_path / "out"), "--json")
    assert ended.code == 0, ended.err
    [found] = json.loads(ended.out)
    assert (found["condition"]["generator"], found["scores"]["unanswered"]) == (MODEL, 0)
    again = typed(*command, str(tmp_path / "out"), "--json")
    assert json.loads(again.out) == [found]


def test_a_served_model_previews(tmp_path: Path, url: str) -> None:
    path = tmp_path / "example.json"
    path.write_text(json.dumps(COMMONSENSE))
    ended = typed("preview", "--example", str(path), "--url", url, "--count", "2", "--json", "--verify", "off")
    assert ended.code == 0, ended.err
    assert [list(json.loads(line)) for line in ended.out.splitlines()] == [list(COMMONSENSE)] * 2


def test_a_preview_has_nothing_to_resume(tmp_path: Path) -> None:
    path = tmp_path / "example.json"
    path.write_text(json.dumps(COMMONSENSE))
    ended = typed("preview", "--example", str(path), "--url", "http://127.0.0.1:9", "--model", "any")
    assert (ended.code, ended.failure.endswith(", and run it again")) == (75, True)


def test_a_served_model_verifies_rows(tmp_path: Path, url: str) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", claims(6))
    ended = typed("filter", str(rows), "--verifier", MODEL, "--url", url, "--json")
    assert ended.code == 0, ended.err
    last = json.loads(ended.out)["filters"][-1]
    assert (last["name"], last["settings"]["verifier"]) == ("verifier", MODEL)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--url", ""], "--url (empty): neither an address"),
        (["--url", "http://a:1", "--engine", "vllm"], "--engine: remote servers have loaded their models"),
        (["--url", "http://a:1", "--dtype", "float32"], "--dtype: remote servers have loaded their models"),
        (["--engine", "llamacpp", "--replicas", "2"], "--replicas: llama.cpp has no such setting"),
        (["--servers", "2"], "--servers only applies to remote servers"),
        (["--request-timeout", "inf", "--url", "http://a:1"], "--request-timeout inf: "),
    ],
)
def test_what_has_no_effect_is_one_line(words: list[str], says: str, tmp_path: Path, url: str) -> None:
    import_rows(tmp_path / "rows", "creak", test=claims(6))
    rows = write_rows(tmp_path / "rows.jsonl", claims(6))
    asking = ["evaluate", "--zero-shot", MODEL, "--benchmark", "creak", "--out", str(tmp_path / "out")]
    for command in (asking, ["filter", str(rows), "--verifier", MODEL]):
        ended = typed(*command, *words)
        assert (ended.code, says in ended.failure) == (2, True), ended.err


def test_fine_tuned_models_ask_no_engine(tmp_path: Path) -> None:
    for words in (["--url", "http://a:1"], ["--engine", "auto"], ["--out", "x"]):
        ended = typed("evaluate", str(tmp_path), *words)
        assert (ended.code, words[0] in ended.failure) == (2, True)
