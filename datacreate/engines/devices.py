"""Assigns GPUs to servers and checks that a model fits into free memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from datacreate.checkpoints import Checkpoint
from datacreate.errors import EngineError, UsageError
from datacreate.hardware import query_gpus, visible_gpus

GIB = 1024**3

OVERHEAD_GIB = {"cpu": 2.5, "gpu": 1.0}
"""Memory of Python, torch, vLLM and activations, besides weights and cache."""

_GPU_SHARE = 0.9
"""The share of a GPU's memory that vLLM uses by default."""


def gpu_groups(replicas: int | Literal["auto"], gpus_each: int) -> tuple[tuple[str, ...], ...]:
    """The GPUs of each server, `gpus_each` per server. One empty group means all visible GPUs.

    `auto` is one server per complete group of GPUs. UsageError if there are too few GPUs.
    """
    gpus = visible_gpus() if replicas != 1 else ()
    groups = tuple(tuple(gpus[at : at + gpus_each]) for at in range(0, len(gpus) - gpus_each + 1, gpus_each))
    if replicas == 1 or (replicas == "auto" and len(groups) < 2):
        return ((),)
    if replicas == "auto":
        return groups
    if replicas > len(groups):
        each = f", and each server uses {gpus_each} of them (--tensor-parallel-size)" if gpus_each > 1 else ""
        raise UsageError(
            f"--replicas {replicas}: {len(gpus)} GPUs are visible{each}; use {max(1, len(groups))}"
            f"{' or fewer' if len(groups) > 1 else ''}, or add GPUs to CUDA_VISIBLE_DEVICES"
        )
    return groups[:replicas]


def check_memory(
    checkpoint: Checkpoint,
    folder: Path,
    device: str,
    kv_cache_gib: float,
    settings: Mapping[str, Any],
    gpus: Sequence[str],
) -> None:
    """Raise EngineError, with the numbers, if weights and cache do not fit into free memory.

    On a GPU only the weights count: vLLM uses the rest for its cache and checks itself that a request fits.
    """
    spread = int(settings.get("tensor_parallel_size", 1))
    share = float(settings.get("gpu_memory_utilization") or _GPU_SHARE)
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / GIB
    free = free_gib(device, spread, share, gpus)
    cache = kv_cache_gib if device == "cpu" else 0.0
    needed = weights + cache + OVERHEAD_GIB[device]
    if free is not None and needed > free:
        gpu_advice = ", or spread it over more GPUs (--tensor-parallel-size)" if device == "gpu" else ""
        raise EngineError(
            f"{checkpoint.name} needs about {needed:.1f} GiB ({weights:.1f} weights, {cache:.1f} cache, "
            f"{OVERHEAD_GIB[device]:.1f} overhead), {free:.1f} GiB are free; use a smaller model, or free "
            f"memory{gpu_advice}"
        )


def free_gib(device: str, number: int = 1, share: float = 1.0, gpus: Sequence[str] = ()) -> float | None:
    """Memory in GiB that a model can use; None if it cannot be determined.

    On GPUs: the free memory of the `number` emptiest of `gpus` (by default all), at most `share` of each.
    """
    if device == "cpu":
        import psutil

        return float(psutil.virtual_memory().available / GIB)
    try:
        found = query_gpus(",".join(gpus) or os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    except EngineError:
        return None
    if not found or any(gpu.free is None or gpu.total is None for gpu in found):
        return None
    usable = sorted((min(gpu.free or 0.0, share * (gpu.total or 0.0)) for gpu in found), reverse=True)
    return sum(usable[:number])
