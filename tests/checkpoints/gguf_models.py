"""Tiny GGUF files: a Qwen2 with random weights that loads, and LoRA adapters. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.tiny_model import LAYERS, SPECIAL, close_gguf, save_gguf

WIDTH, INNER, CONTEXT = 32, 64, 128
TOKENS = [*"abcdefghijklmnopqrstuvwxyz", "ab", *SPECIAL]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"


def write_model(path: Path, seed: int = 0, architecture: str = "qwen2", **options: Any) -> Path:
    """Write it to `path`; with `split_max_tensors=N` as several parts, and return the first."""
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(TOKENS), WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    for layer in range(LAYERS):
        of_layer: dict[str, tuple[int, ...]] = {"attn_norm.weight": (WIDTH,), "ffn_norm.weight": (WIDTH,)}
        of_layer |= {f"attn_{part}.weight": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
        of_layer |= {f"attn_{part}.bias": (WIDTH,) for part in "qkv"}
        of_layer |= {f"ffn_{part}.weight": (INNER, WIDTH) for part in ("gate", "up")}
        of_layer["ffn_down.weight"] = (WIDTH, INNER)
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in of_layer.items()}
    tensors = {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    save_gguf(path, tensors, TOKENS, ["a b"], TEMPLATE, (WIDTH, INNER, CONTEXT), architecture, **options)
    return path if path.is_file() else min(path.parent.glob(f"{path.stem}-00001-of-*.gguf"))


def write_lora(path: Path, architecture: str = "qwen2", rank: int = 4) -> Path:
    """An adapter for one matrix of the model above."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    shapes = {"blk.0.attn_q.weight.lora_a": (rank, WIDTH), "blk.0.attn_q.weight.lora_b": (WIDTH, rank)}
    return close_gguf(writer, path, {name: np.ones(shape, np.float32) for name, shape in shapes.items()})
