"""How a long step tells how far it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with the stage's name and how much of it is done.

    `total` 0 means there is nothing to measure: `stage` is then one line for the reader
    ("the Hub is out of reach: ..."). Calls come from one thread, at most a few a second,
    and `done` never goes back within a stage.
    """

    def __call__(self, stage: str, done: int, total: int, unit: str) -> None: ...


def silent(stage: str, done: int, total: int, unit: str) -> None:
    """Tell nobody."""
