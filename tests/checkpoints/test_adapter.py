"""Adapters: what makes another model of its base, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datacreate.checkpoints import Checkpoint, read_adapter, with_adapter
from datacreate.errors import CheckpointError
from tests.checkpoints.conftest import safetensors_bytes, write_files


def adapter(folder: Path, **config: Any) -> Path:
    text = json.dumps({"peft_type": "LORA", "r": 2, **config})
    files = {"adapter_config.json": text.encode(), "adapter_model.safetensors": safetensors_bytes()}
    return write_files(folder, files)


def test_an_adapter_makes_another_model_of_its_base(tmp_path: Path) -> None:
    base = Checkpoint("base", tmp_path, "ab" * 32, None)
    both = with_adapter(base, read_adapter(adapter(tmp_path / "mine")))
    assert (both.name, both.path) == ("base with mine", base.path)
    assert both.adapter
    assert both.adapter.rank == 2
    assert both.sha256 != base.sha256


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3"}, "only plain LoRA adapters"),
        ({"use_dora": True}, "no DoRA.*merge_and_unload"),
        ({"modules_to_save": ["lm_head"]}, "no modules_to_save"),
        ({"r": "many"}, "no readable adapter_config"),
    ],
)
def test_what_cannot_be_served_is_one_line(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as raised:
        read_adapter(adapter(tmp_path / "mine", **config))
    assert "\n" not in str(raised.value)


def test_a_folder_without_one_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: no such file"):
        read_adapter(tmp_path)
    (adapter(tmp_path / "mine") / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: no such file"):
        read_adapter(tmp_path / "mine")
