"""Texts as vectors: sentence embeddings.

One encoder serves all that compare meanings: the strategies, semantic duplicates, coverage.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datacreate.hardware import has_bf16
from datacreate.logging_setup import quiet

Rows = NDArray[np.float32]
"""Vectors, (n, dimensions)."""

REMEMBERED = 8192
"""Texts whose vectors are kept: those of the completions on their way, which several ask about."""

_AT_ONCE = 16  # texts of like length; more are slower on two cores


class Embedder(Protocol):
    """Texts to unit vectors, whose dot product is their cosine.

    It remembers what it was asked last: whoever has several texts at hand asks for all of them at
    once, and who then asks for one of them waits for nothing.
    """

    @property
    def dimensions(self) -> int:
        """How long a vector is."""

    def encode(self, texts: Sequence[str]) -> Rows:
        """A row of length 1 for each text, (n, dimensions)."""


class SentenceEmbedder:
    """An `Embedder` by a sentence-transformers checkpoint on disk, loaded when it is first asked."""

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint
        self._recent: OrderedDict[str, Rows] = OrderedDict()

    @cached_property
    def _encoder(self) -> Any:
        import torch
        from sentence_transformers import SentenceTransformer

        # Twice as fast (2 cores, MiniLM), and a vector stays within 0.004 of the whole one in cosine.
        dtype = torch.bfloat16 if has_bf16() else torch.float32
        with quiet():
            return SentenceTransformer(
                str(self._checkpoint),
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"dtype": dtype},
            )

    @cached_property
    def dimensions(self) -> int:
        return int(self._encoder.encode([""]).shape[1])  # its own name for it changed between versions

    def encode(self, texts: Sequence[str]) -> Rows:
        known = {text: self._recent[text] for text in texts if text in self._recent}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            # Halves of characters are no text for a tokenizer.
            readable = [text.encode("utf-8", "replace").decode("utf-8") for text in new]
            rows = self._encoder.encode(readable, batch_size=_AT_ONCE, show_progress_bar=False)
            known |= dict(zip(new, _unit(rows), strict=True))
        self._remember(known)
        return np.stack([known[text] for text in texts]) if texts else np.zeros((0, self.dimensions), "f4")

    def _remember(self, vectors: dict[str, Rows]) -> None:
        for text, row in vectors.items():
            self._recent[text] = row
            self._recent.move_to_end(text)
        while len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)


def _unit(rows: NDArray[np.floating[Any]]) -> Rows:
    """The rows with length 1: the encoder's own are so only to the precision that it reckons with."""
    exact = np.asarray(rows, np.float32)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    unit: Rows = np.divide(exact, lengths, out=exact.copy(), where=lengths > 0)
    return unit


class Similarity(Protocol):
    """Scores texts against one text."""

    def similarities(self, text: str, others: Sequence[str]) -> list[float]:
        """The cosine of `text` with each of `others`, in [-1, 1]."""


class SentenceSimilarity:
    """A `Similarity` by an embedder, or by the sentence-transformers checkpoint in a folder."""

    def __init__(self, encoder: Embedder | Path) -> None:
        self._embedder: Embedder = SentenceEmbedder(encoder) if isinstance(encoder, Path) else encoder

    def similarities(self, text: str, others: Sequence[str]) -> list[float]:
        vectors = self._embedder.encode([text, *others])
        return [float(cosine) for cosine in vectors[1:] @ vectors[0]]  # (n, dim) @ (dim,) -> (n,)
