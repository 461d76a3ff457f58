"""A bundle being filled: files arrive whole, in pieces where they are too large, and are remembered.

`.making.json` says what has arrived: a make that was stopped goes on from it. manifest.json takes its
place when all is there, so that a folder without one is no bundle yet.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datacreate.bundle.contents import NAME, Contents, Entry, Piece, Refused, pour, read
from datacreate.errors import BundleError, StorageError

JOURNAL = ".making.json"
_LOCK = ".making.lock"
WORK = ".making"  # what is being fetched; gone when all is there
_OURS = ("benchmarks", "checkpoints", "installer", "locks", "presets", "project", "wheels")
_BLOCK_BYTES = 1 << 22

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Target:
    """The machine that the bundle is for; a folder is filled for one target only."""

    platform: str  # cpu or gpu
    python: str  # such as 3.11

    @property
    def words(self) -> str:
        return f"{self.platform}, Python {self.python}"


@contextmanager
def sole(folder: Path) -> Iterator[None]:
    """Nobody else fills the folder meanwhile; BundleError where somebody does."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / _LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise BundleError(
            f"{folder}: another process is filling it; wait for it, then run this again"
        ) from None
    except OSError as error:
        raise told(error, folder) from None
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / _LOCK).unlink()
        lock.release()


def told(error: OSError, folder: Path) -> StorageError:
    """An OSError of the bundle's disk as one line that says what to do."""
    where = error.filename or folder
    again = "what arrived is kept: run the same command again"
    if error.errno == errno.EFBIG:
        return StorageError(
            f"{where}: too large for this file system; {again} with --piece-size 4GB, which splits it"
        )
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "the disk is full" if full else f"cannot be written ({error.strerror or error})"
    remedy = "make room there" if full else "fix that"
    return StorageError(f"{where}: {what}; {remedy}, or choose another folder; {again}")


