"""Losing stdout or stderr never decides a run's fate, and text that cannot be encoded is escaped."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.making import COMMONSENSE
from tests.support.process import ROOT


def shell(folder: Path, *command: str, redirects: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    scripted = json.dumps({"script": "marked"})
    return subprocess.run(
        ["bash", "-c", f"{shlex.join([sys.executable, '-m', 'tests.support.driver', *command])} {redirects}"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SCRIPTED": scripted, **variables},
        capture_output=True,
        encoding=variables.get("PYTHONIOENCODING", "utf-8"),
        cwd=folder,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "example.json").write_text(json.dumps({**COMMONSENSE, "question": "日本 é?"}))
    return tmp_path


@pytest.mark.parametrize(
    ("redirects", "variables", "code"),
    [(">/dev/full 2>/dev/full", {}, 75), ("2>&- <&-", {"PYTHONIOENCODING": "ascii"}, 0)],
)
def test_a_run_finishes_whatever_happens_to_its_streams(
    folder: Path, model: str, redirects: str, variables: dict[str, str], code: int
) -> None:
    words = ["create", "--example", "example.json", "--count", "5", "--run-dir", "run", "--verify", "off"]
    ended = shell(folder, *words, "--model", model, redirects=redirects, **variables)
    assert ended.returncode == code, ended.stderr
    assert json.loads((folder / "run" / "summary.json").read_text())["finished"]
    if variables:
        assert "\\u65e5\\u672c" in ended.stdout  # 日本, in each of the examples


@pytest.mark.parametrize(("redirects", "code"), [(">/dev/full", 75), (">&-", 1)])
def test_a_command_fails_without_stdout(folder: Path, redirects: str, code: int) -> None:
    ended = shell(folder, "schema", "infer", "example.json", redirects=redirects)
    assert ended.returncode == code
    assert ended.stderr.splitlines()[-1].startswith("datacreate: standard output cannot be written: ")
    assert "Traceback" not in ended.stderr


def test_a_reader_that_ends_early_is_no_error(folder: Path) -> None:
    redirects = "2>&- | head -0; exit ${PIPESTATUS[0]}"
    assert shell(folder, "schema", "infer", "example.json", redirects=redirects).returncode == 0


def test_json_that_cannot_be_encoded_is_still_json(folder: Path) -> None:
    ended = shell(folder, "schema", "infer", "example.json", PYTHONIOENCODING="latin-1")
    assert json.loads(ended.stdout)["title"] == "multiple_choice"
