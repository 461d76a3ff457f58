"""The embeddings of the examples that passed the filters, kept in a file of the run directory.

The file is a cache of the log: a row that is missing, damaged or of another text is computed again. Its checksum, of
the vector and the text, shows that. Decisions use the rounded values, so that a resumed run decides alike.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datacreate.files import open_regular, storage_error
from datacreate.selection.embeddings import Embedder

Float16Rows = NDArray[np.float16]

_CHECKSUM_BYTES = 4


def to_float16(rows: NDArray[Any]) -> Float16Rows:
    """Rows as the file stores them."""
    return np.asarray(rows, dtype="<f2")


def to_float64(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Rows rounded to float16, as float64: their dot products are exact, in any order of summation.

    Entries of a unit vector in float16 are multiples of 2^-24, so the products are multiples of 2^-48 up to about 1,
    and float64 represents every partial sum.
    """
    return to_float16(rows).astype(np.float64)


class PassedVectors:
    """The vectors of the examples that passed the filters, numbered from 0 in order.

    Examples that wait for the label-noise check, or are dropped later, have one too. `path` is the file, or None for
    memory. The first rows are the vectors of `roots`, the texts of the formatting examples: computed on another machine
    they could round differently.
    """

    def __init__(self, embedder: Embedder, path: Path | None = None, roots: Sequence[str] = ()) -> None:
        self.embedder = embedder
        self._path = path
        self._roots = roots

    @cached_property
    def _record(self) -> np.dtype[Any]:
        return np.dtype([("vector", "<f2", (self.embedder.dimensions,)), ("checksum", "<u4")])

    @cached_property
    def _file(self) -> Any:
        """The open file, with the vectors of the roots."""
        try:
            flags = os.O_RDWR | os.O_CREAT
            file = os.fdopen(open_regular(self._path, flags), "r+b", buffering=0) if self._path else BytesIO()
        except OSError as error:
            raise storage_error(self._path or Path(), error) from None
        for file_row, text in enumerate(self._roots):
            self._ensure(file, file_row, text)
        return file

    def of_parent(self, number: int) -> Float16Rows:
        """The vector of the parent with this number (see `Parent`), (dimensions,)."""
        return self[number - 1] if number > 0 else self[-len(self._roots) - number]

    def __getitem__(self, row: int) -> Float16Rows:
        vector: Float16Rows = self.between(row, row + 1)[0]
        return vector

    def between(self, begin: int, end: int) -> Float16Rows:
        """The vectors from number `begin` to before `end`, (end - begin, dimensions)."""
        self._file.seek((len(self._roots) + begin) * self._record.itemsize)
        content = self._file.read((end - begin) * self._record.itemsize)
        return np.ascontiguousarray(np.frombuffer(content, self._record)["vector"])

    def ensure(self, row: int, text: str) -> None:
        """Embed `text` as vector number `row`, unless it is there already. Raises StorageError."""
        self._ensure(self._file, len(self._roots) + row, text)

    def _ensure(self, file: Any, file_row: int, text: str) -> None:
        try:
            file.seek(file_row * self._record.itemsize)
            stored = file.read(self._record.itemsize)
            if stored == _file_row(stored[:-_CHECKSUM_BYTES], text):
                return
            [vector] = to_float16(self.embedder.encode([text]))
            rest = memoryview(_file_row(vector.tobytes(), text))
            file.seek(file_row * self._record.itemsize)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            raise storage_error(self._path or Path(), error) from None


def _file_row(vector: bytes, text: str) -> bytes:
    """A row of the file: the vector, and the checksum of text and vector."""
    checksum = zlib.crc32(vector, zlib.crc32(text.encode("utf-8", "surrogatepass")))
    return vector + checksum.to_bytes(_CHECKSUM_BYTES, "little")
