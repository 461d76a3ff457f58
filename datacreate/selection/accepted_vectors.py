"""The embeddings of the accepted examples, kept in a file of the run directory.

The file holds rows of float16 and nothing else. It is a cache of the log: after its deletion it is computed again.
Decisions use the rounded values, so that a resumed run decides alike.
"""

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

Float16Rows = NDArray[np.float16]


def to_float16(rows: NDArray[Any]) -> Float16Rows:
    """Rows as the file stores them."""
    return np.asarray(rows, dtype="<f2")


def to_float64(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Rows rounded to float16, as float64: their dot products are exact, in any order of summation.

    Entries of a unit vector in float16 are multiples of 2^-24, so the products are multiples of 2^-48 up to about 1,
    and float64 represents every partial sum.
    """
    return to_float16(rows).astype(np.float64)


class VectorFile:
    """Rows of float16, in a memory-mapped file or in memory."""

    def __init__(self, dimensions: int, path: Path | None = None, max_rows: int | None = None) -> None:
        """Open or create `path`, and cut off an incomplete row and rows after the first `max_rows`.

        After a power failure the file may hold fewer rows than expected; the caller appends the missing ones. Raises
        StorageError if the file cannot be written.
        """
        self.dimensions = dimensions
        self._row_bytes = 2 * dimensions
        self._rows: Float16Rows = np.zeros((0, dimensions), "<f2")  # memory-mapped, or with spare capacity
        self._path, self._file, self._length = path, -1, 0
        if path is not None:
            try:
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
                rows = os.fstat(self._file).st_size // self._row_bytes
                self._length = rows if max_rows is None else min(rows, max_rows)
                self._truncate()
                self._length -= self._trailing_zero_rows()
                self._truncate()
            except OSError as error:
                self.close()
                raise storage_error(path, error) from None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, row: int) -> Float16Rows:
        """Row `row`, (dimensions,)."""
        vector: Float16Rows = self.all()[row]
        return vector

    def all(self) -> Float16Rows:
        """All rows, (n, dimensions), without rows appended later."""
        if self._path is not None and len(self._rows) < self._length:
            self._rows = np.memmap(self._path, "<f2", "r", shape=(self._length, self.dimensions))
        return self._rows[: self._length]

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows, (n, dimensions), rounded. Raises StorageError, and appends none, if the disk is full."""
        new = to_float16(rows).reshape(-1, self.dimensions)
        if self._path is not None:
            self._write(self._path, new.tobytes())
        else:
            if self._length + len(new) > len(self._rows):
                spare = np.zeros((max(1024, len(self._rows) // 2, len(new)), self.dimensions), "<f2")
                self._rows = np.concatenate([self._rows[: self._length], spare])
            self._rows[self._length : self._length + len(new)] = new
        self._length += len(new)

    def _write(self, path: Path, content: bytes) -> None:
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._truncate()
            raise storage_error(path, error) from None

    def _truncate(self) -> None:
        os.ftruncate(self._file, self._length * self._row_bytes)

    def _trailing_zero_rows(self) -> int:
        """The number of zero rows at the end: some file systems leave them after a power failure."""
        rows = self.all()
        number = 0
        while number < len(rows) and not rows[-1 - number].any():
            number += 1
        self._rows = np.zeros((0, self.dimensions), "<f2")  # unmap before truncating
        return number

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class AcceptedVectors:
    """The vectors of the accepted examples, numbered from 0 in order of acceptance.

    `path`: the file, or None for memory; at most `max_rows` of its examples are used. The first row is the vector of
    `root`, the text of the formatting example: computed on another machine it could round differently.
    """

    def __init__(
        self, embedder: Embedder, path: Path | None = None, max_rows: int | None = None, root: str = ""
    ) -> None:
        self.embedder = embedder
        self._path = path
        self._max_rows = max_rows
        self._root = root

    @cached_property
    def _file(self) -> VectorFile:
        max_rows = None if self._max_rows is None else 1 + self._max_rows
        file = VectorFile(self.embedder.dimensions, self._path, max_rows)
        if not len(file):
            file.append(to_float16(self.embedder.encode([self._root])))
        return file

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        return self._file.dimensions

    @property
    def root(self) -> Float16Rows:
        """The vector of the formatting example, (dimensions,)."""
        return self._file[0]

    def __getitem__(self, row: int) -> Float16Rows:
        return self._file[1 + row]

    def between(self, begin: int, end: int) -> Float16Rows:
        """The vectors from number `begin` to before `end`, (end - begin, dimensions)."""
        return self._file.all()[1 + begin : 1 + end]

    def ensure(self, row: int, text: str) -> None:
        """Embed `text` as vector number `row`, unless it is there already. Raises StorageError."""
        if 1 + row == len(self._file):
            self._file.append(to_float16(self.embedder.encode([text])))
