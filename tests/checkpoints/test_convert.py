"""A GGUF becomes safetensors for vLLM, once: a tiny Qwen2 with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datacreate.checkpoints import dequantised, read_adapter, resolve, with_adapter
from datacreate.errors import CheckpointError
from tests.checkpoints.gguf_models import CONTEXT, TOKENS, write_lora, write_model


@pytest.mark.model
def test_it_loads_and_speaks_its_template(data_folder: Path, tmp_path: Path) -> None:
    model = resolve(str(write_model(tmp_path / "tiny.gguf")), "instruct")
    folder = dequantised(model)
    assert folder == data_folder / "dequantised" / model.sha256[:16]
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, f"{folder.name}.lock"}
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is True  # it has no output.weight
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [TOKENS.index("<|im_end|>"), TOKENS.index("<|endoftext|>")]
    safetensors = resolve(str(folder), "instruct")
    assert safetensors.path == folder

    assert dequantised(model) == folder  # there already
    assert dequantised(safetensors) == folder  # nothing to do

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.model_max_length == CONTEXT
    chat = [{"role": "user", "content": "ab"}]
    ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=False)
    assert ids.tolist() == [[TOKENS.index("<|im_start|>"), TOKENS.index("ab"), TOKENS.index("<|im_end|>")]]
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model(ids).logits.shape == (1, 3, len(TOKENS))


@pytest.mark.model
def test_one_that_transformers_cannot_read_is_one_line_and_leaves_nothing(
    data_folder: Path, tmp_path: Path
) -> None:
    model = resolve(str(write_model(tmp_path / "tiny.gguf", architecture="rwkv6")), "instruct")
    with pytest.raises(CheckpointError, match=r"cannot dequantise tiny\.gguf: ") as caught:
        dequantised(model)
    assert "\n" not in str(caught.value)
    assert not [path for path in (data_folder / "dequantised").iterdir() if path.is_dir()]


def test_what_vllm_cannot_be_given_is_refused_with_what_to_do(data_folder: Path, tmp_path: Path) -> None:
    split = resolve(str(write_model(tmp_path / "split.gguf", split_max_tensors=20)), "instruct")
    with pytest.raises(CheckpointError, match=r"--engine llamacpp.*llama-gguf-split --merge"):
        dequantised(split)
    base = resolve(str(write_model(tmp_path / "tiny.gguf")), "instruct")
    with pytest.raises(CheckpointError, match="vLLM reads no GGUF adapters"):
        dequantised(with_adapter(base, read_adapter(write_lora(tmp_path / "lora.gguf"))))
