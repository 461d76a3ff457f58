"""Held-out texts by their sentence embeddings, computed once per test set and embedding model.

$DATACREATE_HOME/embeddings/MODEL/TEXTS.npy holds float16 vectors, (texts, dim). MODEL and TEXTS are the first 16 digits
of a SHA-256: of the model and of the texts. Exact search by the library usearch proposes rows; the cosine that decides
is computed from the rounded vectors.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from datacreate.errors import StorageError
from datacreate.files import replaced
from datacreate.filters.semantic import cosine
from datacreate.messages import Notify, no_notify
from datacreate.paths import data_dir
from datacreate.selection.accepted_vectors import Float16Rows, to_float16
from datacreate.selection.embeddings import CACHE_SIZE

if TYPE_CHECKING:
    from datacreate.selection.embeddings import Embedder

_CHUNK = 2048  # texts embedded between two messages

_PROPOSALS = 16


class HeldOutEmbeddings:
    """Finds the held-out text that is nearest to a text."""

    def __init__(
        self,
        texts: Sequence[tuple[str, Sequence[str]]],
        embedder: Embedder,
        model_sha256: str | None = None,
        notify: Notify = no_notify,
    ) -> None:
        """Embed what the cache does not hold; without the model's hash nothing is cached.

        `texts`: the title and the texts of each test set, at least one text in all.
        """
        self._embedder = embedder
        pieces = [_vectors(title, part, embedder, model_sha256, notify) for title, part in texts if part]
        self._vectors = np.concatenate(pieces)
        self.nearest = lru_cache(CACHE_SIZE)(self._nearest)  # an example is matched more than once

    def _nearest(self, text: str) -> tuple[int, float]:
        """The number of the nearest text (the first of equals), and its cosine."""
        from usearch.index import MetricKind, search

        [vector] = to_float16(self._embedder.encode([text]))
        count = min(_PROPOSALS, len(self._vectors))
        found = search(self._vectors, vector, count, MetricKind.IP, exact=True, threads=1)
        rows = sorted(int(row) for row in found.keys.ravel())
        cosines = [cosine(vector, self._vectors[row]) for row in rows]
        best = max(range(len(rows)), key=cosines.__getitem__)  # the first of equals
        return rows[best], cosines[best]


def _vectors(
    title: str, texts: Sequence[str], embedder: Embedder, model_sha256: str | None, notify: Notify
) -> Float16Rows:
    """The vectors of the texts, (texts, dim), from the cache if it holds them."""
    if model_sha256 is None:
        return _embed(title, texts, embedder, notify)
    digest = hashlib.sha256(json.dumps(texts).encode("ascii")).hexdigest()
    path = data_dir() / "embeddings" / model_sha256[:16] / f"{digest[:16]}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        cached: Float16Rows = np.load(path, allow_pickle=False)
        if cached.dtype == np.float16 and cached.ndim == 2 and len(cached) == len(texts):
            return cached
    vectors = _embed(title, texts, embedder, notify)
    with contextlib.suppress(OSError, StorageError):  # without the cache the next run only takes longer
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as part, part.open("xb") as file:
            np.save(file, vectors, allow_pickle=False)
    return vectors


def _embed(title: str, texts: Sequence[str], embedder: Embedder, notify: Notify) -> Float16Rows:
    pieces: list[Float16Rows] = []
    for begin in range(0, len(texts), _CHUNK):
        notify(f"embedding {len(texts)} rows of {title}" + (f", {begin} done" if begin else ""))
        pieces.append(to_float16(embedder.encode(texts[begin : begin + _CHUNK])))
    return np.concatenate(pieces)
