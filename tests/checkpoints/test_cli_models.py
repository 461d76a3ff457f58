"""`datacreate models`: what it prints where."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from datacreate.cli.models import models
from datacreate.errors import CheckpointError
from tests.checkpoints.conftest import Hub


def test_list_shows_every_preset_and_whether_it_is_downloaded(data_folder: Path) -> None:
    text = CliRunner().invoke(models, ["list"])
    assert text.exit_code == 0
    assert "all-mpnet-base-v2" in text.stdout
    assert "untested, gated" in text.stdout
    rows = json.loads(CliRunner().invoke(models, ["list", "--json"]).stdout)
    assert {row["path"] for row in rows} == {None}


def test_show_has_settings_and_path(data_folder: Path) -> None:
    shown = json.loads(CliRunner().invoke(models, ["show", "qwen3-8b", "--json"]).stdout)
    assert shown["sources"][0] == {"hub": "Qwen/Qwen3-8B"}
    assert shown["chat_template"] == {"enable_thinking": False}
    assert shown["path"] is None
    assert "enable_thinking: false" in CliRunner().invoke(models, ["show", "qwen3-8b"]).stdout


def test_pull_prints_the_path_and_checks_all_names_first(hub: Hub, tmp_path: Path) -> None:
    pulled = CliRunner().invoke(models, ["pull", "org/tiny", "--json"])
    (told,) = json.loads(pulled.stdout)
    assert Path(told["path"]).is_relative_to(tmp_path / "hub")
    assert "downloading org/tiny from the Hub" in pulled.stderr
    asked = len(hub.asked)
    wrong = CliRunner().invoke(models, ["pull", "org/other", "qwen9"])
    assert isinstance(wrong.exception, CheckpointError)
    assert len(hub.asked) == asked
