"""GGUF files: headers, files given by path, and files that are refused in one line."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from datacreate.checkpoints import Checkpoint, read_adapter, read_header, resolve, with_adapter
from datacreate.errors import CheckpointError
from tests.tiny_model import CONTEXT, LAYERS, TEMPLATE, WIDTH, write_gguf


def write_lora(path: Path, architecture: str = "qwen2") -> Path:
    """An adapter for one matrix of the tiny model."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.ones((4, WIDTH), np.float32))
    writer.add_tensor("blk.0.attn_q.weight.lora_b", np.ones((WIDTH, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf")


def refused(path: Path | str, kind: str = "instruct") -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve(str(path), kind)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_header_says_what_an_engine_needs(model: Path) -> None:
    header = read_header(model)
    assert (header.kind, header.architecture, header.chat_template) == ("model", "qwen2", TEMPLATE)
    assert header.context_length == CONTEXT
    assert header.size_bytes == model.stat().st_size
    assert header.kv_bytes_per_token == 2 * 2 * LAYERS * WIDTH


def test_a_file_is_a_model_by_its_path(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve(str(model), "instruct")
    assert found == Checkpoint("tiny", tmp_path, found.sha256, None, gguf=model)
    assert found.gguf_header == read_header(model)
    assert resolve(str(tmp_path), "instruct") == found  # the only one in its folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/tiny.gguf", "instruct") == found
    monkeypatch.chdir(tmp_path)
    assert resolve("tiny.gguf", "instruct") == found


def test_its_identity_follows_its_content_and_not_its_name(tmp_path: Path, model: Path) -> None:
    one = resolve(str(model), "instruct").sha256
    assert resolve(str(model.rename(tmp_path / "other.gguf")), "instruct").sha256 == one
    assert resolve(str(write_gguf(tmp_path / "tiny.gguf", seed=1)), "instruct").sha256 != one


def test_a_split_one_is_given_by_its_first_part(tmp_path: Path) -> None:
    (tmp_path / "split").mkdir()
    first = write_gguf(tmp_path / "split" / "big.gguf", split_max_tensors=20)
    parts = sorted(first.parent.iterdir())
    assert len(parts) == 2
    assert read_header(first).size_bytes == sum(part.stat().st_size for part in parts)
    found = resolve(str(first), "instruct")
    assert (found.name, found.gguf) == ("big", first)
    assert resolve(str(first.parent), "instruct") == found
    assert f"a later part of a split GGUF; give the first one, {first.name}" in refused(parts[1])
    parts[1].unlink()
    assert "big-00002-of-00002.gguf is missing (1 of 2 parts)" in refused(first)


def test_a_file_that_is_not_whole(tmp_path: Path, model: Path) -> None:
    whole = model.read_bytes()
    for length in [*range(0, len(whole) // 2, 997), len(whole) - 40_000]:
        model.write_bytes(whole[:length])
        assert refused(model).startswith(f"{model}: ")
    assert "truncated to" in refused(model)
    model.write_bytes(b"GGUF\x01\0\0\0" + whole[8:])
    assert "has GGUF version 1; versions 2 and 3 can be read" in refused(model)
    model.write_bytes(b"<html>" + whole)
    assert "tiny.gguf: not a GGUF file" in refused(model)


def test_what_is_no_model_that_writes(tmp_path: Path, model: Path) -> None:
    assert "an encoder must be a folder of safetensors" in refused(model, "encoder")
    assert "no language model (model, bert)" in refused(
        write_gguf(tmp_path / "bert.gguf", architecture="bert")
    )
    lora = write_lora(tmp_path / "lora.gguf")
    assert "a LoRA adapter, not a model; give its base with --model and this with --adapter" in refused(lora)
    several = "several GGUF models (bert.gguf, lora.gguf, tiny.gguf); give the path of one of them"
    assert several in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "none.gguf")
    assert "no such file" in refused("none.gguf")


def test_an_adapter_and_its_base_are_of_one_format(tmp_path: Path, model: Path) -> None:
    base = resolve(str(model), "instruct")
    lora = read_adapter(write_lora(tmp_path / "lora.gguf"))
    both = with_adapter(base, lora)
    assert (both.name, both.gguf) == ("tiny with lora", model)
    assert both.sha256 != base.sha256
    other = read_adapter(write_lora(tmp_path / "other.gguf", architecture="llama"))
    with pytest.raises(CheckpointError, match="other does not fit tiny: it is for llama, the base is qwen2"):
        with_adapter(base, other)
    with pytest.raises(CheckpointError, match=r"lora\.gguf does not fit base: llama.cpp needs GGUF for both"):
        with_adapter(Checkpoint("base", tmp_path, "ab" * 32, None), lora)
    with pytest.raises(CheckpointError, match="but no LoRA adapter; give a model with --model"):
        read_adapter(model)
