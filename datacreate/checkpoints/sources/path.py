"""A folder or GGUF file on this machine, e.g. on a cluster's shared disk: copied, since it may go away."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from datacreate.checkpoints.folder import Damaged, is_kept
from datacreate.checkpoints.gguf_file import SUFFIX, gguf_in, parts
from datacreate.checkpoints.hashes import copy_hashed
from datacreate.checkpoints.preset import PathSource
from datacreate.checkpoints.progress import ByteCount, Progress
from datacreate.checkpoints.sources.arrival import Arrival, SourceFailed, unreadable_is_failed


def fetch(source: PathSource, work: Path, progress: Progress, code: bool = False) -> Arrival:
    """Copy what belongs to a checkpoint; the files tell their own sizes."""
    place = Path(os.path.expandvars(source.path)).expanduser()
    with unreadable_is_failed():
        wanted = _wanted(place, code)
        sizes = {name: path.stat().st_size for name, path in wanted.items()}
    count = ByteCount(progress, "copying", sum(sizes.values()))
    arrived = work / "arrived"
    hashes: dict[str, str] = {}
    for name, path in wanted.items():
        target = arrived / name
        # A copy that a killed pull left complete has the size; its hash is checked afterwards.
        if target.is_file() and target.stat().st_size == sizes[name]:
            count(sizes[name])
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = work / "copying"
        with _opened(path) as file, partial.open("wb") as out:
            hashes[name] = copy_hashed([file], out, count)
        partial.replace(target)
    return Arrival(arrived, sha256=hashes)


def _opened(path: Path) -> IO[bytes]:
    with unreadable_is_failed():
        return path.open("rb")


def _wanted(place: Path, code: bool) -> dict[str, Path]:
    """Name within the checkpoint -> file to copy; raises SourceFailed when there is none."""
    if place.is_file() and place.suffix == SUFFIX:
        return _gguf(place)
    if not place.is_dir():
        raise SourceFailed("not there")
    files = {path.relative_to(place).as_posix(): path for path in sorted(place.rglob("*")) if path.is_file()}
    wanted = {
        name: path
        for name, path in files.items()
        if is_kept(path.name, code) and path.name != "datacreate.json"
    }
    if not any(name.endswith(".safetensors") for name in wanted) and (model := gguf_in(place)):
        return _gguf(model)
    if not wanted:
        raise SourceFailed("holds no checkpoint")
    return wanted


def _gguf(path: Path) -> dict[str, Path]:
    try:
        return {part.name: part for part in parts(path)}
    except Damaged as damage:
        raise SourceFailed(str(damage)) from damage
