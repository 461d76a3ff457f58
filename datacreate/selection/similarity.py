"""How alike two texts are: cosine of sentence embeddings.

The paper compares questions with all-mpnet-base-v2; any sentence encoder will do. The model
loads when it is first asked, and only the strategies `diverse` and `similar` ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol


class Similarity(Protocol):
    """Scores texts against one text."""

    def to_one(self, text: str, others: Sequence[str]) -> list[float]:
        """The cosine of `text` with each of `others`, in [-1, 1]."""


class SentenceSimilarity:
    """A `Similarity` by a sentence-transformers checkpoint on disk."""

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint

    @cached_property
    def _encoder(self) -> Any:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(self._checkpoint), local_files_only=True, trust_remote_code=False)

    def to_one(self, text: str, others: Sequence[str]) -> list[float]:
        vectors = self._encoder.encode([text, *others], normalize_embeddings=True, show_progress_bar=False)
        return [float(cosine) for cosine in vectors[1:] @ vectors[0]]  # (n, dim) @ (dim,) -> (n,)
