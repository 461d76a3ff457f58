"""What is accepted, as vectors: each text embedded once, whoever asks, and found again on resume."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from datacreate.selection.embeddings import Embedder
from datacreate.selection.vectors import Half, Vectors, rounded


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
