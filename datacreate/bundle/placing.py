"""Put what a bundle carries in its place in the home. The standard library alone: see farside.py."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from datacreate.bundle.contents import Contents, Entry, Refused, Say, pour, sha256_of

_MARK = ".datacreate-bundle"  # in the unpacked project: the sha256 of the archive it came from


def groups(contents: Contents) -> dict[str, list[Entry]]:
    """`checkpoints/NAME` and `benchmarks/NAME` with their files."""
    found: dict[str, list[Entry]] = {}
    for entry in contents.entries:
        if entry.kind in ("checkpoint", "benchmark"):
            found.setdefault("/".join(entry.path.split("/")[:2]), []).append(entry)
    return found


def fill_home(folder: Path, contents: Contents, home: Path, say: Say) -> None:
    """Checkpoints and benchmarks; what is there and the same is left alone. Refused at a bad piece."""
    for group, entries in groups(contents).items():
        kind, name = group.split("/")
        lock = home / "benchmarks" / ".lock" if kind == "benchmarks" else home / "downloads" / f"{name}.lock"
        with _locked(lock, say):
            place = home / group
            if all(_is_there(home / entry.path, entry) for entry in entries):
                say(f"{name}: already in {home}")
            elif place.is_dir() and kind == "benchmarks":
                say(f"{name}: {place} holds another import, which is kept; remove it to take the bundle's")
            else:
                say(f"{name}: into {place}")
                _put(folder, entries, place)
    for entry in contents.entries:
        if entry.kind == "setting" and not _is_there(home / entry.path, entry):  # goes with its checkpoint
            write(folder, entry, home / entry.path)


@contextlib.contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    """The lock that `models pull` and `benchmarks import` take, held."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_there(path: Path, entry: Entry) -> bool:
    return path.is_file() and path.stat().st_size == entry.size and sha256_of(path) == entry.sha256


def _put(folder: Path, entries: Iterable[Entry], place: Path) -> None:
    """Beside its place first, then in it by one rename, as `models pull` does."""
    new, old = place.with_name(f".{place.name}.new"), place.with_name(f".{place.name}.old")
    shutil.rmtree(new, ignore_errors=True)
    try:
        for entry in entries:
            write(folder, entry, new.joinpath(*entry.path.split("/")[2:]))
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        new.rename(place)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def write(folder: Path, entry: Entry, target: Path) -> None:
    """One file, joined, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as out:
            pour(folder, entry, out)
            out.flush()
            os.fsync(out.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _unpacked(entry: Entry, to: Path) -> bool:
    mark = to / _MARK
    return mark.is_file() and mark.read_text(encoding="utf-8").strip() == entry.sha256


def require_empty(contents: Contents, to: Path) -> None:
    """Refused where something else than this bundle's project lies in the place of the project's files."""
    [entry] = [entry for entry in contents.entries if entry.kind == "project"]
    if not _unpacked(entry, to) and to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise Refused(f"{to} is not empty: choose another folder for the project's files with --to")


def unpack(folder: Path, contents: Contents, to: Path, say: Say) -> None:
    """The project's files; nothing where they are there already."""
    [entry] = [entry for entry in contents.entries if entry.kind == "project"]
    if _unpacked(entry, to):
        return
    say(f"project: into {to}")
    new = to.with_name(f".{to.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    archive = new / ".archive"
    write(folder, entry, archive)
    with tarfile.open(archive) as tar:
        for member in tar:
            # The first folder is the archive's own name; anything but plain files has no business in it.
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            source = tar.extractfile(member) if member.isreg() and ".." not in path.parts else None
            if source is None:
                continue
            target = new / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with source, target.open("wb") as out:
                shutil.copyfileobj(source, out)
            target.chmod(0o755 if member.mode & 0o100 else 0o644)
    archive.unlink()
    (new / _MARK).write_text(entry.sha256 + "\n", encoding="utf-8")
    if to.exists():
        to.rmdir()
    new.rename(to)
