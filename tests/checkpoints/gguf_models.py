"""Tiny GGUF files: a Qwen2 with random weights that loads, and LoRA adapters. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

WIDTH, LAYERS, HEADS, INNER, CONTEXT = 32, 2, 2, 64, 128
LETTERS = [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
TOKENS = [*LETTERS, "ab", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"


def write_model(path: Path, seed: int = 0, architecture: str = "qwen2", **how: Any) -> Path:
    """Write it to `path`; with `split_max_tensors=N` in `how` as several parts, and give the first."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture, **how)
    writer.add_type("model")
    writer.add_context_length(CONTEXT)
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
    _finish(writer)
    return path if path.is_file() else min(path.parent.glob(f"{path.stem}-00001-of-*.gguf"))


def write_lora(path: Path, architecture: str = "qwen2", rank: int = 4) -> Path:
    """An adapter for one matrix of the model above."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.ones((rank, WIDTH), np.float32))
    writer.add_tensor("blk.0.attn_q.weight.lora_b", np.ones((WIDTH, rank), np.float32))
    _finish(writer)
    return path


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
