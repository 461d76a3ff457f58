"""A lock on a directory: one writer, also across the nodes of a shared file system.

On one machine `flock` on the directory decides; the kernel frees it when the process ends. Nodes may not see
each other's flock, so the holder also keeps a record in `.lock`, and touches it as a heartbeat. A foreign
record is replaced only after many reads without a heartbeat. The new holder then waits once more, longer than
the old one works without reading the record, so that an old one that was suspended stops before it writes.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from datacreate.errors import LockLost, RunLocked
from datacreate.files import atomic_replacement, open_regular, remove_empty, remove_temporary, storage_error
from datacreate.hardware import slurm_job
from datacreate.messages import Notify, no_notify
from datacreate.signals import deferred

LOCK_FILE = ".lock"
BEAT_SECONDS = 10.0  # between heartbeats; a holder reads its record at least every second heartbeat
SETTLE_SECONDS = 25.0  # between replacing a foreign record and holding the lock: more than two heartbeats
SILENCE_SECONDS = 60  # reads without a heartbeat, one a second: a slow file server also delays the holder
_BOOT = Path("/proc/sys/kernel/random/boot_id")  # containers of one machine share it, and flock
MACHINE = _BOOT.read_text(encoding="ascii").strip() if _BOOT.exists() else os.uname().nodename
sleep, clock = time.sleep, partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@contextmanager
def locked(folder: Path, notify: Notify = no_notify, *, of: Path | None = None) -> Iterator[FolderLock]:
    """Hold a folder for writing, and remove what killed processes left there.

    It is created if needed, and removed if nothing is written to it. Call `check` of the lock before each write.
    `notify` gets a line before a wait for another machine. Raises RunLocked, naming the holder, if another process has
    it; StorageError. A folder `of` temporary files of a path is removed in any case, and messages name that path.
    """
    lock = FolderLock(folder, notify, of)
    try:
        lock.acquire()
        remove_temporary(folder)
        yield lock
    finally:
        lock.release()


@contextmanager
def exclusive_replacement(path: Path, notify: Notify = no_notify) -> Iterator[Path]:
    """As `files.atomic_replacement`, in a folder that is not locked: a second process that writes `path` is refused.

    The new file or folder is in a locked folder, `.NAME.part`, from which the next process removes what a killed one
    left. Raises RunLocked, LockLost, StorageError.
    """
    folder = path.with_name(f".{path.name}.part")
    with locked(folder, notify, of=path) as lock, atomic_replacement(path, folder) as part:
        yield part
        lock.check()


class FolderLock:
    """The lock of `locked`, with its arguments."""

    def __init__(self, folder: Path, notify: Notify = no_notify, of: Path | None = None) -> None:
        self.folder, self._path, self._notify, self._of = folder, folder / LOCK_FILE, notify, of
        self._name = of or folder  # for messages
        self.after_silence = False  # the last holder may still run, and finish a write that it has begun
        self._flock, self._created = -1, list[Path]()
        self._checked, self._lost, self._released = 0.0, "", threading.Event()
        job, token = slurm_job(), os.urandom(8).hex()
        holder = f"process {os.getpid()} on {os.uname().nodename}" + (f" (SLURM job {job})" if job else "")
        holder += time.strftime(", since %Y-%m-%d %H:%M UTC", time.gmtime())
        self._record = {"name": holder, "machine": MACHINE, "job": job, "token": token}

    def acquire(self) -> None:
        """Take the folder; `release` must follow, also after an error. Raises as `locked`."""
        try:
            self._take()
        except BlockingIOError:
            name = _read(self._path)[0].get("name", "another process")
            raise RunLocked(f"{self._name} is locked by {name}; wait until it has finished") from None
        except OSError as error:
            raise storage_error(self._name, error) from None
        threading.Thread(target=self._keep_beating, name="lock", daemon=True).start()

    def _take(self) -> None:
        while self._flock == -1:
            self._created += [path for path in (self.folder, *self.folder.parents) if not path.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # the last holder has just removed the folder
                self._flock = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
                fcntl.flock(self._flock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self._flock), self.folder.stat()):
                    while not self._claim():
                        pass
                    return
            self._close()

    @property
    def is_lost(self) -> bool:
        """Whether another process has taken over. Reads the record only if a heartbeat is overdue."""
        if not self._lost and clock() - self._checked > 2 * BEAT_SECONDS:
            self._beat()
        return bool(self._lost)

    def check(self) -> None:
        """Raise LockLost if another process has taken over; called before each write."""
        if self.is_lost:
            raise LockLost(f"{self._name}: {self._lost}; stopped, and everything committed before is kept")

    def release(self) -> None:
        """Free the folder, if this process still holds it, and remove what `acquire` created, if it is empty."""
        with deferred():
            self._released.set()
            with suppress(OSError):
                if _read(self._path)[0] == self._record:
                    self._path.unlink()
            # While it is held: nobody can hold a folder that does not exist any more.
            remove_empty(self._created or ([self.folder] if self._of else []))
            self._close()

    def _close(self) -> None:
        if self._flock != -1:
            os.close(self._flock)
        self._flock = -1

    def _claim(self) -> bool:
        """Write our record; False if another machine was faster."""
        began, (found, beat) = clock(), _read(self._path)
        self.after_silence = bool(found) and found.get("machine") != MACHINE
        if self.after_silence and not self._is_silent(found, beat):
            return False
        try:
            new = os.O_TRUNC if found else os.O_CREAT | os.O_EXCL
            with deferred(), os.fdopen(open_regular(self._path, os.O_WRONLY | new), "w") as file:
                json.dump(self._record, file)
        except FileExistsError:
            return False
        except OSError:  # the disk is full: an empty file would look like a lock
            self._path.unlink(missing_ok=True)
            raise
        if self.after_silence or clock() - began > SETTLE_SECONDS / 2:
            sleep(SETTLE_SECONDS)
        self._checked = clock()
        return _read(self._path)[0] == self._record

    def _is_silent(self, record: dict[str, Any], beat: int) -> bool:
        """Whether a foreign record gets no heartbeat; False if it changes. BlockingIOError if it gets one."""
        self._notify(f"waiting up to a minute for a heartbeat: {self._name} is locked by {record['name']}")
        requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
        ends_soon = requeued and record.get("job") == slurm_job()  # our last start, on a node that SLURM lost
        for _ in range(SILENCE_SECONDS):
            sleep(1)
            found, now = _read(self._path)
            if found != record or (now != beat and ends_soon):
                return False
            if now != beat:
                raise BlockingIOError  # as from flock
        return True

    def _keep_beating(self) -> None:
        while not self._lost and not self._released.wait(BEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        """Touch the record, if it is still ours."""
        began = clock()
        try:
            if (found := _read(self._path)[0]) == self._record:
                os.utime(self._path)
                self._checked = began
            else:
                self._lost = f"taken over by {found['name']}" if found else "its lock file is gone"
        except OSError as error:
            if began - self._checked > SILENCE_SECONDS - BEAT_SECONDS:
                self._lost = f"its lock cannot be renewed ({error.strerror})"


def is_held(folder: Path) -> bool:
    """Whether the holder of a directory has sent a heartbeat in the last minute; for display only. OSError."""
    return time.time() - (folder / LOCK_FILE).stat().st_mtime < SILENCE_SECONDS


def _read(path: Path) -> tuple[dict[str, Any], int]:
    """The record and the time of its last heartbeat in ns; ({}, 0) without a file. OSError.

    Of an incomplete or damaged record only a name.
    """
    try:  # opening asks a file server for the current state
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            content, beat = file.read(), os.fstat(file.fileno()).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return {}, 0
    with suppress(ValueError, RecursionError):
        record = json.loads(content)
        if isinstance(record, dict) and isinstance(record.get("name"), str):
            return record, beat
    return {"name": "another process"}, beat
