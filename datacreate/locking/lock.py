"""A lock on a folder: a claim of one process, and its beat.

A claim is a file `.lock.N`: a line on its holder, and the number of the beat, which the holder writes anew
every few seconds. To take a folder:

1. Find every claim there dead: its process is gone from this machine; or it is another machine's, and its
   beat was looked at many times over a minute and did not change. No clock of one machine is compared with
   that of another or of the file server, and a file server that hangs makes no claim look dead.
2. Make the next number, which the file server gives to one alone, and look again: beside another claim than
   those found dead, withdraw and begin anew. So of any two claims the later one has seen the earlier.
3. Remove the dead claims. Whoever made one and was only suspended, or cut off, finds it gone at its next
   `look`, before it writes on.

What it asks of the file system: files that are made exclusively, and a folder and files that are read anew
when they are opened (as NFS does).
"""

from __future__ import annotations

import errno
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from datacreate.errors import LockLost
from datacreate.locking.holder import Holder, slurm_job

_CLAIM = re.compile(r"\.lock\.([0-9]+)", re.ASCII)

_GONE = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)
"""What a file server says of a file that somebody has removed."""

_CROWDED_SECONDS = 0.05
"""Between making a claim and writing it, or at most between withdrawing one and making another."""


@dataclass(frozen=True)
class Pace:
    """In seconds: between beats, between looks at another machine's beat, and of its silence till it is dead.

    All machines must agree on it: a `quiet` of several beats forgives a slow file server.
    """

    beat: float = 10.0
    poll: float = 1.0
    quiet: float = 60.0


PACE = Pace()


