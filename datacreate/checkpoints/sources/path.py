"""A folder or GGUF file on this machine, e.g. on a cluster's shared disk: copied, since it may go away."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from datacreate.checkpoints.folder import is_kept
from datacreate.checkpoints.preset import PathSource
from datacreate.checkpoints.progress import Progress
from datacreate.checkpoints.sources.arrival import Arrival, SourceFailed, unreadable_is_failed


def fetch(source: PathSource, work: Path, progress: Progress, code: bool = False) -> Arrival:
    """Copy what belongs to a checkpoint; the files tell their own sizes."""
    place = Path(os.path.expandvars(source.path)).expanduser()
    with unreadable_is_failed():
        wanted = _wanted(place, code)
        sizes = {name: path.stat().st_size for name, path in wanted.items()}
    total, done = sum(sizes.values()), 0
    arrived = work / "arrived"
    for name, path in wanted.items():
        target = arrived / name
        # A copy that a killed pull left complete has the size; its hash is checked afterwards.
        if not target.is_file() or target.stat().st_size != sizes[name]:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = work / "copying"
            shutil.copyfile(path, partial)
            partial.replace(target)
        done += sizes[name]
        progress("copying", done, total, "B")
    return Arrival(arrived)


def _wanted(place: Path, code: bool) -> dict[str, Path]:
    """Name within the checkpoint -> file to copy; raises SourceFailed when there is none."""
    if place.is_file() and place.suffix == ".gguf":
        return {place.name: place}
    if not place.is_dir():
        raise SourceFailed("not there")
    files = {path.relative_to(place).as_posix(): path for path in sorted(place.rglob("*")) if path.is_file()}
    wanted = {
        name: path
        for name, path in files.items()
        if is_kept(path.name, code) and path.name != "datacreate.json"
    }
    if not wanted:
        raise SourceFailed("holds no checkpoint")
    return wanted
