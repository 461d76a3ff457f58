"""Held-out questions by their meaning: sentence embeddings, made once for each split and encoder.

home()/embeddings/ENCODER/SPLIT.npy    float16, (rows, dim); both named by 16 digits of their SHA-256
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datacreate.quality.held_out import HeldOut
from datacreate.quality.opponents import Opponent
from datacreate.resources import home

if TYPE_CHECKING:
    from datacreate.selection.embedding import Embedder

Vectors = NDArray[np.float32]


class HeldOutMeanings:
    """The embeddings of held-out questions, to be asked for the nearest one."""

    def __init__(
        self,
        rows: HeldOut,
        opponents: Sequence[Opponent],
        embedder: Embedder,
        encoder_sha256: str | None = None,
    ) -> None:
        """Embed what no earlier process has embedded; without the encoder's hash, all."""
        self._embedder = embedder
        pieces, begin = [], 0
        for opponent, number in zip(opponents, rows.numbers, strict=True):
            pieces.append(
                _vectors(opponent, rows.questions[begin : begin + number], embedder, encoder_sha256)
            )
            begin += number
        self._vectors = np.concatenate(pieces).astype(np.float32)

    def nearest(self, text: str) -> tuple[int, float]:
        """The row whose question is nearest to `text`, and their cosine."""
        cosines = self._vectors @ np.asarray(self._embedder.encode([text])[0], np.float32)
        best = int(cosines.argmax())
        return best, float(cosines[best])


def _vectors(
    opponent: Opponent, questions: Sequence[str], embedder: Embedder, encoder_sha256: str | None
) -> NDArray[np.float16]:
    if encoder_sha256 is None:
        return np.asarray(embedder.encode(questions), np.float16)
    path = home() / "embeddings" / encoder_sha256[:16] / f"{opponent.digest[:16]}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        kept: NDArray[np.float16] = np.load(path, allow_pickle=False)
        if kept.dtype == np.float16 and kept.ndim == 2 and len(kept) == len(questions):
            return kept
    made = np.asarray(embedder.encode(questions), np.float16)
    with contextlib.suppress(OSError):  # a home that cannot be written costs time, and nothing else
        _keep(path, made)
    return made


def _keep(path: Path, vectors: NDArray[np.float16]) -> None:
    """Write the file whole, whoever else is writing the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
