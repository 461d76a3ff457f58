"""datacreate: training data from one formatting example, written by a language model on your own hardware.

    from datacreate import CreateConfig, create
    from datacreate.cli.terminal import TerminalProgress

    with TerminalProgress() as progress:
        summary = create(CreateConfig(example="mine.json", count=100), progress=progress)
    print(summary["accepted"], summary["rejected"])

`create` does what `datacreate create` does, and returns the content of summary.json. Without `progress` it
shows no warnings. A second call with the same settings resumes the run. Importing datacreate changes no environment
variable and no global state.

docs/architecture.md describes the packages, and the modules for all packages.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datacreate.creation.loop import create
    from datacreate.runs.config import CreateConfig

__all__ = ["CreateConfig", "create"]

_MODULES = {"CreateConfig": "datacreate.runs.config", "create": "datacreate.creation.loop"}


def __getattr__(name: str) -> Any:
    """Import the module of a public name when it is used: `import datacreate` alone stays fast."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
