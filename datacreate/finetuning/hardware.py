"""What this machine can do for an encoder, and what to say when it runs out of memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from datacreate.errors import TrainingError
from datacreate.hardware import device


def share_the_cores() -> None:
    """Have waiting threads sleep, not spin; to be called before torch is first imported.

    Spinning, a training beside one other busy process came down to a fifth of its speed
    (measured on 2 cores: 0.3 steps/s against 1.5).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def keep_memory() -> None:
    """Have glibc keep what a step frees for the next one, in this process.

    By default each large tensor is given back to the kernel and comes anew, a page at a time: on a virtual
    machine that can take longer than the arithmetic. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for parameter, value in _KEEP.items():
        mallopt(parameter, value)


_KEEP = {-1: -1, -2: 2**26, -4: 0, -8: 1}
"""Parameters of mallopt(3), as in malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX."""


def padding_multiple() -> int | None:
    """Lengths that tensor cores like; on a CPU every token of padding is only more work."""
    return 8 if device().type == "cuda" else None


def is_first_process() -> bool:
    """Whether this process is the one that writes files: under torchrun there are others."""
    return os.environ.get("RANK", "0") == "0"


def world_size() -> int:
    """Processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def enough_memory(lower: str) -> Iterator[None]:
    """Say in one line what to lower when memory runs out in the block."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TrainingError(_too_little(lower, error)) from None
    except RuntimeError as error:
        if not any(words in str(error) for words in _NO_MEMORY):
            raise
        raise TrainingError(_too_little(lower, error)) from None


_NO_MEMORY = ("not enough memory", "out of memory", "can't allocate memory")


def _too_little(lower: str, error: BaseException) -> str:
    said = (str(error).splitlines() or ["no memory left"])[0][:160]
    return f"out of memory ({said}); lower {lower}, or take a smaller encoder"
