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

from datacreate.quiet import quiet

Rows = NDArray[np.float32]
"""Vectors, (n, dimensions)."""

REMEMBERED = 1024
"""Texts whose vectors are kept: those of the last completions, which several ask about."""


class Embedder(Protocol):
    """Texts to unit vectors, whose dot product is their cosine."""

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
        from sentence_transformers import SentenceTransformer

        with quiet():
            return SentenceTransformer(str(self._checkpoint), local_files_only=True, trust_remote_code=False)

    @cached_property
    def dimensions(self) -> int:
        return int(self._encoder.encode([""]).shape[1])  # its own name for it changed between versions

    def encode(self, texts: Sequence[str]) -> Rows:
        known = {text: self._recent[text] for text in texts if text in self._recent}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            # Halves of characters are no text for a tokenizer.
            readable = [text.encode("utf-8", "replace").decode("utf-8") for text in new]
            rows = self._encoder.encode(readable, normalize_embeddings=True, show_progress_bar=False)
            known |= {text: row.copy() for text, row in zip(new, rows, strict=True)}
        self._remember(known)
        return np.stack([known[text] for text in texts]) if texts else np.zeros((0, self.dimensions), "f4")

    def _remember(self, vectors: dict[str, Rows]) -> None:
        for text, row in vectors.items():
            self._recent[text] = row
            self._recent.move_to_end(text)
        while len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
