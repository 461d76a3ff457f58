"""How a long step tells how far it is, without knowing who listens."""

from __future__ import annotations

import time
from typing import Protocol

_SECONDS_BETWEEN_CALLS = 0.2


class Progress(Protocol):
    """Called with the stage's name and how much of it is done.

    `total` 0 means there is nothing to measure: `stage` is then one line for the reader
    ("the Hub is out of reach: ..."). Calls come from one thread, at most a few a second,
    and `done` never goes back within a stage.
    """

    def __call__(self, stage: str, done: int, total: int, unit: str) -> None: ...


def silent(stage: str, done: int, total: int, unit: str) -> None:
    """Tell nobody."""


class ByteCount:
    """Adds up the bytes of one stage for a Progress, and calls it a few times a second and at the end."""

    def __init__(self, progress: Progress, stage: str, total: int) -> None:
        self._progress, self._stage, self._total = progress, stage, total
        self._done = 0
        self._called_at = 0.0

    def __call__(self, more: int) -> None:
        self._done += more
        now = time.monotonic()
        if now - self._called_at >= _SECONDS_BETWEEN_CALLS or self._done >= self._total:
            self._called_at = now
            self._progress(self._stage, min(self._done, self._total), self._total, "B")
