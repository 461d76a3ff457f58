"""How alike two texts are: cosine of sentence embeddings.

The paper compares questions with all-mpnet-base-v2; any sentence encoder will do. The model
loads when it is first asked, and only strategies that compare texts ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from datacreate.selection.embeddings import Embedder, SentenceEmbedder


class Similarity(Protocol):
    """Scores texts against one text."""

    def to_one(self, text: str, others: Sequence[str]) -> list[float]:
        """The cosine of `text` with each of `others`, in [-1, 1]."""


class SentenceSimilarity:
    """A `Similarity` by an embedder, or by the sentence-transformers checkpoint in a folder."""

    def __init__(self, encoder: Embedder | Path) -> None:
        self._embedder: Embedder = SentenceEmbedder(encoder) if isinstance(encoder, Path) else encoder

    def to_one(self, text: str, others: Sequence[str]) -> list[float]:
        vectors = self._embedder.encode([text, *others])
        return [float(cosine) for cosine in vectors[1:] @ vectors[0]]  # (n, dim) @ (dim,) -> (n,)