class Filling:
    """The folder `make` writes. Raises BundleError where it cannot be one, StorageError for its disk."""

    def __init__(self, folder: Path, target: Target, piece_bytes: int | None) -> None:
        self.folder = folder
        self.work = folder / WORK
        self._target = target
        self._piece_bytes = piece_bytes
        self._before = _earlier(folder, target)
        self._entries: dict[str, Entry] = {}
        with self.storage_errors():
            shutil.rmtree(self.work, ignore_errors=True)
            self._remember()
            (folder / NAME).unlink(missing_ok=True)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What is in the bundle so far, in order of path."""
        return tuple(self._entries[path] for path in sorted(self._entries))

    def bytes_there(self, path: str) -> int:
        """Of a file that an earlier make brought, by the cheap look: its size, or 0."""
        return self._before[path].size if self._looks_whole(path) else 0

    def paths_before(self) -> list[str]:
        """All that an earlier make brought."""
        return list(self._before)

    def keep(self, path: str, sha256: str | None = None) -> bool:
        """Whether it is there already with every byte right (and with that hash); then it stays."""
        entry = self._before.get(path)
        if entry is None or not self._looks_whole(path) or sha256 not in (None, entry.sha256):
            return False
        try:
            pour(self.folder, entry, None)
        except Refused:
            return False
        self._entries[path] = entry
        return True

    def add(
        self, path: str, source: Path, kind: str, sha256: str | None = None, tick: Tick | None = None
    ) -> None:
        """Copy a file in, unless it is there. Raises BundleError where the source has another hash."""
        if self.keep(path, sha256):
            if tick is not None:
                tick(self._entries[path].size)
            return
        with self.storage_errors():
            entry = self._copied(path, source, kind, sha256, tick)
            self._entries[path] = entry
            self._remember()

    def finish(self, contents: Contents) -> Contents:
        """Remove what no longer belongs to it, then write manifest.json."""
        done = replace(contents, entries=self.entries)
        kept = {part.path for entry in done.entries for part in entry.parts}
        with self.storage_errors():
            for path in (path for name in _OURS for path in (self.folder / name).rglob("*")):
                if path.is_file() and path.relative_to(self.folder).as_posix() not in kept:
                    path.unlink()  # of other wishes, or half a file of a killed make
            shutil.rmtree(self.work, ignore_errors=True)
            _write_json(self.folder / NAME, done.document())
            (self.folder / JOURNAL).unlink()
        return done

    def workplace(self) -> Path:
        """A new folder on the bundle's disk, which no process of a killed make knows."""
        with self.storage_errors():
            self.work.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(dir=self.work))

    @contextmanager
    def storage_errors(self) -> Iterator[None]:
        """An OSError of the bundle's disk as one line; what arrived stays for the next make."""
        try:
            yield
        except OSError as error:
            raise told(error, self.folder) from None

    def _looks_whole(self, path: str) -> bool:
        entry = self._before.get(path)
        if entry is None or [part.size for part in entry.parts] != self._sizes(entry.size, entry.kind):
            return False
        files = [(self.folder / part.path, part.size) for part in entry.parts]
        return all(file.is_file() and file.stat().st_size == size for file, size in files)

    def _sizes(self, size: int, kind: str) -> list[int]:
        """Of the files that one of `size` bytes becomes; what joins the others is never split."""
        if self._piece_bytes is None or size <= self._piece_bytes or kind == "installer":
            return [size]
        whole, rest = divmod(size, self._piece_bytes)
        return [self._piece_bytes] * whole + ([rest] if rest else [])

    def _copied(self, path: str, source: Path, kind: str, sha256: str | None, tick: Tick | None) -> Entry:
        size = source.stat().st_size
        sizes = self._sizes(size, kind)
        names = [path] if len(sizes) == 1 else [f"{path}.{number:03d}" for number in range(1, len(sizes) + 1)]
        digest = hashlib.sha256()
        pieces: list[Piece] = []
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as file:
            for name, length in zip(names, sizes, strict=True):
                part = self.folder / f"{name}.part"
                try:
                    with part.open("wb") as out:
                        own = hashlib.sha256()
                        left = length
                        while block := file.read(min(left, _BLOCK_BYTES)):
                            left -= len(block)
                            out.write(block)
                            own.update(block)
                            digest.update(block)
                            if tick is not None:
                                tick(len(block))
                        out.flush()
                        os.fsync(out.fileno())
                    part.replace(self.folder / name)
                finally:
                    part.unlink(missing_ok=True)
                pieces.append(Piece(name, length - left, own.hexdigest()))
        found = digest.hexdigest()
        if sha256 not in (None, found) or [piece.size for piece in pieces] != sizes:
            for piece in pieces:
                (self.folder / piece.path).unlink(missing_ok=True)
            raise BundleError(
                f"{source}: not what its manifest says (its sha256 differs); bring it into the home again "
                "(`datacreate models pull NAME --force`, `datacreate benchmarks import`), then run this again"
            )
        return Entry(path, size, found, kind, tuple(pieces) if len(pieces) > 1 else ())

    def _remember(self) -> None:
        # What was there before and may still be kept is not forgotten by a second stop.
        known = {**self._before, **self._entries}
        document = {**asdict(self._target), "entries": [asdict(entry) for entry in known.values()]}
        _write_json(self.folder / JOURNAL, document)


def _earlier(folder: Path, target: Target) -> dict[str, Entry]:
    """What an earlier make for the same target brought; BundleError where the folder is something else."""
    if not folder.exists() or (folder.is_dir() and not any(path.name != _LOCK for path in folder.iterdir())):
        return {}
    found: dict[str, Entry] = {}
    try:
        if (folder / NAME).is_file():
            contents = read(folder)
            made_for = Target(contents.platform, contents.python)
            found = {entry.path: entry for entry in contents.entries}
        else:
            document: dict[str, Any] = json.loads((folder / JOURNAL).read_bytes())
            made_for = Target(document["platform"], document["python"])
            for record in document["entries"]:
                pieces = tuple(Piece(**piece) for piece in record["pieces"])
                found[record["path"]] = Entry(**{**record, "pieces": pieces})
    except (OSError, ValueError, KeyError, TypeError, Refused):
        raise BundleError(
            f"{folder}: not empty and no bundle that was begun here; choose another folder"
        ) from None
    if made_for != target:
        raise BundleError(
            f"{folder}: a bundle for {made_for.words}, and this one is for {target.words}; "
            "choose another folder"
        )
    return found


def _write_json(path: Path, document: dict[str, Any]) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
