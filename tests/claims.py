"""Locks as processes of other machines leave them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datacreate.locking import Holder, holder

NODE = "process 7 on node7 (SLURM job 4711), since 2026-11-21 18:39 UTC"


def claim(folder: Path, number: int = 1, beat: int = 0, **of: Any) -> Path:
    """A claim of another machine's, or of whichever process `of` says."""
    node: dict[str, Any] = {
        "process": 7,
        "host": "node7",
        "machine": "elsewhere",
        "job": "4711",
        "since": "2026-11-21T18:39:00Z",
    }
    kept = Holder.model_validate(Holder.this_process().model_dump() | node | of)
    path = folder / f".lock.{number}"
    path.write_bytes(kept.record + b"\n%012d\n" % beat)
    return path


def here(**of: Any) -> dict[str, Any]:
    """This process, but for what `of` says."""
    return Holder.this_process().model_dump() | of


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """See to it that processes of this machine seem to be of another one."""
    monkeypatch.setattr(holder, "_machine", lambda: "not here")


def take_over(folder: Path) -> Path:
    """Do what another machine does when it has found the only claim dead; returns its own."""
    [old] = folder.glob(".lock.*")
    new = claim(folder, number=int(old.name.rpartition(".")[2]) + 1)
    old.unlink()
    return new


def claims(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Time:
    """A clock that waiting moves, and what is to happen at a wait."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self._then = then

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)
        self._then()

    def clock(self) -> float:
        return self.now
