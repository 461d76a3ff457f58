"""A lock on a folder: one writer, also across the nodes of a shared file system.

On one machine `flock` on the folder decides; the kernel frees it when the process ends. Nodes may not see each other's
flock, so the holder also writes a record, `.lock`, and touches it as a heartbeat. A record of another machine is
replaced only after many reads without a heartbeat. The new holder then waits once more, longer than the old one works
without reading the record, so that an old one that was suspended stops before it writes.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from datacreate.errors import LockLost, RunLocked
from datacreate.files import atomic_replacement, open_regular, remove_temporary, storage_error
from datacreate.hardware import slurm_job
from datacreate.messages import Notify, no_notify
from datacreate.signals import deferred

LOCK_FILE = ".lock"
HEARTBEAT_SECONDS = 10.0  # between heartbeats; a holder reads its record at least every second heartbeat
TAKEOVER_WAIT_SECONDS = 25.0  # between replacing a foreign record and holding the lock: more than two heartbeats
HEARTBEAT_TIMEOUT_SECONDS = 60  # reads without a heartbeat, one a second: a slow file server also delays the holder
_BOOT = Path("/proc/sys/kernel/random/boot_id")  # containers of one machine share it, and flock
_NODE = ascii(os.uname().nodename)[1:-1]  # of any letters, and nodes may have different locales
MACHINE = _BOOT.read_text(encoding="ascii").strip() if _BOOT.exists() else _NODE
sleep, clock = time.sleep, partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@contextmanager
def locked(folder: Path, notify: Notify = no_notify, *, output: Path | None = None) -> Iterator[FolderLock]:
    """Hold a folder for writing, and remove what killed processes left there.

    It is created if needed, and removed if nothing is written to it. A folder for temporary files of an `output` is
    always removed, and messages name the output. Call `check` of the lock before each write. `notify` gets a line
    before a wait for another machine. Raises RunLocked, naming the holder, if another process has it; StorageError.
    """
    lock = FolderLock(folder, notify, output)
    try:
        lock.acquire()
        remove_temporary(folder)
        yield lock
    finally:
        lock.release()


@contextmanager
def exclusive_replacement(path: Path, notify: Notify = no_notify) -> Iterator[Path]:
    """Replace a file or folder as `files.atomic_replacement` does, and refuse a second process that does the same.

    The new one is written in a locked folder beside it, `.NAME.part`. Raises RunLocked, LockLost, StorageError.
    """
    folder = path.with_name(f".{path.name}.part")
    with locked(folder, notify, output=path) as lock, atomic_replacement(path, folder) as part:
        yield part
        lock.check()


class FolderLock:
    """The lock of `locked`, with its arguments. Lines of its record: the holder, its machine, a random number."""

    def __init__(self, folder: Path, notify: Notify, output: Path | None) -> None:
        self.taken_over = False  # the last holder may still run, and finish a write that it has begun
        self._folder, self._notify, self._output = folder, notify, output
        self._path = folder / LOCK_FILE
        self._name = output or folder  # for messages
        self._files = ExitStack()
        self._created: list[Path] = []
        self._checked, self._lost = 0.0, ""  # when the record was last ours; why it is ours no more
        self._released = threading.Event()
        self._job = f" (SLURM job {slurm_job()})" if slurm_job() else ""
        since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        self._record = f"process {os.getpid()} on {_NODE}{self._job}, since {since}\n{MACHINE}\n{os.urandom(8).hex()}\n"

    def acquire(self) -> None:
        """Take the folder; `release` must follow, also after an error. Raises the errors of `locked`."""
        try:
            while not (self._take_flock() and self._write_record()):
                self._files.close()
        except BlockingIOError:
            holder = _holder(_read(self._path)[0])
            raise RunLocked(f"{self._name} is locked by {holder}; wait until it has finished") from None
        except OSError as error:
            raise storage_error(self._name, error) from None
        threading.Thread(target=self._send_heartbeats, name="lock", daemon=True).start()

    def check(self) -> None:
        """Raise LockLost if another process has taken over. Reads the record only if a heartbeat is overdue."""
        if not self._lost and clock() - self._checked > 2 * HEARTBEAT_SECONDS:
            self._send_heartbeat()
        if self._lost:
            raise LockLost(f"{self._name} lost its lock: {self._lost}; stopped; everything committed before is kept")

    def release(self) -> None:
        """Free the folder, if this process still holds it, and remove what `acquire` created, if it is empty."""
        with deferred():
            self._released.set()
            with suppress(OSError):
                if _read(self._path)[0] == self._record:
                    self._path.unlink()
            # While it is held: nobody can hold a folder that does not exist any more.
            with suppress(OSError):  # the first that is not empty
                for folder in self._created or ([self._folder] if self._output else []):
                    folder.rmdir()
            self._files.close()

    def _take_flock(self) -> bool:
        """Create and flock the folder. False if its last holder removed it meanwhile, BlockingIOError if it is held."""
        self._created += [path for path in (self._folder, *self._folder.parents) if not path.exists()]
        self._folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            file = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
            self._files.callback(os.close, file)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(file), self._folder.stat())
        return False

    def _write_record(self) -> bool:
        """Write our record. False if another machine was faster, BlockingIOError if it sends heartbeats."""
        began, (record, heartbeat) = clock(), _read(self._path)
        self.taken_over = bool(record) and f"\n{MACHINE}\n" not in record
        if self.taken_over and not self._is_expired(record, heartbeat):
            return False
        try:
            flags = os.O_WRONLY | (os.O_TRUNC if record else os.O_CREAT | os.O_EXCL)
            with deferred(), os.fdopen(open_regular(self._path, flags), "w", encoding="ascii") as file:
                file.write(self._record)
        except (FileExistsError, FileNotFoundError):  # another machine has made or removed it, or the folder
            return False
        except BaseException:  # such as a full disk: an empty file would look like a lock
            self._path.unlink(missing_ok=True)
            raise
        if self.taken_over or clock() - began > TAKEOVER_WAIT_SECONDS / 2:
            sleep(TAKEOVER_WAIT_SECONDS)
        self._checked = clock()
        return _read(self._path)[0] == self._record

    def _is_expired(self, record: str, heartbeat: int) -> bool:
        """Whether a foreign record gets no heartbeat. False if it changes, BlockingIOError if it gets a heartbeat."""
        self._notify(f"waiting up to a minute for a heartbeat: {self._name} is locked by {_holder(record)}")
        # Our last start, on a node that SLURM lost, ends soon.
        is_restarted = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
        ends_soon = is_restarted and bool(self._job) and self._job in record
        for _ in range(HEARTBEAT_TIMEOUT_SECONDS):
            sleep(1)
            if (new := _read(self._path)) != (record, heartbeat):
                if new[0] == record and not ends_soon:
                    raise BlockingIOError  # as flock does
                return False
        return True

    def _send_heartbeats(self) -> None:
        while not self._lost and not self._released.wait(HEARTBEAT_SECONDS):
            self._send_heartbeat()

    def _send_heartbeat(self) -> None:
        """Touch the record, if it is still ours."""
        began = clock()
        try:
            if (record := _read(self._path)[0]) == self._record:
                os.utime(self._path)
                self._checked = began
            else:
                self._lost = f"taken over by {_holder(record)}" if record else "the lock file is gone"
        except OSError as error:
            if began - self._checked > HEARTBEAT_TIMEOUT_SECONDS - HEARTBEAT_SECONDS:
                self._lost = f"it cannot be renewed ({error.strerror})"


def is_held(folder: Path) -> bool:
    """Whether the holder of a folder has sent a heartbeat in the last minute; for display only. OSError."""
    return time.time() - (folder / LOCK_FILE).stat().st_mtime < HEARTBEAT_TIMEOUT_SECONDS


def _read(path: Path) -> tuple[str, int]:
    """A record, and the time of its last heartbeat in ns; ("", 0) without a file. OSError."""
    try:  # opening asks a file server for the current state
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            record = file.read().decode("utf-8", "replace") or "\n"  # an empty file is a lock, too
            return record, os.fstat(file.fileno()).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return "", 0


def _holder(record: str) -> str:
    is_complete = record.count("\n") == 3
    return record.partition("\n")[0] if is_complete else "another process"
