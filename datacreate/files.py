"""Writes files atomically, and makes the error for a path or disk that cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from datacreate.errors import StorageError, UnwritablePath

_IMPOSSIBLE = (
    errno.EACCES, errno.EEXIST, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT,
    errno.ENOTDIR, errno.ENXIO, errno.EPERM,
)  # fmt: skip


def replace_file(path: Path, text: str) -> None:
    """Write a file atomically. Raises StorageError."""
    part = path.with_name(path.name + ".part")
    try:
        write_synced(part, text.encode("utf-8"))
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise storage_error(path, error) from None


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and sync it to the disk. Raises OSError."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def storage_error(path: Path, error: OSError) -> StorageError:
    """The one-line error for a file or folder that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(f"{path}: the disk is full; free space and run the same command to resume")
    if error.errno in _IMPOSSIBLE:
        return UnwritablePath(f"{path}: cannot be written ({error.strerror}); choose another path")
    return StorageError(f"{path}: {error.strerror or error}; fix this and run the same command to resume")
