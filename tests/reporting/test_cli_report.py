"""`datacreate report` as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.reporting.evaluations import answers, evaluated

ROOT = Path(__file__).resolve().parents[2]


def typed(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "datacreate", "report", "--encoder", "none", *words]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "DATACREATE_HOME": str(folder / "home")}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment, encoding="utf-8"
    )


def test_markdown_is_the_result_and_damage_is_said_beside_it(tmp_path: Path) -> None:
    evaluated(tmp_path / "runs" / "good", answers(6, 10))
    evaluated(tmp_path / "runs" / "bad\x1b[31m", answers(6, 10), seed=2)
    (tmp_path / "runs" / "bad\x1b[31m" / "evaluation.json").write_text("{")
    told = typed(tmp_path)
    assert told.returncode == 0
    assert told.stdout == (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "evaluation.json is damaged" in told.stderr
    assert "evaluation.json is damaged" in told.stdout
    assert "\x1b" not in told.stdout + told.stderr
    assert "report/report.html" in told.stderr.splitlines()[-1]


def test_json_is_nothing_but_json(tmp_path: Path) -> None:
    evaluated(tmp_path / "mine" / "one", answers(6, 10))
    told = typed(tmp_path, "mine", "--out", "there/of/mine", "--json")
    assert told.returncode == 0
    document = json.loads(told.stdout)
    assert document["evaluations"] == 1
    assert document == json.loads((tmp_path / "there/of/mine/report.json").read_text(encoding="utf-8"))


def test_nothing_to_report_is_one_line(tmp_path: Path) -> None:
    told = typed(tmp_path)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith("datacreate: runs: no such folder; ")
    (tmp_path / "runs").mkdir()
    told = typed(tmp_path)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.splitlines()[-1].startswith("datacreate: runs: no evaluation and no creation run")
    assert not (tmp_path / "report").exists()
