"""Which GPUs, or which cores, each of several engines of one machine works on.

GPUs are named as CUDA_VISIBLE_DEVICES names them, so that what a scheduler gave is kept to, or by
their UUIDs, which mean the same to nvidia-smi and to CUDA where their numbers need not.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Literal, TypeVar

from datacreate.errors import UsageError

T = TypeVar("T")

_GPU = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")
_LISTED = re.compile(r"\(UUID: ((?:GPU|MIG)-[^)]+)\)")


@dataclass(frozen=True)
class Devices:
    """What an engine works on; empty is whatever this process may use."""

    gpus: tuple[str, ...] = ()  # as CUDA_VISIBLE_DEVICES takes them
    cores: tuple[int, ...] = ()  # numbers of processors, on a machine without a GPU

    def __str__(self) -> str:
        named = f"GPU {','.join(self.gpus)}" if self.gpus else f"cores {','.join(map(str, self.cores))}"
        return named if self.gpus or self.cores else "this machine"


def devices_for(replicas: int | Literal["auto"], device: str, gpus_each: int) -> tuple[Devices, ...]:
    """The devices of each of so many engines, which take `gpus_each` GPUs where `device` is "gpu".

    `auto` is one for each whole group of GPUs, and one on a CPU. UsageError if there is no room for
    so many.
    """
    if replicas == 1 or (replicas == "auto" and device == "cpu"):
        return (Devices(),)
    if device == "cpu":
        cores = usable_cores()
        if replicas != "auto" and replicas > len(cores):
            raise UsageError(
                f"--replicas {replicas}: {len(cores)} processor cores may be used here, and each copy "
                f"needs one of its own; ask for {len(cores)} or fewer"
            )
        return tuple(Devices(cores=part) for part in shared_out(cores, int(replicas)))
    gpus = visible_gpus()
    groups = grouped(gpus, gpus_each)
    if replicas == "auto":
        return tuple(Devices(gpus=group) for group in groups) if len(groups) > 1 else (Devices(),)
    if replicas > len(groups):
        takes = f", and each copy takes {gpus_each} of them (--tensor-parallel-size)" if gpus_each > 1 else ""
        raise UsageError(
            f"--replicas {replicas}: {len(gpus)} GPUs are seen here{takes}; ask for {max(1, len(groups))}"
            f"{' or fewer' if len(groups) > 1 else ''}, or name more in CUDA_VISIBLE_DEVICES"
        )
    return tuple(Devices(gpus=group) for group in groups[:replicas])


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, by the names CUDA takes; none if nvidia-smi cannot be asked."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named_gpus(told) if told is not None else listed_gpus(_list_gpus())


def named_gpus(told: str) -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES names, as CUDA reads it: up to the first that can be no GPU."""
    names = (name.strip() for name in told.split(","))
    return tuple(dict.fromkeys(takewhile(_GPU.fullmatch, names)))


def listed_gpus(listing: str) -> tuple[str, ...]:
    """UUIDs from `nvidia-smi -L`; a GPU that is cut up (MIG) is there in its parts alone."""
    found: list[str] = []
    whole = ""
    for name in _LISTED.findall(listing):
        if name.startswith("GPU-"):
            whole = name
        elif found and found[-1] == whole:
            found.pop()
        found.append(name)
    return tuple(found)


def _list_gpus() -> str:
    try:
        return subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def usable_cores() -> tuple[int, ...]:
    """The processors that this process may use, the threads of one core side by side."""
    return tuple(sorted(os.sched_getaffinity(0), key=lambda cpu: (_first_sibling(cpu), cpu)))


def _first_sibling(cpu: int) -> int:
    listed = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return int(re.split(r"[,-]", listed.read_text(encoding="ascii"))[0])
    except (OSError, ValueError):
        return cpu


def grouped(things: Sequence[T], size: int) -> tuple[tuple[T, ...], ...]:
    """Neighbours in groups of `size`; what makes no whole group is left over."""
    return tuple(tuple(things[at : at + size]) for at in range(0, len(things) - size + 1, size))


def shared_out(things: Sequence[T], parts: int) -> tuple[tuple[T, ...], ...]:
    """All of them in so many parts, each of neighbours, whose sizes differ by one at most."""
    edges = [len(things) * part // parts for part in range(parts + 1)]
    return tuple(tuple(things[begin:end]) for begin, end in pairwise(edges))
