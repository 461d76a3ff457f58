"""A GGUF becomes safetensors for vLLM, once: a tiny Qwen2 with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from datacreate.checkpoints.checkpoint import resolve
from datacreate.errors import CheckpointError
from tests.support.tiny_model import SPECIAL, tokens, write_gguf


@pytest.mark.model
def test_a_gguf_is_converted_once_and_loads_with_its_chat_template(data_folder: Path, tmp_path: Path) -> None:
    model = resolve(str(write_gguf(tmp_path / "tiny.gguf")), "instruct")
    folder = model.safetensors_folder()
    assert folder == data_folder / "dequantized" / model.sha256[:16]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    _, start, end = map(tokens().index, SPECIAL)
    assert model.safetensors_folder() == folder  # there already
    assert resolve(str(folder), "instruct").safetensors_folder() == folder  # nothing to do

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "the"}]
    ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=False)
    assert {start, tokens().index("the"), end} <= set(ids[0].tolist())
    assert AutoModelForCausalLM.from_pretrained(folder)(ids).logits.shape[-1] == len(tokens())


@pytest.mark.model
def test_a_gguf_that_transformers_cannot_read_is_refused_in_one_line(data_folder: Path, tmp_path: Path) -> None:
    model = resolve(str(write_gguf(tmp_path / "tiny.gguf", architecture="rwkv6")), "instruct")
    with pytest.raises(CheckpointError, match=r"cannot convert tiny\.gguf for vLLM: ") as caught:
        model.safetensors_folder()
    assert "\n" not in str(caught.value)
    assert not [*(data_folder / "dequantized").iterdir()]


def test_a_split_gguf_is_not_converted(data_folder: Path, tmp_path: Path) -> None:
    split = resolve(str(write_gguf(tmp_path / "split.gguf", split_max_tensors=20)), "instruct")
    with pytest.raises(CheckpointError, match=r"--engine llamacpp.*llama-gguf-split --merge"):
        split.safetensors_folder()
