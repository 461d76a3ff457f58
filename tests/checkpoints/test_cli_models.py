"""`datacreate models`: what it prints where, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from datacreate.cli.models import models
from datacreate.errors import CheckpointError
from tests.checkpoints.conftest import checkpoint_files, write_files


def test_list_shows_every_preset_and_its_state(home: Path) -> None:
    text = CliRunner().invoke(models, ["list"])
    assert text.exit_code == 0
    assert "all-mpnet-base-v2" in text.stdout
    assert "absent, untested, gated" in text.stdout
    rows = json.loads(CliRunner().invoke(models, ["list", "--json"]).stdout)
    assert {row["state"] for row in rows} == {"absent"}


def test_show_has_sources_and_state(home: Path) -> None:
    shown = json.loads(CliRunner().invoke(models, ["show", "qwen3-8b", "--json"]).stdout)
    assert shown["sources"][0]["hub"] == "Qwen/Qwen3-8B"
    assert shown["chat_template"] == {"enable_thinking": False}
    assert shown["state"] == "absent"
    assert "enable_thinking: false" in CliRunner().invoke(models, ["show", "qwen3-8b"]).stdout


def test_a_misspelt_name_is_told_before_anything_is_fetched(home: Path) -> None:
    result = CliRunner().invoke(models, ["pull", "all-minilm-l6-v2", "qwen9"])
    assert isinstance(result.exception, CheckpointError)
    assert not (home / "downloads").exists()


def test_verify_exits_with_1_when_something_is_absent_and_0_when_nothing_is_asked(home: Path) -> None:
    result = CliRunner().invoke(models, ["verify", "all-minilm-l6-v2"])
    assert result.exit_code == 1
    assert "run `datacreate models pull all-minilm-l6-v2`" in result.stdout
    assert CliRunner().invoke(models, ["verify"]).exit_code == 0


def test_where_a_model_lies_now_is_told_to_machines_too(home: Path, tmp_path: Path) -> None:
    source = write_files(tmp_path / "source", checkpoint_files())
    imported = CliRunner().invoke(models, ["import", str(source), "--name", "mine", "--json"])
    place = {"name": "mine", "path": str(home / "checkpoints" / "mine")}
    assert json.loads(imported.stdout) == place
    pulled = CliRunner().invoke(models, ["pull", "mine", "--json"])
    assert json.loads(pulled.stdout) == [place]
