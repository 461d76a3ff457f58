"""`datacreate report` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.reporting.evaluations import answers, evaluated
from tests.support.inprocess import typed
from tests.support.process import Ended


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))


def report(*words: str) -> Ended:
    return typed("report", *words)


def test_markdown_on_stdout_and_damage_on_stderr(tmp_path: Path) -> None:
    evaluated(tmp_path / "runs" / "good", answers(6, 10))
    evaluated(tmp_path / "runs" / "bad\x1b[31m", answers(6, 10), seed=2)
    (tmp_path / "runs" / "bad\x1b[31m" / "evaluation.json").write_text("{")
    ended = report()
    assert ended.code == 0
    assert ended.out == (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "evaluation.json is damaged" in ended.err
    assert "evaluation.json is damaged" in ended.out
    assert "\x1b" not in ended.out + ended.err
    assert "report/report.html" in ended.err.splitlines()[-1]


def test_stdout_is_pure_json(tmp_path: Path) -> None:
    evaluated(tmp_path / "mine" / "one", answers(6, 10), condition="می\u200cروم")
    ended = report("mine", "--out", "there/of/mine", "--json")
    assert ended.code == 0
    document = json.loads(ended.out)
    assert document["evaluations"] == 1
    assert document == json.loads((tmp_path / "there/of/mine/report.json").read_text(encoding="utf-8"))
