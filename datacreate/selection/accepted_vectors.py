"""What is accepted, as vectors: each text embedded once, whoever asks, and found again on resume."""

from __future__ import annotations

import contextlib
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datacreate.files import storage_error
from datacreate.selection.embeddings import Embedder


class AcceptedVectors:
    """The vectors of the accepted examples, by their number from 0 in the order of acceptance.

    With a `path` they are kept there; of what it holds no more than `most` are believed. The vector of
    `root`, the formatting example's text, leads the file: another machine would round it otherwise, and
    what was decided by it has to stay decided.
    """

    def __init__(
        self, embedder: Embedder, path: Path | None = None, most: int | None = None, root: str = ""
    ) -> None:
        self.embedder = embedder
        self._path = path
        self._most = most
        self._root = root

    @cached_property
    def _rows(self) -> Vectors:
        """The root's and theirs; StorageError if their file cannot be written."""
        rows = Vectors(self.embedder.dimensions, self._path, None if self._most is None else 1 + self._most)
        if not len(rows):
            rows.append(rounded(self.embedder.encode([self._root])))
        return rows

    @property
    def dimensions(self) -> int:
        """How long a vector is."""
        return self._rows.dimensions

    @property
    def root(self) -> Half:
        """The formatting example's vector, (dimensions,)."""
        return self._rows[0]

    def __getitem__(self, row: int) -> Half:
        return self._rows[1 + row]

    def between(self, begin: int, end: int) -> Half:
        """The vectors from number `begin` to before `end`, (end - begin, dimensions)."""
        return self._rows.all()[1 + begin : 1 + end]

    def put(self, row: int, text: str) -> None:
        """See to it that the row is there, known already or the next one."""
        if 1 + row == len(self._rows):
            self._rows.append(rounded(self.embedder.encode([text])))


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
