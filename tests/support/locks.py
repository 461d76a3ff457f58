"""Locks as other processes leave them, and faster ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datacreate import locking

NODE = "process 7 on node7 (SLURM job 4711), since 2026-11-21 18:39 UTC"


def write_record(folder: Path, machine: str = "node7") -> Path:
    """The lock file of a process on another machine."""
    path = folder / locking.LOCK_FILE
    part = path.with_name(".lock.part")
    part.write_text(f"{NODE}\n{machine}\n0123\n")
    return part.replace(path)


def speed_up(factor: float, patch: Callable[[Any, str, Any], None] = setattr) -> None:
    """Make heartbeats and waits of locks faster by `factor`."""
    patch(locking, "HEARTBEAT_SECONDS", locking.HEARTBEAT_SECONDS / factor)
    patch(locking, "sleep", lambda seconds: time.sleep(seconds / factor))
