"""What nvidia-smi says, and which CUDA torch was built for."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_PATIENCE_SECONDS = 30.0
"""A driver that sleeps takes seconds to answer."""

_CUDA = re.compile(r"CUDA (?:\w+ )?Version\s*:\s*(\d+(?:\.\d+)?)")
_BUILT_FOR = re.compile(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", re.MULTILINE)


@dataclass(frozen=True)
class Gpu:
    """One GPU; memory in MiB."""

    name: str
    total: int
    free: int


@dataclass(frozen=True)
class Driver:
    """The driver and its GPUs; `cuda` is the newest CUDA it can run, empty if it does not say."""

    version: str
    cuda: str
    gpus: tuple[Gpu, ...]


def find_driver() -> Driver | str | None:
    """What nvidia-smi reports; in words why it reports nothing; None where there is no NVIDIA driver."""
    if shutil.which("nvidia-smi") is None:
        return "there is a GPU, and no nvidia-smi" if Path("/dev/nvidia0").exists() else None
    asked = _ask("--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader,nounits")
    if asked.returncode != 0:
        said = (asked.stdout or asked.stderr).strip().splitlines()
        return said[0] if said else f"nvidia-smi ended with {asked.returncode}"
    rows = [[cell.strip() for cell in line.split(",")] for line in asked.stdout.splitlines() if line.strip()]
    gpus = tuple(Gpu(name, _mib(total), _mib(free)) for name, total, free, _ in rows)
    if not gpus:
        return "nvidia-smi lists no GPU"
    cuda = _CUDA.search(_ask().stdout)
    return Driver(rows[0][3], cuda[1] if cuda else "", gpus)


def _ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["nvidia-smi", *arguments], capture_output=True, text=True, check=False, timeout=_PATIENCE_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        return subprocess.CompletedProcess(arguments, 1, "", f"nvidia-smi: {error}")


def _mib(cell: str) -> int:
    # A GPU that shares the processor's memory has none of its own: "[N/A]".
    return int(cell) if cell.isdecimal() else 0


def torch_cuda() -> str:
    """The CUDA that the installed torch was built for; empty for a CPU build, or where there is no torch.

    Read from its source: importing it takes seconds.
    """
    found = find_spec("torch")
    if found is None or found.origin is None:
        return ""
    try:
        text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return ""
    built_for = _BUILT_FOR.search(text)
    return built_for[1] if built_for else ""
