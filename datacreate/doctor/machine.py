"""What this machine computes with."""

from __future__ import annotations

import os
import platform
import shutil

import psutil

from datacreate.doctor.gpu import Driver, torch_cuda
from datacreate.doctor.line import WORKS, Line, Work, gib
from datacreate.doctor.software import Build, install_command, installed, installed_build
from datacreate.hardware import cpu_flags, cpu_has_bf16

SECTION = "machine"

_SMALL_BYTES: dict[Build, int] = {"llamacpp": 2 * 1024**3, "cpu": 4 * 1024**3, "gpu": 4 * 1024**3}
"""Memory below which even the smallest preset with its engine does not fit."""

_SHOWN_FLAGS = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512-BF16", "amx_bf16": "AMX-BF16"}

_GET_COMPILER = "apt-get install g++"


def machine(driver: Driver | str | None, build: Build) -> list[Line]:
    """Lines about processors, memory and compiler. `driver` is what `find_driver` found."""
    lines = [_gpu(driver, build), _processor(build), _memory(build)]
    return lines if build == "llamacpp" else [*lines, _compiler(build)]


def suited_build(driver: Driver | str | None) -> Build:
    """What scripts/setup would install here."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "llamacpp"
    if driver is not None:
        return "gpu"
    return "cpu" if cpu_has_bf16() else "llamacpp"


def _gpu(driver: Driver | str | None, build: Build) -> Line:
    if driver is None:
        if installed_build() != "gpu":
            return Line(SECTION, "GPU", "note", "none; models run on the processor")
        said = "none here, and the GPU build of vLLM is installed"
        in_a_job = "srun --gres=gpu:1 datacreate doctor"
        fix = in_a_job if shutil.which("srun") else install_command("cpu")
        return Line(SECTION, "GPU", "red", said, fix, ("create",))
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
    said = f"{cores} core{'s' if cores > 1 else ''}"
    flags = cpu_flags()
    if not flags or platform.machine() not in ("x86_64", "AMD64"):
        return Line(SECTION, "processor", "ok", said)
    if build != "gpu" and "avx2" not in flags:
        said += " without AVX2, which vLLM's CPU build and xllamacpp's wheel need"
        return Line(SECTION, "processor", "red", said, install_command("gpu"), ("create",))
    if shown := ", ".join(name for flag, name in _SHOWN_FLAGS.items() if flag in flags):
        said += f" with {shown}"
    if build == "cpu" and not cpu_has_bf16():
        said += "; vLLM emulates bfloat16 on it, many times slower than llama.cpp with a GGUF file"
        return Line(SECTION, "processor", "note", said)
    return Line(SECTION, "processor", "ok", said)


def _memory(build: Build) -> Line:
    found = psutil.virtual_memory()
    said = f"{gib(found.available)} free of {gib(found.total)}"
    if found.available < _SMALL_BYTES[build]:
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
