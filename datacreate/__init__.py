"""datacreate: training data from one example, written by a model on your own hardware.

    from pathlib import Path
    from datacreate import CreateConfig, create

    summary = create(CreateConfig(example=Path("mine.json"), count=100, run_dir=Path("runs/mine")))

`create` does what `datacreate create` does, and goes on where an earlier call with the same
configuration stopped. Everything is imported when it is first used. Importing datacreate switches the
downloads and the telemetry of the libraries beneath it off, in this process and those it starts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from datacreate.offline import go_offline

if TYPE_CHECKING:
    from datacreate.creation import create
    from datacreate.runs.config import CreateConfig
    from datacreate.tasks.example import Example
    from datacreate.tasks.format import TaskFormat

__all__ = ["CreateConfig", "Example", "TaskFormat", "create"]

go_offline()  # here, so that it comes before every library

_HOMES = {
    "create": "datacreate.creation",
    "CreateConfig": "datacreate.runs.config",
    "Example": "datacreate.tasks.example",
    "TaskFormat": "datacreate.tasks.format",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'datacreate' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
