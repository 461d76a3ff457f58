"""The vectors of the accepted examples, in the order in which they were accepted.

A file of a run directory: rows of float16 end to end, nothing else. It is derived from the log and
may be deleted; then it is made again. Vectors are rounded before anything is decided by them, so
that what is decided after a resume is what would have been decided without.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datacreate.files import storage_error

Half = NDArray[np.float16]


def rounded(rows: NDArray[Any]) -> Half:
    """As the file keeps them."""
    return np.asarray(rows, dtype="<f2")


def exact(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Rounded rows for reckoning with, in whatever order, on whatever machine.

    Entries of unit vectors in float16 are multiples of 2^-24, so that their dot products are
    multiples of 2^-48 of about 1 at most: float64 holds each partial sum without an error.
    """
    return rounded(rows).astype(np.float64)


class Vectors:
    """Rows of float16, in a memory-mapped file or, without one, in memory."""

    def __init__(self, dimensions: int, path: Path | None = None, most: int | None = None) -> None:
        """Open or begin `path`; a torn row is cut off, and so is all beyond the first `most` rows.

        The file may hold fewer rows than were accepted, after a power cut say: whoever opens it
        appends those that are missing. Raises StorageError if it cannot be written.
        """
        self.dimensions = dimensions
        self._row_bytes = 2 * dimensions
        self._rows: Half = np.zeros((0, dimensions), "<f2")  # mapped, or with room to grow
        self._path, self._file, self._length = path, -1, 0
        if path is not None:
            try:
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
                held = os.fstat(self._file).st_size // self._row_bytes
                self._length = held if most is None else min(held, most)
                self._cut()
                self._length -= self._unwritten()
                self._cut()
            except OSError as error:
                self.close()
                raise storage_error(path, error) from None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, row: int) -> Half:
        """Row `row`, from 0, (dimensions,)."""
        found: Half = self.all()[row]
        return found

    def all(self) -> Half:
        """All rows, (n, dimensions); what is appended afterwards is not among them."""
        if self._path is not None and len(self._rows) < self._length:
            self._rows = np.memmap(self._path, "<f2", "r", shape=(self._length, self.dimensions))
        return self._rows[: self._length]

    def append(self, rows: NDArray[Any]) -> None:
        """Take in rows, (n, dimensions), rounded; StorageError, and none of them, if the disk is full."""
        new = rounded(rows).reshape(-1, self.dimensions)
        if self._path is None:
            if self._length + len(new) > len(self._rows):
                room = np.zeros((max(1024, len(self._rows) // 2, len(new)), self.dimensions), "<f2")
                self._rows = np.concatenate([self._rows[: self._length], room])
            self._rows[self._length : self._length + len(new)] = new
        else:
            self._write(self._path, new.tobytes())
        self._length += len(new)

    def _write(self, path: Path, rows: bytes) -> None:
        rest = memoryview(rows)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._cut()
            raise storage_error(path, error) from None

    def _cut(self) -> None:
        os.ftruncate(self._file, self._length * self._row_bytes)

    def _unwritten(self) -> int:
        """Rows of zeros at the end: what some file systems leave of the last second before a power cut."""
        rows = self.all()
        number = 0
        while number < len(rows) and not rows[-1 - number].any():
            number += 1
        self._rows = np.zeros((0, self.dimensions), "<f2")  # not mapped while it is cut
        return number

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
