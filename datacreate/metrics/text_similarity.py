"""How alike texts are: one measure behind distances, and behind the Vendi score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from datacreate.formats.text_normalization import words
from datacreate.selection.embeddings import Embedder

Matrix = npt.NDArray[np.float64]


class Likeness(Protocol):
    """A similarity that is a kernel: symmetric, positive semidefinite, 1 between a text and itself."""

    name: str
    """Of the distance that is one less it, in words."""

    def matrix(self, texts: Sequence[str]) -> Matrix:
        """Of each with each, (n, n); at most 1."""


class WordOverlap:
    """The share of words that two texts have in common (Jaccard, 1901), in [0, 1]; needs no model."""

    name = "word overlap (1 - Jaccard)"

    def matrix(self, texts: Sequence[str]) -> Matrix:
        from scipy.sparse import csr_array

        bags = [sorted(set(words(text))) for text in texts]
        place = {word: at for at, word in enumerate(sorted({word for bag in bags for word in bag}))}
        sizes = np.array([len(bag) for bag in bags], dtype=np.float64)
        columns = [place[word] for bag in bags for word in bag]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        there = csr_array((np.ones(len(columns)), columns, starts), shape=(len(bags), max(1, len(place))))
        common = (there @ there.T).toarray()
        together = sizes[:, None] + sizes[None, :] - common
        # Two texts without a word are alike.
        shared: Matrix = np.where(together > 0, common / np.maximum(together, 1), 1.0)
        return shared


class SentenceCosine:
    """The cosine of sentence embeddings, in [-1, 1]."""

    def __init__(self, checkpoint: str, embedder: Embedder) -> None:
        self.name = f"cosine distance, {checkpoint}"
        self._embedder = embedder

    def matrix(self, texts: Sequence[str]) -> Matrix:
        vectors = self._embedder.encode(texts).astype(np.float64)
        return np.clip(vectors @ vectors.T, -1, 1)
