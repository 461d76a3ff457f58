"""GGUF files: headers, files given by path, and files that are refused in one line."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from datacreate.checkpoints.checkpoint import Checkpoint, read_adapter, resolve, with_adapter
from datacreate.checkpoints.gguf import read_gguf
from datacreate.errors import CheckpointError
from tests.support.tiny_model import CONTEXT, LAYERS, WIDTH, write_gguf


def write_lora(path: Path) -> Path:
    """An adapter for one matrix of the tiny model."""
    writer = gguf.GGUFWriter(path, "qwen2")
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


def test_a_gguf_file_is_resolved_by_its_path_or_folder(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = resolve(str(model), "instruct")
    assert found == Checkpoint("tiny", tmp_path, found.sha256, None, gguf=read_gguf(model))
    assert found.gguf
    assert (found.gguf.general_type, found.gguf.context_length) == ("model", CONTEXT)
    assert found.gguf.size_bytes == model.stat().st_size
    assert found.gguf.kv_bytes_per_token == 2 * 2 * LAYERS * WIDTH
    assert resolve(str(tmp_path), "instruct") == found  # the only one in its folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/tiny.gguf", "instruct") == found
    monkeypatch.chdir(tmp_path)
    assert resolve("tiny.gguf", "instruct") == found


def test_the_hash_of_a_gguf_depends_on_its_content_and_not_on_its_name(tmp_path: Path, model: Path) -> None:
    one = resolve(str(model), "instruct").sha256
    assert resolve(str(model.rename(tmp_path / "other.gguf")), "instruct").sha256 == one
    assert resolve(str(write_gguf(tmp_path / "tiny.gguf", seed=1)), "instruct").sha256 != one


def test_a_split_gguf_is_resolved_by_a_part_or_its_folder(tmp_path: Path) -> None:
    (tmp_path / "split").mkdir()
    first = write_gguf(tmp_path / "split" / "big.gguf", split_max_tensors=20)
    parts = sorted(first.parent.iterdir())
    assert len(parts) == 2
    found = resolve(str(first), "instruct")
    assert found.gguf
    assert (found.name, found.gguf.path) == ("big", first)
    assert found.gguf.size_bytes == sum(part.stat().st_size for part in parts)
    for place in (first.parent, parts[1]):
        assert resolve(str(place), "instruct").gguf == found.gguf


def test_a_gguf_without_a_complete_header_is_refused(model: Path) -> None:
    whole = model.read_bytes()
    for length in (0, 5, 997):
        model.write_bytes(whole[:length])
        assert refused(model).startswith(f"{model}: ")
    model.write_bytes(b"<html>" + whole)
    assert "tiny.gguf: not a GGUF file" in refused(model)


def test_a_gguf_that_is_no_instruct_model_is_refused(tmp_path: Path, model: Path) -> None:
    assert "an encoder must be a folder of safetensors" in refused(model, "encoder")
    lora = write_lora(tmp_path / "lora.gguf")
    assert "of type adapter, not a language model; give its base with --model, and a LoRA adapter with" in refused(lora)
    assert "several GGUF models (lora.gguf, tiny.gguf); give the path of one" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "none.gguf")
    assert "no such file" in refused("none.gguf")


def test_an_adapter_and_its_base_must_have_the_same_format(tmp_path: Path, model: Path) -> None:
    base = resolve(str(model), "instruct")
    lora = read_adapter(write_lora(tmp_path / "lora.gguf"))
    both = with_adapter(base, lora)
    assert (both.name, both.gguf) == ("tiny with lora", base.gguf)
    assert both.sha256 != base.sha256
    with pytest.raises(CheckpointError, match=r"lora\.gguf does not fit base: llama.cpp needs GGUF for both"):
        with_adapter(Checkpoint("base", tmp_path, "ab" * 32, None), lora)
    with pytest.raises(CheckpointError, match="but not a LoRA adapter; give a model with --model"):
        read_adapter(model)
