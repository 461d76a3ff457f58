"""Sentence embeddings.

One embedding model serves the strategies, the semantic filter and coverage. It loads on first use.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datacreate.errors import CheckpointError
from datacreate.hardware import cpu_has_bf16
from datacreate.libraries import quiet

Vectors = NDArray[np.float32]
"""(n, dimensions)."""

CACHE_SIZE = 8192
"""Texts whose vectors are cached: those of the completions in flight, which several components embed."""

_BATCH_SIZE = 16  # larger batches are slower on two cores


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
