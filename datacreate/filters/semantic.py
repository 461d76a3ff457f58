"""Semantic duplicates: texts whose sentence embeddings are nearly the same.

The library usearch proposes the nearest accepted examples: by exact search while they are few, later by its HNSW
graph (Malkov & Yashunin 2018). It runs on one thread, so that the same additions give the same graph. The cosine
that decides is computed from the rounded vectors.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

import numpy as np

from datacreate.errors import UsageError
from datacreate.filters.base import Filter, FilterInputs, FilterSettings
from datacreate.formats.validate import Candidate, Reason
from datacreate.selection.accepted_vectors import AcceptedVectors, Float16Rows, to_float16, to_float64

MAX_EXACT = 20_000
"""Up to this number of rows, all are compared; above it, the graph is faster."""

_PROPOSALS = 8

_CHUNK = 8192  # rows added to the index in one call


class SemanticDuplicates(Filter):
    """Finds examples whose embedding is close to that of an accepted one."""

    reason = Reason.SEMANTIC_DUPLICATE

    @classmethod
    def make(cls, settings: FilterSettings, inputs: FilterInputs, /) -> Self:
        if inputs.accepted is None:
            raise UsageError("semantic duplicates need an embedding model; name one with --embedding-model")
        assert settings.semantic is not None, "the filter is on"
        return cls(settings.semantic, inputs.accepted)

    def __init__(self, threshold: float, accepted: AcceptedVectors) -> None:
        """`threshold` is a cosine in (0, 1]."""
        self._threshold = threshold
        self._accepted = accepted
        self._rows = 0

    @cached_property
    def _index(self) -> Any:
        from usearch.index import Index

        return Index(ndim=self._accepted.dimensions, metric="cos", dtype="f16", multi=False)

    def _update_index(self) -> None:
        """Add the rows that were accepted since the last query; after a resume these are all rows."""
        for begin in range(len(self._index), self._rows, _CHUNK):
            end = min(begin + _CHUNK, self._rows)
            self._index.add(np.arange(begin, end), self._accepted.between(begin, end), threads=1)

    def match(self, candidate: Candidate) -> str | None:
        if not self._rows:
            return None
        [vector] = to_float16(self._accepted.embedder.encode([candidate.text]))
        self._update_index()
        every = len(self._index) <= MAX_EXACT
        nearest = self._index.search(vector, _PROPOSALS, threads=1, exact=every).keys
        rows = sorted(int(key) for key in nearest)
        cosines = [cosine(vector, self._accepted[row]) for row in rows]
        best = max(range(len(rows)), key=cosines.__getitem__)  # the first of equals
        if cosines[best] < self._threshold:
            return None
        return f"same meaning as example {rows[best] + 1}, cosine {cosines[best]:.2f}"

    def add(self, candidate: Candidate) -> None:
        self._accepted.ensure(self._rows, candidate.text)
        self._rows += 1


def cosine(one: Float16Rows, other: Float16Rows) -> float:
    """The cosine of two rounded vectors, the same on every machine; 0 if one of them is 0."""
    a, b = to_float64(one), to_float64(other)
    # Rounded, so that the cosine of a vector with itself is 1.
    return round(float(a @ b / np.sqrt((a @ a) * (b @ b) or 1.0)), 6)
