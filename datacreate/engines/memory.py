"""Whether a model fits this machine, worked out before anything is loaded."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil

from datacreate.errors import EngineError

GIB = 1024**3

OVERHEAD_GIB = {"cpu": 2.5, "gpu": 1.0}
"""Python, torch, vLLM and activations, beside weights and cache.

Measured on the CPU: 0.5B (1.2 GiB of weights) with 1 GiB of cache holds 4.3 GiB.
"""


def weights_gib(checkpoint: Path) -> float:
    """The size of the checkpoint's weights on disk, which is their size in memory, in GiB."""
    return sum(path.stat().st_size for path in checkpoint.glob("*.safetensors")) / GIB


def free_gib(device: str) -> float | None:
    """Free memory where the model would live, in GiB, summed over GPUs; None if it cannot be asked."""
    if device == "cpu":
        return float(psutil.virtual_memory().available / GIB)
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return sum(float(line) for line in answer.stdout.split()) / 1024


def check_memory(checkpoint: Path, device: str, kv_cache_gib: float) -> None:
    """Raise EngineError, with the numbers, if weights and cache cannot fit what is free."""
    weights, free = weights_gib(checkpoint), free_gib(device)
    needed = weights + OVERHEAD_GIB[device] + (kv_cache_gib if device == "cpu" else 0.0)
    if free is not None and needed > free:
        raise EngineError(
            f"{checkpoint.name} needs about {needed:.1f} GiB ({weights:.1f} weights, then cache, overhead), "
            f"{free:.1f} GiB are free; take a smaller model, or free memory"
        )
