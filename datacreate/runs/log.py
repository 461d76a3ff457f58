"""The run's log: a line per session and a line per committed request. It is the truth.

Appended and flushed at every commit, synced to the disk at least every second. A torn last
line (a kill in the middle of a write) is cut off when the log is opened again; damage before
it is an error that names the line.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from datacreate.errors import LogDamaged, StorageError
from datacreate.tasks.example import Json
from datacreate.tasks.validate import Reason, Reject

_SYNC_SECONDS = 1.0


@dataclass(frozen=True)
class Commit:
    """What came of one request."""

    request: int
    parent: str  # id of the parent example
    depth: int  # of the parent; the root has 0
    attempt: int
    accepted: tuple[dict[str, Json], ...]
    chosen: tuple[int, ...]  # indices into `accepted`: the next parents, in order
    rejects: tuple[Reject, ...]
    prompt_tokens: int
    generated_tokens: int
    at: float  # seconds since the epoch

    def line(self) -> str:
        record = {
            "request": self.request,
            "parent": self.parent,
            "depth": self.depth,
            "attempt": self.attempt,
            "accepted": self.accepted,
            "chosen": self.chosen,
            "rejects": [[reject.reason, reject.text] for reject in self.rejects],
            "tokens": [self.prompt_tokens, self.generated_tokens],
            "at": round(self.at, 3),
        }
        return json.dumps(record, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def parse(cls, record: dict[str, Any]) -> Commit:
        return cls(
            record["request"],
            record["parent"],
            record["depth"],
            record["attempt"],
            tuple(record["accepted"]),
            tuple(record["chosen"]),
            tuple(Reject(Reason(reason), text) for reason, text in record["rejects"]),
            record["tokens"][0],
            record["tokens"][1],
            record["at"],
        )


@dataclass(frozen=True)
class Session:
    """A process that worked on the run: when it began, where, with which versions."""

    began: float  # seconds since the epoch
    where: dict[str, str]

    def line(self) -> str:
        return json.dumps({"session": self.where, "began": round(self.began, 3)}, ensure_ascii=False)


def read_log(path: Path) -> Iterator[Session | Commit]:
    """The log's records in order; a torn last line is left out.

    Raises LogDamaged, naming the line, if any line before the last is not a record or the
    requests are not numbered one after the other.
    """
    expected = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            record = _parse(line, path, number)
            if isinstance(record, Commit):
                if record.request != expected:
                    raise LogDamaged(
                        f"{path}, line {number}: request {record.request} where {expected} should be; "
                        "restore the file from a copy, or start again in another --run-dir"
                    )
                expected += 1
            yield record


def _parse(line: bytes, path: Path, number: int) -> Session | Commit:
    try:
        record = json.loads(line)
        if "session" in record:
            return Session(record["began"], record["session"])
        return Commit.parse(record)
    except (ValueError, KeyError, TypeError):
        raise LogDamaged(
            f"{path}, line {number}: not a record of a run; restore the file from a copy, cut it off before "
            "that line, or start again in another --run-dir"
        ) from None


class Appender:
    """A file that only grows. Opening it cuts off a torn last line.

    Raises StorageError where the disk is full or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._synced = time.monotonic()
        try:
            _cut_torn_line(path)
            self._file: IO[bytes] = path.open("ab")
        except OSError as error:
            raise storage_error(path, error) from None

    def append(self, line: str) -> None:
        try:
            self._file.write(line.encode("utf-8") + b"\n")
            self._file.flush()
            now = time.monotonic()
            if now - self._synced > _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = now
        except OSError as error:
            raise storage_error(self._path, error) from None

    def close(self) -> None:
        """Sync and close. What a full disk did not take is cut off at the next opening."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise storage_error(self._path, error) from None
        finally:
            # After a failed flush the buffer still holds the line that did not fit; closing
            # would try once more and fail again, so the raw file is closed instead.
            self._file.raw.close() if hasattr(self._file, "raw") else self._file.close()


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end != size:
            file.truncate(end)


def storage_error(path: Path, error: OSError) -> StorageError:
    """The one-line error for a file that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"{path}: the disk is full; what was committed is kept: free space and run again")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StorageError(f"{path}: cannot be written ({error.strerror}); choose another --run-dir")
    return StorageError(f"{path}: {error.strerror or error}; mend it and run again")