def passed() -> float:
    """Seconds that pass also while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Taken(Exception):
    """Another process holds the folder."""


class FolderLock:
    """A lock on a folder that is there. `say` is told, once, when it has to wait for another machine."""

    def __init__(
        self,
        folder: Path,
        say: Callable[[str], None] | None = None,
        pace: Pace | None = None,
        wait: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = passed,
    ) -> None:
        self.folder = folder
        self.by_silence = False
        """Whether a claim was found dead by its silence alone: whoever made it may yet wake up."""
        self._say = say or (lambda _: None)
        self._pace = pace or PACE
        self._wait = wait
        self._clock = clock
        self._path: Path | None = None
        self._record = b""
        self._beats = 0
        self._beaten = 0.0  # when the last beat was begun that reached the file
        self._lost: str | None = None  # why
        self._at_it = threading.Lock()
        self._released = threading.Event()

    def acquire(self) -> None:
        """Take the folder. Raises Taken, naming the holder, if it is alive; OSError."""
        while not self._claim(self._dead()):
            self._wait(random.uniform(0, _CROWDED_SECONDS))
        threading.Thread(target=self._beat_on, name="lock", daemon=True).start()

    def look(self) -> None:
        """Raise LockLost if the folder is another's by now. The file is read only if a beat is overdue."""
        if not self._lost and self._clock() - self._beaten > 2 * self._pace.beat:
            self._beat()
        if self._lost:
            raise LockLost(
                f"{self.folder}: {self._lost}; stopped here, and what was committed before is kept"
            )

    @property
    def is_lost(self) -> bool:
        """Whether `look` would raise."""
        try:
            self.look()
        except LockLost:
            return True
        return False

    def release(self) -> None:
        """Give the folder back, if it is still ours."""
        self._released.set()
        with self._at_it:
            if self._path and self._own():
                with suppress(OSError):
                    self._path.unlink()
            self._path = None

    def _dead(self) -> dict[str, bytes]:
        """All claims, found dead: name -> record. Taken if one is not."""
        self.by_silence = False
        while True:
            claims = _claims(self.folder)
            if all(self._is_dead(name, content) for name, content in claims.items()):
                return {name: _record(content) for name, content in claims.items()}

    def _is_dead(self, name: str, content: bytes) -> bool:
        """Whether a claim is; False if it is gone meanwhile, or another. Taken if its holder lives."""
        holder = Holder.parse(_record(content))
        if holder and holder.is_here:
            if holder.is_alive:
                raise Taken(str(holder))
            return True
        if not holder:  # perhaps only about to be written
            self._wait(_CROWDED_SECONDS)
            if _read(self.folder / name) != content:
                return False
        whose = str(holder or "another process")
        self._say(
            f"{self.folder} is, or was, in the hands of {whose}; looking for a sign of life, for up to "
            f"{self._pace.quiet:g} seconds"
        )
        # Looks are counted, and not the time: a file server that hangs keeps the holder from beating, too.
        for _ in range(math.ceil(self._pace.quiet / self._pace.poll)):
            self._wait(self._pace.poll)
            now = _read(self.folder / name)
            if now == content:
                continue
            if now is None or not holder or _record(now) != _record(content):
                return False
            if holder.job and holder.job == slurm_job() and _is_requeued():
                return False  # this job's last start, on a node that SLURM has lost: it will be ended
            raise Taken(whose)
        self.by_silence = True
        return True

    def _claim(self, dead: dict[str, bytes]) -> bool:
        """Make a claim over the dead ones; False if another process was faster."""
        number = 1 + max((_number(name) for name in dead), default=0)
        path = self.folder / f".lock.{number}"
        begun = self._clock()
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return False
        record, ours = Holder.this_process().record, False
        try:
            with os.fdopen(file, "wb") as claim:
                claim.write(record + _beat(0))
                claim.flush()
                os.fsync(claim.fileno())
            others = {name: _record(content) for name, content in _claims(self.folder).items()}
            if others.pop(path.name, None) == record and others.items() <= dead.items():
                for name in others:
                    (self.folder / name).unlink(missing_ok=True)
                self._path, self._record, self._beaten = path, record, begun
                ours = True
            return ours
        finally:
            if not ours:
                with suppress(OSError):  # slow as we are, it may be another's by now
                    if (record + _beat(0)).startswith(path.read_bytes()):
                        path.unlink()

    def _beat_on(self) -> None:
        while not self._lost and not self._released.wait(self._pace.beat):
            self._beat()

    def _beat(self) -> None:
        """Write the next beat, if the claim is still there and ours."""
        with self._at_it:
            if self._path is None:
                return
            begun = self._clock()
            try:
                # Anew each time: on opening a file server is asked whether the file is still there, and on
                # closing it says whether it has taken what was written.
                with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CLOEXEC), "r+b", buffering=0) as claim:
                    kept = os.pread(claim.fileno(), len(self._record), 0) == self._record
                    if kept:
                        self._beats += 1
                        os.pwrite(claim.fileno(), _beat(self._beats), len(self._record))
            except OSError as error:
                kept = False
                if error.errno not in _GONE:
                    if begun - self._beaten > self._pace.quiet - self._pace.beat:
                        self._lost = f"its lock cannot be kept ({error.strerror}), so that others may take it"
                    return
            if kept:
                self._beaten = begun
            else:
                self._lost = f"its lock is gone, {self._successor()}"

    def _own(self) -> bool:
        content = _read(self._path) if self._path else None
        return content is not None and _record(content) == self._record

    def _successor(self) -> str:
        """Who has the folder now, as the end of a sentence."""
        with suppress(OSError):
            for content in reversed(_claims(self.folder).values()):
                if holder := Holder.parse(_record(content)):
                    return f"taken over by {holder}, because this process gave no sign of life"
        return "removed by somebody, or taken over and given back meanwhile"


def is_claim(name: str) -> bool:
    """Whether a file of that name belongs to a lock on its folder."""
    return _CLAIM.fullmatch(name) is not None


def held_by(folder: Path) -> str | None:
    """Who seems to hold a folder; None if nobody. To be shown: nothing is waited for, and nothing written.

    A claim of another machine counts while its last beat is recent by this machine's clock. OSError if the
    folder cannot be read.
    """
    for name, content in _claims(folder).items():
        holder = Holder.parse(_record(content))
        if holder and holder.is_here:
            if holder.is_alive:
                return str(holder)
            continue
        with suppress(FileNotFoundError):
            if time.time() - (folder / name).stat().st_mtime < PACE.quiet:
                return str(holder or "another process")
    return None


def _claims(folder: Path) -> dict[str, bytes]:
    """The claims on a folder, name -> content, by number; those that vanish meanwhile are left out."""
    names = sorted((path.name for path in folder.iterdir() if is_claim(path.name)), key=_number)
    read = {name: _read(folder / name) for name in names}
    return {name: content for name, content in read.items() if content is not None}


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


def _is_requeued() -> bool:
    """Whether SLURM has started this job before."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")


def _number(name: str) -> int:
    return int(name.rpartition(".")[2])


def _record(content: bytes) -> bytes:
    return content.partition(b"\n")[0]


def _beat(number: int) -> bytes:
    """What follows the record: as long for every number, so that a beat takes no room on a full disk."""
    return b"\n%012d\n" % number
