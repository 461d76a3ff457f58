"""Checks this machine: software, hardware, data directory, models, servers.

`examine` returns findings by section. It writes nothing and uses a network only for servers. Heavy packages
are imported in child processes, so that one that crashes is a finding and not the end of the check.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from datacreate import hardware
from datacreate.engines import ENGINES
from datacreate.engines.engine import Engine
from datacreate.engines.factory import suited_engine
from datacreate.errors import CheckpointError, DatacreateError, EngineError
from datacreate.files import data_dir, shipped
from datacreate.hardware import GIB, installed_version

_IMPORT_TORCH = "import torch; print(torch.version.cuda or '', torch.cuda.is_available())"

_IMPORT_SECONDS, _SERVER_SECONDS = 300.0, 30.0
_LOW_DISK, _NO_DISK, _LOW_MEMORY = 10 * GIB, GIB // 4, 4 * GIB  # less is a warning, a failure, a warning
_FEW_CORES = 4  # fewer, in a machine with a GPU, are a warning
_SHOWN_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")

FindingState = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """The result of one check; `fix` says what to do."""

    name: str
    state: FindingState
    message: str
    fix: str | None = None


class ImportResult(NamedTuple):
    """The result of the import of a module."""

    error: str | None  # in one line; None if it worked
    output: str


def examine(*, urls: Sequence[str] = (), model: str | None = None) -> dict[str, list[Finding]]:
    """The findings about this machine and about the servers at `urls`, by section.

    `model` is the name of the model there; None if each server has only one. Only `urls` uses a network.
    """
    modules = [module for module, engine in _modules().items() if _version(module, engine)]
    code = [_IMPORT_TORCH if module == "torch" else f"import {module}" for module in modules]
    with ThreadPoolExecutor() as pool:
        imports = dict(zip(modules, pool.map(run_import, code), strict=True))
    sections = {
        "software": check_software(imports),
        "machine": check_machine(imports.get("torch")),
        "storage": check_storage(),
        "models": check_models(),
        "servers": [check_server(url, model) for url in urls],
    }
    return {section: findings for section, findings in sections.items() if findings}


def _chosen_build() -> str:
    """The build that is installed, or the one that suits this machine, by its option of scripts/setup."""
    for engine in ENGINES.values():
        if installed := engine.build():
            return installed
    if shutil.which("nvidia-smi"):
        return "gpu"
    return "cpu" if hardware.cpu_has_bf16() else "llamacpp"


def _install_command() -> str:
    """The command that installs the build into this environment."""
    setup, build = shipped("scripts", "setup"), _chosen_build()
    if not setup.is_file():
        return f"{shlex.quote(sys.executable)} -m pip install 'datacreate[{build}]'"
    venv = f" --venv {shlex.quote(sys.prefix)}" if sys.prefix != sys.base_prefix else ""
    return f"{shlex.quote(str(setup))} --{build}{venv}"


def check_software(imports: Mapping[str, ImportResult]) -> list[Finding]:
    """Python and engines: installed versions, and whether they can be imported."""
    return [
        Finding("Python", "ok", f"{platform.python_version()}, {sys.executable}"),
        Finding("datacreate", "ok", f"{installed_version('datacreate')}, {Path(__file__).parents[1]}"),
        *(_module_finding(module, engine, imports.get(module)) for module, engine in _modules().items()),
        *_compiler_findings(),
        _engine_finding(),
    ]


def _modules() -> dict[str, Engine | None]:
    """The modules that are imported in child processes: torch, and those of the engines."""
    return {"torch": None, **{each.packages[0]: each for each in ENGINES.values() if each.packages}}


def _version(module: str, engine: Engine | None) -> str | None:
    """The version of the installed package that contains a module."""
    if engine and not engine.build():
        return None
    return next(filter(None, map(installed_version, engine.packages if engine else (module,))), None)


def _module_finding(module: str, engine: Engine | None, result: ImportResult | None) -> Finding:
    version = _version(module, engine)
    if version is None and engine:
        return Finding(module, "ok", f"not installed; needed for {engine.needed_for}")
    if version is None:
        return Finding(module, "fail", "not installed; needed for everything", _install_command())
    if result and result.error:
        return Finding(module, "fail", f"{version} cannot be imported: {result.error}", _install_command())
    return Finding(module, "ok", version)


def _compiler_findings() -> list[Finding]:
    """What vLLM compiles with, if it is missing."""
    build = hardware.vllm_build()
    missing = [] if build is None or shutil.which("g++") else ["g++"]
    header = Path(sysconfig.get_path("include", "posix_prefix"), "Python.h")
    if build == "gpu" and not header.is_file():  # Triton compiles C code
        missing.append(str(header))
    if not missing:
        return []
    message = f"no {', no '.join(missing)}; vLLM compiles with it"
    fix = "install a C++ compiler and the headers of Python (Debian: g++ python3-dev)"
    return [Finding("compiler", "fail" if build == "gpu" else "warn", message, fix)]


def _engine_finding() -> Finding:
    """The engine that `--engine auto` chooses."""
    chosen: list[str] = []
    for file_type in ("GGUF", "safetensors"):
        engines = [suited_engine(gguf=file_type == "GGUF", long_run=long_run) for long_run in (False, True)]
        if names := list(dict.fromkeys(engine.name for engine in engines if engine)):
            chosen.append(f"{file_type}: {' or, for long runs, '.join(names)}")
    if not chosen:
        return Finding("engine", "fail", "no engine is installed", _install_command())
    return Finding("engine", "ok", f"--engine auto uses {'; '.join(chosen)}")


def run_import(code: str) -> ImportResult:
    """Run this program, which imports a module, in a child process."""
    command = [sys.executable, "-c", code]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        return ImportResult(str(error), "")
    if child.returncode == 0:
        return ImportResult(None, child.stdout.strip())
    lines = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
    return ImportResult(lines[-1].strip(), "")


def check_machine(torch: ImportResult | None) -> list[Finding]:
    """GPUs, CPU and memory. `torch` is the result of its import, None if it is not installed."""
    import psutil

    build, memory = _chosen_build(), psutil.virtual_memory()
    message = f"{_size(memory.available)} free of {_size(memory.total)}"
    memory_finding = Finding("memory", "ok", message)
    if memory.available < _LOW_MEMORY:
        memory_finding = Finding("memory", "warn", message, "free memory, or use a small model")
    return [_gpu_finding(build, torch), _cpu_finding(build), memory_finding]


def _gpu_finding(build: str, torch: ImportResult | None) -> Finding:
    problem_state: FindingState = "fail" if build == "gpu" else "warn"
    try:
        gpus = hardware.query_gpus("name", "memory.free", "memory.total", "driver_version")
    except EngineError as error:
        return Finding("GPU", problem_state, str(error), "reload or reinstall the NVIDIA driver")
    parts = [f"{name}, {free} of {total} MiB free, driver {driver}" for name, free, total, driver in gpus]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    parts += [] if visible is None else [f"CUDA_VISIBLE_DEVICES={visible}"]
    message = "; ".join(parts) or "none; models run on the CPU"
    if mismatch := hardware.build_mismatch():
        return Finding("GPU", problem_state, message, mismatch)
    cuda, _, is_available = torch.output.rpartition(" ") if torch else ("", "", "")  # printed by _IMPORT_TORCH
    if not gpus or not cuda or is_available == "True":
        return Finding("GPU", "ok", message)
    fix = f"unset CUDA_VISIBLE_DEVICES, or install NVIDIA driver {hardware.OLDEST_DRIVER} or newer"
    state: FindingState = "fail" if hardware.has_gpu() else "warn"  # the user may have chosen the CPU
    return Finding("GPU", state, f"{message}; torch for CUDA {cuda} cannot use it", fix)


def _cpu_finding(build: str) -> Finding:
    flags, cores = hardware.cpu_flags(), hardware.usable_cores()
    message = ", ".join([f"{cores} cores", *filter(flags.__contains__, _SHOWN_FLAGS)])
    if build != "gpu" and "avx2" not in flags:
        return Finding("CPU", "fail", f"{message}; both engines need AVX2", "use another machine, or --url")
    if build == "gpu" and cores < _FEW_CORES:
        message += "; the processes of vLLM and datacreate share them"
        return Finding("CPU", "warn", message, "use more cores (SLURM: --cpus-per-gpu=8)")
    if build == "cpu" and not hardware.cpu_has_bf16():
        message += "; no bfloat16 instructions: vLLM is slow here"
        return Finding("CPU", "warn", message, "use a GGUF file with --engine llamacpp")
    return Finding("CPU", "ok", message)


def check_storage() -> list[Finding]:
    """The data directory, and free space on its disk."""
    path, use_other_folder = data_dir().absolute(), "export DATACREATE_HOME=DIR"
    existing = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    if not existing.is_dir() or not os.access(existing, os.R_OK | os.X_OK):
        message = f"{path}: {existing} is not a readable folder"
        return [Finding("data directory", "fail", message, use_other_folder)]
    usage = shutil.disk_usage(existing)
    message = f"{path}, {_size(usage.free)} free of {_size(usage.total)}"
    if not os.access(existing, os.W_OK):
        message += "; read-only: no pulls and no imports"
        return [Finding("data directory", "warn", message, use_other_folder)]
    if usage.free >= _LOW_DISK:
        return [Finding("data directory", "ok", message)]
    state: FindingState = "fail" if usage.free < _NO_DISK else "warn"
    fix = f"delete files, or use a larger disk: {use_other_folder}"
    return [Finding("data directory", state, message, fix)]


def _size(size_bytes: float) -> str:
    return f"{size_bytes / GIB:,.1f} GiB"


def check_models() -> list[Finding]:
    """The presets that are on this machine, and those of them that are damaged."""
    from datacreate.checkpoints.checkpoint import resolve
    from datacreate.checkpoints.presets import load_presets
    from datacreate.checkpoints.pull import find_local

    try:
        presets = load_presets().values()
    except CheckpointError as error:
        return [Finding("presets", "fail", str(error), "repair or remove this file")]
    findings: list[Finding] = []
    pulled = [preset for preset in presets if find_local(preset.name, preset.sources)]
    for kind in ("instruct", "encoder"):
        names = ", ".join(preset.name for preset in pulled if preset.kind == kind)
        message = f"{names or 'none'} (of {sum(preset.kind == kind for preset in presets)} presets)"
        fix = None if names else "datacreate models pull NAME"
        findings.append(Finding(kind, "warn" if fix else "ok", message, fix))
    for preset in pulled:
        try:
            resolve(preset.name, preset.kind, trust_remote_code=True)
        except (CheckpointError, OSError) as error:
            fix = f"datacreate models pull {preset.name} --force"
            findings.append(Finding(preset.name, "fail", str(error), fix))
    return findings


def check_server(url: str, model: str | None) -> Finding:
    """Whether a server answers, enforces schemas, and returns real scores."""
    from datacreate.checkpoints.checkpoint import find_served_checkpoint
    from datacreate.engines import EngineOptions
    from datacreate.engines.factory import LocalModel, make_client, only_model
    from datacreate.engines.request import scoring_test

    try:
        options = EngineOptions.of(url=(url,), wait=0.0, request_timeout=_SERVER_SECONDS)
        name = model or only_model(options)
        with closing(make_client(LocalModel(find_served_checkpoint(name), options), count=1)) as client:
            client.start()
            try:
                client.start([scoring_test()])
            except EngineError as error:
                return Finding(url, "warn", str(error), "create with --verify off")
    except DatacreateError as error:
        return Finding(url, "fail", str(error), "check the address, DATACREATE_API_KEY, and the server's log")
    return Finding(url, "ok", f"{name}: schemas and scores pass the server tests")
