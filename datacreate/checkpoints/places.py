"""Where checkpoints lie in the home, and what a disk that refuses becomes.

home()/checkpoints/NAME/        finished; appears in one rename
home()/checkpoints/.NAME.new    being made; thrown away by the next pull
home()/downloads/NAME/          pieces that arrived; the next pull goes on from them
home()/downloads/NAME.lock      held by the process that pulls NAME
home()/locks/NAME.json          what an untested preset's first pull found
home()/presets/NAME.yaml        what was imported
home()/merged/SHA256/           a base and its adapter in one
home()/dequantised/SHA256/      a GGUF as safetensors, for vLLM
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from datacreate.errors import StorageError
from datacreate.paths import home

_FULL = re.compile(r"No space left on device|Disk quota exceeded|os error 28\b")


def finished(name: str) -> Path:
    return home() / "checkpoints" / name


def unfinished(name: str) -> Path:
    return home() / "checkpoints" / f".{name}.new"


def downloads(name: str) -> Path:
    return home() / "downloads" / name


def lock_file(name: str) -> Path:
    return home() / "downloads" / f"{name}.lock"


def locked_hashes(name: str) -> Path:
    return home() / "locks" / f"{name}.json"


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn an OSError of the home's disk into one line; what arrived stays for the next try."""
    try:
        yield
    except OSError as error:
        where = error.filename or home()
        raise StorageError(
            f"cannot write {where}: {error.strerror or error}; make room there, or set DATACREATE_HOME "
            "to another folder, and run the same command again"
        ) from error


def raise_if_disk_full(words: str) -> None:
    """Raise StorageError when a child process's last words say that the disk is full."""
    if _FULL.search(words):
        raise StorageError(
            f"cannot write to {home()}: the disk is full; make room there, or set DATACREATE_HOME "
            "to another folder, and run the same command again"
        )


def require_space(needed_bytes: int, free_bytes: int) -> None:
    """Raise StorageError, with both numbers, when a pull would not fit."""
    if free_bytes < needed_bytes:
        raise StorageError(
            f"not enough room in {home()}: {needed_bytes / 1e9:.2f} GB are needed and "
            f"{free_bytes / 1e9:.2f} GB are free; make room there, or set DATACREATE_HOME to another folder, "
            "and run the same command again"
        )


def free_bytes() -> int:
    """Free bytes on the home's disk."""
    return shutil.disk_usage(home()).free


def bytes_below(folder: Path) -> int:
    """Bytes of all files below a folder; one that vanishes meanwhile counts as nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(root, name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


def replace_folder(new: Path, place: Path) -> None:
    """Put `new` where `place` is, in one rename each; the old one is removed afterwards."""
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def made_once(kind: str, sha256: str, make: Callable[[Path], None]) -> Path:
    """The folder `home()/KIND/SHA256`; if it is not there, `make` fills a folder that becomes it.

    A second process waits for the first. Raises StorageError when the disk is full or read-only.
    """
    from filelock import FileLock

    folder = home() / kind / sha256[:16]
    if folder.is_dir():
        return folder
    with storage_errors():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                unfinished = folder.with_suffix(".new")
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                try:
                    make(unfinished)
                except BaseException:
                    shutil.rmtree(unfinished, ignore_errors=True)
                    raise
                unfinished.rename(folder)
    return folder
