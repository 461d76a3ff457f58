"""Other weights in the place of a preset: a LoRA adapter made here, the same merged, a mixture of two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datacreate import CreateConfig, create
from datacreate.checkpoints import resolve

pytestmark = [pytest.mark.model, pytest.mark.slow]

MODEL = "qwen2.5-coder-0.5b-instruct"
COMMONSENSE = Path(__file__).parents[1] / "data" / "examples" / "commonsense.json"


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `adapter`, which turns the model a little, and `merged`, base and adapter in one."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("swapped")
    path = resolve(MODEL, "instruct").path
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, local_files_only=True)
    settings = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(base, settings)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight *= 0.05
    model.save_pretrained(folder / "adapter")
    model.merge_and_unload().save_pretrained(folder / "merged")
    AutoTokenizer.from_pretrained(path, local_files_only=True).save_pretrained(folder / "merged")
    return folder


def made(run_dir: Path, **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The summary and config.json of eight verified examples: all are scored, and kept."""
    config = CreateConfig(
        example=COMMONSENSE, count=8, run_dir=run_dir, verify="keep", against=(), max_num_seqs=4, **settings
    )
    summary = create(config)
    return summary, json.loads((run_dir / "config.json").read_text(encoding="utf-8"))


def test_an_adapter_made_with_peft_writes_and_scores(tmp_path: Path, swapped: Path) -> None:
    summary, config = made(tmp_path, model=MODEL, adapter=swapped / "adapter")
    assert summary["accepted"] == 8
    assert summary["model"] == f"{MODEL} with adapter"
    assert config["engines"]["engine"]["adapter"] == "adapter"
    assert config["identity"]["model_sha256"] != resolve(MODEL, "instruct").sha256


def test_two_checkpoints_take_turns(tmp_path: Path, swapped: Path) -> None:
    summary, config = made(tmp_path, model=(MODEL, str(swapped / "merged")))
    assert summary["accepted"] == 8
    assert summary["model"] == f"{MODEL} + merged"
    assert sum(summary["writers"].values()) == 8
    assert set(summary["writers"]) == {MODEL, "merged"}
    assert summary["requests"] > 1  # the second was asked, too
    assert set(config["engines"]) == {"engine", "engine-2"}
    assert (tmp_path / "engine-2.log").is_file()
