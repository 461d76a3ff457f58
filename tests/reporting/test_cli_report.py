"""`datacreate report` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.inprocess import typed
from tests.process import Ended
from tests.reporting.evaluations import answers, evaluated


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))


def report(*words: str) -> Ended:
    return typed("report", "--encoder", "none", *words)


def test_markdown_is_the_result_and_damage_is_said_beside_it(tmp_path: Path) -> None:
    evaluated(tmp_path / "runs" / "good", answers(6, 10))
    evaluated(tmp_path / "runs" / "bad\x1b[31m", answers(6, 10), seed=2)
    (tmp_path / "runs" / "bad\x1b[31m" / "evaluation.json").write_text("{")
    told = report()
    assert told.code == 0
    assert told.out == (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "evaluation.json is damaged" in told.err
    assert "evaluation.json is damaged" in told.out
    assert "\x1b" not in told.out + told.err
    assert "report/report.html" in told.err.splitlines()[-1]


def test_json_is_nothing_but_json(tmp_path: Path) -> None:
    evaluated(tmp_path / "mine" / "one", answers(6, 10))
    told = report("mine", "--out", "there/of/mine", "--json")
    assert told.code == 0
    document = json.loads(told.out)
    assert document["evaluations"] == 1
    assert document == json.loads((tmp_path / "there/of/mine/report.json").read_text(encoding="utf-8"))


def test_nothing_to_report_is_one_line(tmp_path: Path) -> None:
    told = report()
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith("datacreate: runs: no such folder; ")
    (tmp_path / "runs").mkdir()
    told = report()
    assert (told.code, told.out) == (1, "")
    assert told.err.splitlines()[-1].startswith("datacreate: runs: no evaluation and no creation run")
    assert not (tmp_path / "report").exists()
