"""Whether a model fits this machine, worked out before anything is loaded."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from datacreate.errors import EngineError

GIB = 1024**3

OVERHEAD_GIB = {"cpu": 2.5, "gpu": 1.0}
"""Python, torch, vLLM and activations, beside weights and cache.

Measured on the CPU: 0.5B (1.2 GiB of weights) with 1 GiB of cache holds 4.3 GiB.
"""

USUAL_SHARE = 0.9
"""The share of a GPU's memory that vLLM takes unless told otherwise."""


def weights_gib(checkpoint: Path) -> float:
    """The size of the checkpoint's weights on disk, which is their size in memory, in GiB."""
    return sum(path.stat().st_size for path in checkpoint.glob("*.safetensors")) / GIB


def cache_gib(checkpoint: Path, tokens: int) -> float:
    """Keys and values of one request of so many tokens in 16 bits, in GiB; 0 if config.json does not say.

    2 * layers * key-value heads * head size * 2 bytes for each token. A model whose layers look back
    over a window alone needs less.
    """
    try:
        config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config", config)
        heads = int(config["num_attention_heads"])
        size = int(config.get("head_dim") or config["hidden_size"] // heads)
        kept = int(config.get("num_key_value_heads") or heads)
        return 4 * int(config["num_hidden_layers"]) * kept * size * tokens / GIB
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return 0.0


def free_gib(device: str, gpus: int = 1, share: float = 1.0, seen: Sequence[str] = ()) -> float | None:
    """What a model may take where it would live, in GiB; None if that cannot be asked.

    Of a machine with GPUs: of the `gpus` emptiest of `seen`, which are all that this process sees
    unless told, what is free, and no more than `share` of each.
    """
    if device == "cpu":
        return float(psutil.virtual_memory().available / GIB)
    named = ",".join(seen) or os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        answer = subprocess.run(
            [
                *("nvidia-smi", "--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits"),
                *(["-i", named] if named else []),
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        rows = [[float(cell) / 1024 for cell in line.split(",")] for line in answer.stdout.splitlines()]
        taken = sorted((min(free, share * total) for free, total in rows), reverse=True)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return sum(taken[:gpus])


def check_memory(
    checkpoint: Path,
    device: str,
    kv_cache_gib: float,
    *,
    gpus: int = 1,
    share: float | None = None,
    tokens: int = 0,
    copies: int = 1,
    seen: Sequence[str] = (),
) -> None:
    """Raise EngineError, with the numbers, if weights and cache cannot fit what is free.

    The cache is what a CPU's engine is given (`kv_cache_gib`), and on GPUs at least one request of
    `tokens`. `copies` of the model share a machine's memory, but each has GPUs of its own: `seen`.
    """
    weights, free = weights_gib(checkpoint), free_gib(device, gpus, share or USUAL_SHARE, seen)
    cache = kv_cache_gib if device == "cpu" else cache_gib(checkpoint, tokens)
    needed = weights + cache + OVERHEAD_GIB[device]
    together = copies if device == "cpu" else 1
    if free is not None and together * needed > free:
        mend = "take a smaller model, or free memory"
        if device == "gpu":
            mend = f"{mend}, or spread it over more GPUs (--tensor-parallel-size)"
        elif together > 1:
            mend = f"ask for fewer --replicas, {mend}"
        each = f"each of {together} copies of " if together > 1 else ""
        raise EngineError(
            f"{each}{checkpoint.name} needs about {needed:.1f} GiB ({weights:.1f} weights, "
            f"{cache:.1f} cache, {OVERHEAD_GIB[device]:.1f} overhead), {free:.1f} GiB are free; {mend}"
        )
