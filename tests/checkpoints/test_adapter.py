"""Adapters: what fits its base, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from datacreate.checkpoints import Checkpoint, read_adapter, with_adapter
from datacreate.errors import CheckpointError

MODULE = "layers.0.self_attn.q_proj"


def base(folder: Path, shape: tuple[int, int] = (6, 4), name: str = f"model.{MODULE}.weight") -> Checkpoint:
    folder.mkdir()
    save_file({name: np.zeros(shape, np.float32)}, folder / "model.safetensors")
    return Checkpoint("base", folder, "ab" * 32, None)


def adapter(folder: Path, shape: tuple[int, int] = (6, 4), **config: Any) -> Path:
    folder.mkdir()
    told = {"peft_type": "LORA", "r": 2, "base_model_name_or_path": "their/base", **config}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    halves = {"lora_A": np.zeros((2, shape[1]), np.float32), "lora_B": np.zeros((shape[0], 2), np.float32)}
    weights = {f"base_model.model.model.{MODULE}.{half}.weight": half_ for half, half_ in halves.items()}
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_makes_another_model_of_its_base(tmp_path: Path) -> None:
    plain = base(tmp_path / "base")
    on_top = with_adapter(plain, read_adapter(adapter(tmp_path / "mine")))
    assert on_top.name == "base with mine"
    assert on_top.path == plain.path
    assert on_top.adapter
    assert on_top.adapter.rank == 2
    assert on_top.sha256 != plain.sha256


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3"}, "only plain LoRA adapters"),
        ({"use_dora": True}, "use_dora.*merge_and_unload"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save.*merge_and_unload"),
        ({"r": "many"}, "mine is damaged"),
    ],
)
def test_what_cannot_be_served_is_one_line(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as raised:
        read_adapter(adapter(tmp_path / "mine", **config))
    assert "\n" not in str(raised.value)


def test_a_folder_without_one_and_a_damaged_one_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: no such file"):
        read_adapter(tmp_path)
    folder = adapter(tmp_path / "mine")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="damaged"):
        read_adapter(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: no such file"):
        read_adapter(folder)
