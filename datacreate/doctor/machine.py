"""What this machine computes with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

from datacreate.doctor.gpu import Driver, torch_cuda
from datacreate.doctor.line import WORKS, Line, Work, gib
from datacreate.doctor.software import Build, install_command, installed, installed_build

SECTION = "machine"

_SMALL_BYTES = 4 * 1024**3
"""Memory below which even the smallest preset with its engine does not fit."""

_GET_COMPILER = "apt-get install g++"


def machine(driver: Driver | str | None, build: Build) -> list[Line]:
    """Lines about processors, memory and compiler. `driver` is what `find_driver` found."""
    return [_gpu(driver, build), _processor(build), _memory(), _compiler(build)]


def _gpu(driver: Driver | str | None, build: Build) -> Line:
    if driver is None:
        if installed_build() != "gpu":
            return Line(SECTION, "GPU", "note", "none; models run on the processor")
        said = "none here, and the GPU build of vLLM is installed"
        in_a_job = "srun --gres=gpu:1 datacreate doctor"
        mend = in_a_job if shutil.which("srun") else install_command("cpu")
        return Line(SECTION, "GPU", "red", said, mend, ("create",))
    if isinstance(driver, str):
        return Line(
            SECTION, "GPU", "red", driver, "sudo modprobe nvidia", ("create",) if build == "gpu" else ()
        )
    said = f"{_listed(driver)}; driver {driver.version}"
    said += f", CUDA up to {driver.cuda}" if driver.cuda else ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        said += f"; hidden by CUDA_VISIBLE_DEVICES='{visible}'"
        needed_by: tuple[Work, ...] = ("create",) if build == "gpu" else ()
        return Line(SECTION, "GPU", "red", said, "unset CUDA_VISIBLE_DEVICES", needed_by)
    said += f"; CUDA_VISIBLE_DEVICES={visible}" if visible else ""
    built_for = torch_cuda()
    if not built_for:
        if installed("torch") is None:
            return Line(SECTION, "GPU", "ok", said)
        return Line(SECTION, "GPU", "note", f"{said}; not used: torch is a CPU build", install_command("gpu"))
    if driver.cuda and _major(built_for) > _major(driver.cuda):
        said += f"; torch is built for CUDA {built_for}, which wants a newer driver"
        return Line(SECTION, "GPU", "red", said, "sudo apt-get install nvidia-driver", WORKS)
    return Line(SECTION, "GPU", "ok", f"{said}; torch is built for CUDA {built_for}")


def _listed(driver: Driver) -> str:
    """`4 x NVIDIA H100 (79.6 GiB, at least 78.9 free)`, a part for each kind."""
    kinds: dict[tuple[str, int], list[int]] = {}
    for gpu in driver.gpus:
        kinds.setdefault((gpu.name, gpu.total), []).append(gpu.free)
    return ", ".join(
        f"{len(free)} x {name} ({total / 1024:.1f} GiB, {'at least ' if len(free) > 1 else ''}"
        f"{min(free) / 1024:.1f} free)"
        for (name, total), free in kinds.items()
    )


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _processor(build: Build) -> Line:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    flags = _flags()
    said = f"{cores} core{'s' if cores > 1 else ''}"
    if not flags:
        return Line(SECTION, "processor", "ok", said)
    if build == "cpu" and "avx2" not in flags:
        said += " without AVX2, which the CPU build of vLLM needs"
        return Line(SECTION, "processor", "red", said, install_command("gpu"), ("create",))
    if "avx512f" not in flags:
        return Line(SECTION, "processor", "note", f"{said} without AVX-512: vLLM is slower on it")
    bf16 = flags & {"avx512_bf16", "amx_bf16"}
    said += " with AVX-512"
    if not bf16:
        return Line(SECTION, "processor", "note", f"{said}, without bfloat16: vLLM is slower on them")
    return Line(SECTION, "processor", "ok", f"{said} and bfloat16")


def _flags() -> frozenset[str]:
    """What the first core can; empty where there is no /proc."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    found = next((line for line in text.split("\n") if line.startswith("flags")), "")
    return frozenset(found.partition(":")[2].split())


def _memory() -> Line:
    found = psutil.virtual_memory()
    said = f"{gib(found.available)} free of {gib(found.total)}"
    if found.available < _SMALL_BYTES:
        return Line(SECTION, "memory", "note", f"{said}: little, even for a model of 0.5B")
    return Line(SECTION, "memory", "ok", said)


def _compiler(build: Build) -> Line:
    if (found := shutil.which("g++")) is not None:
        return Line(SECTION, "compiler", "ok", found)
    if build == "gpu" and shutil.which("gcc") is None and shutil.which("cc") is None:
        said = "no C or C++ compiler: vLLM compiles its GPU kernels with one"
        return Line(SECTION, "compiler", "red", said, _GET_COMPILER, ("create",))
    said = "no g++: long runs go without compiling the model, a fifth slower"
    return Line(SECTION, "compiler", "note", said, _GET_COMPILER)
