"""Where files come from: a module per kind of source, all with the same face.

`fetch(source, work, size_bytes, progress) -> Arrival` goes on from whatever an earlier,
killed call left in `work`, and raises `SourceFailed` when this source cannot serve, so that
the next one gets its turn. What it returns has not been compared with any known hash yet.
"""

from __future__ import annotations

from pathlib import Path

from datacreate.checkpoints.preset import HubSource, PathSource, Source
from datacreate.checkpoints.progress import Progress
from datacreate.checkpoints.sources import hub, packages, path
from datacreate.checkpoints.sources.arrival import Arrival, SourceFailed

__all__ = ["Arrival", "SourceFailed", "fetch"]


def fetch(source: Source, work: Path, size_bytes: int, progress: Progress, *, code: bool = False) -> Arrival:
    """Fetch from one source, its publisher's code too if `code`; see the module's docstring."""
    work.mkdir(parents=True, exist_ok=True)
    if isinstance(source, PathSource):
        return path.fetch(source, work, progress, code)
    if isinstance(source, HubSource):
        return hub.fetch(source, work, size_bytes, progress, code)
    return packages.fetch(source, work, size_bytes, progress)
