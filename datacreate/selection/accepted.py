"""What is accepted, as vectors: each text embedded once, whoever asks, and found again on resume."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from datacreate.selection.embedding import Embedder
from datacreate.selection.vectors import Half, Vectors, rounded


class AcceptedVectors:
    """The vectors of the accepted examples, by their number from 0 in the order of acceptance.

    With a `path` they are kept there; of what it holds no more than `most` rows are believed.
    """

    def __init__(self, embedder: Embedder, path: Path | None = None, most: int | None = None) -> None:
        self.embedder = embedder
        self._path = path
        self._most = most

    @cached_property
    def vectors(self) -> Vectors:
        """The rows; StorageError if their file cannot be written."""
        return Vectors(self.embedder.dimensions, self._path, self._most)

    def __getitem__(self, row: int) -> Half:
        return self.vectors[row]

    def put(self, row: int, text: str) -> None:
        """See to it that the row is there, known already or the next one."""
        if row == len(self.vectors):
            self.vectors.append(rounded(self.embedder.encode([text])))
