"""An engine's place among those of a run, and who makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from datacreate.checkpoints import Checkpoint
from datacreate.engines.base import Engine
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory


@dataclass(frozen=True)
class Seat:
    """An engine's place among those of a run."""

    name: str = "engine"  # of its log: `engine`, `engine-2` and so on for those that write, or `verifier`
    writes: bool = True
    engines: int = 1  # of the run in all, copies aside
    note: Callable[[str], None] = field(default=lambda _: None, compare=False)  # tells the user something


ALONE = Seat()

EngineFactory = Callable[[Checkpoint, CreateConfig, RunDirectory, Seat], Engine]
