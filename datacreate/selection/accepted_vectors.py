"""The embeddings of the examples that passed the filters, kept in a file of the run directory.

The file holds rows of float16 and nothing else. It is a cache of the log: after its deletion it is computed again.
Decisions use the rounded values, so that a resumed run decides alike.
"""

from __future__ import annotations

import contextlib
import os
from functools import cached_property
from io import BytesIO
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
    """Rows of float16, in a file or in memory."""

    def __init__(self, dimensions: int, path: Path | None = None, max_rows: int | None = None) -> None:
        """Open or create `path`, and cut off an incomplete row and rows after the first `max_rows`.

        After a power failure the file may hold fewer rows than expected, and some file systems leave rows of zeros,
        which are cut off; the caller appends the missing rows. Raises StorageError if the file cannot be written.
        """
        self.dimensions = dimensions
        self._path = path
        self._row_bytes = 2 * dimensions
        try:
            self._file = path.open("a+b", buffering=0) if path else BytesIO()
            rows = self._file.seek(0, os.SEEK_END) // self._row_bytes
            self._length = rows if max_rows is None else min(rows, max_rows)
            while self._length and not self[self._length - 1].any():
                self._length -= 1
            self._file.truncate(self._length * self._row_bytes)
        except OSError as error:
            raise storage_error(path or Path(), error) from None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, row: int) -> Float16Rows:
        """Row `row`, (dimensions,)."""
        vector: Float16Rows = self.between(row, row + 1)[0]
        return vector

    def between(self, begin: int, end: int) -> Float16Rows:
        """The rows from `begin` to before `end`, (end - begin, dimensions)."""
        self._file.seek(begin * self._row_bytes)
        content = self._file.read((end - begin) * self._row_bytes)
        return np.frombuffer(content, "<f2").reshape(-1, self.dimensions)

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows, (n, dimensions), rounded. Raises StorageError, and appends none, if the disk is full."""
        content = to_float16(rows).reshape(-1, self.dimensions).tobytes()
        size, written = self._length * self._row_bytes, 0
        self._file.seek(size)
        try:
            while written < len(content):
                written += self._file.write(content[written:]) or 0
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(size)
            raise storage_error(self._path or Path(), error) from None
        self._length += written // self._row_bytes


class AcceptedVectors:
    """The vectors of the examples that passed the filters, numbered from 0 in order: also of those that are held or
    dropped later.

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

    def of_parent(self, number: int) -> Float16Rows:
        """The vector of the parent with this number (see `Parent`), (dimensions,)."""
        return self._file[number]

    def __getitem__(self, row: int) -> Float16Rows:
        return self._file[1 + row]

    def between(self, begin: int, end: int) -> Float16Rows:
        """The vectors from number `begin` to before `end`, (end - begin, dimensions)."""
        return self._file.between(1 + begin, 1 + end)

    def ensure(self, row: int, text: str) -> None:
        """Embed `text` as vector number `row`, unless it is there already. Raises StorageError."""
        if 1 + row == len(self._file):
            self._file.append(to_float16(self.embedder.encode([text])))
