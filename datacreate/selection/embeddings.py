"""Sentence embeddings, and a file of them in the run directory.

One embedding model serves the strategies, the semantic filter and coverage. It loads on first use.
`PassedVectors` keeps the embeddings of the examples that passed. Its file is a cache of the log: a row
that is missing, damaged or of another text is computed again. Its checksum, of the vector and the text, shows that.
Decisions use the rounded values, so that a resumed run decides alike.
"""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datacreate.errors import CheckpointError
from datacreate.files import open_regular, storage_error
from datacreate.hardware import cpu_has_bf16
from datacreate.libraries import quiet

Vectors = NDArray[np.float32]  # (n, dimensions)
Float16Rows = NDArray[np.float16]

CACHE_SIZE = 8192
"""Texts whose vectors are cached: those of the uncommitted completions, which several components embed."""

_BATCH_SIZE = 16  # larger batches are slower on two cores
_CHECKSUM_BYTES = 4


class Embedder(Protocol):
    """Turns texts into unit vectors, whose dot product is the cosine.

    It caches recent texts. Call `encode` with many texts at once; a later call for one of them is then free.
    """

    @property
    def dimensions(self) -> int:
        """The length of a vector."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One unit vector per text, (n, dimensions)."""


class SentenceEmbedder:
    """An `Embedder` with a sentence-transformers checkpoint from a folder.

    It computes on the CPU: a server of the run fills the GPUs, and a sweep runs many processes with one each.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint
        self._cache: OrderedDict[str, Vectors] = OrderedDict()

    @cached_property
    def _encoder(self) -> Any:
        import torch
        from sentence_transformers import SentenceTransformer

        # bf16 is twice as fast, and the cosines differ little.
        dtype = torch.bfloat16 if cpu_has_bf16() else torch.float32
        with quiet():
            try:
                return SentenceTransformer(
                    str(self._checkpoint),
                    device="cpu",
                    local_files_only=True,
                    trust_remote_code=False,
                    model_kwargs={"dtype": dtype},
                )
            except Exception as error:  # noqa: BLE001 - damaged files raise errors without a common class
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                raise CheckpointError(
                    f"{self._checkpoint}: does not load ({reason}); restore it, or choose another --embedding-model"
                ) from None

    @cached_property
    def dimensions(self) -> int:
        # The attribute for it has different names in different versions of the library.
        return int(self._encoder.encode([""]).shape[1])

    def encode(self, texts: Sequence[str]) -> Vectors:
        vectors = {text: self._cache[text] for text in texts if text in self._cache}
        new_texts = [text for text in dict.fromkeys(texts) if text not in vectors]
        if new_texts:
            # Tokenizers reject lone surrogates.
            encodable = [text.encode("utf-8", "replace").decode("utf-8") for text in new_texts]
            rows = self._encoder.encode(encodable, batch_size=_BATCH_SIZE, show_progress_bar=False)
            vectors |= dict(zip(new_texts, _normalize(rows), strict=True))
        for text, vector in vectors.items():
            self._cache[text] = vector
            self._cache.move_to_end(text)
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return np.stack([vectors[text] for text in texts]) if texts else np.zeros((0, self.dimensions), "f4")


def _normalize(rows: NDArray[np.floating[Any]]) -> Vectors:
    """The rows with length 1. The model's own normalization is only accurate to bf16."""
    rows = np.asarray(rows, np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Vectors = np.divide(rows, lengths, out=rows.copy(), where=lengths > 0)
    return unit


def to_float16(rows: NDArray[Any]) -> Float16Rows:
    """Rows as the file stores them."""
    return np.asarray(rows, dtype="<f2")


def rounded_to_float16(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Rows rounded to float16, as float64: their dot products are exact, in any order of summation.

    Entries of a unit vector in float16 are multiples of 2^-24, so the products are multiples of 2^-48 up to about 1,
    and float64 represents every partial sum.
    """
    return to_float16(rows).astype(np.float64)


def rounded_cosine(first: NDArray[Any], second: NDArray[Any]) -> float:
    """The cosine of vectors rounded to float16, which is the same on every machine; 0 if one of them is 0."""
    a, b = rounded_to_float16(first), rounded_to_float16(second)
    return round(float(a @ b / np.sqrt((a @ a) * (b @ b) or 1.0)), 6)  # rounded: 1 for a vector and itself


class PassedVectors:
    """The vectors of the examples that passed, numbered from 0 in order.

    Examples that wait for the label-noise check, or are rejected later, have one too. `path` is the file, or None for
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
