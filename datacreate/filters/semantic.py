"""Semantic duplicates: texts whose sentence embeddings all but point the same way.

The library usearch proposes the nearest rows: all are compared while they are few, then by its
graph (HNSW, Malkov & Yashunin 2018), with one thread, so that the same additions give the same
graph. The cosine that decides is reckoned from the rounded vectors themselves.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from datacreate.errors import UsageError
from datacreate.filters.base import Filter, Match
from datacreate.formats.validate import Candidate, Reason
from datacreate.selection.accepted_vectors import AcceptedVectors, Float16Rows, to_float16, to_float64

MOST_EXACT = 20_000
"""Rows that are all compared, at about a millisecond a question; beyond, the graph takes half of that."""

_PROPOSED = 8

_PIECE = 8192  # rows taken in at once


class SemanticDuplicates(Filter):
    """A `Filter` by the embeddings of what was accepted, which are kept by `accepted`."""

    reason = Reason.SEMANTIC_DUPLICATE

    def __init__(self, threshold: float, accepted: AcceptedVectors) -> None:
        """`threshold` is a cosine in (0, 1]; UsageError if it is not."""
        if not 0 < threshold <= 1:
            raise UsageError(
                f"the threshold of semantic duplicates is above 0 and at most 1: not {threshold:g}"
            )
        self._threshold = threshold
        self._accepted = accepted
        self._rows = 0

    @cached_property
    def _index(self) -> Any:
        from usearch.index import Index

        return Index(ndim=self._accepted.dimensions, metric="cos", dtype="f16", multi=False)

    def _catch_up(self) -> None:
        """Take the rows into the index that came since it was last asked: on resume, all of them."""
        for begin in range(len(self._index), self._rows, _PIECE):
            end = min(begin + _PIECE, self._rows)
            self._index.add(np.arange(begin, end), self._accepted.between(begin, end), threads=1)

    def match(self, candidate: Candidate) -> Match | None:
        if not self._rows:
            return None
        [row] = to_float16(self._accepted.embedder.encode([candidate.text]))
        self._catch_up()
        every = len(self._index) <= MOST_EXACT
        nearest = self._index.search(row, _PROPOSED, threads=1, exact=every).keys
        places = sorted(int(key) for key in nearest)
        cosines = [cosine(row, self._accepted[place]) for place in places]
        best = max(range(len(places)), key=cosines.__getitem__)  # the first of equals
        if cosines[best] < self._threshold:
            return None
        return Match(f"means the same as example {places[best] + 1}, cosine {cosines[best]:.2f}")

    def add(self, candidate: Candidate) -> None:
        self._accepted.ensure(self._rows, candidate.text)
        self._rows += 1


def cosine(one: Float16Rows, other: Float16Rows) -> float:
    """The cosine of two rounded vectors, the same on every machine; 0 where one of them is 0."""
    a, b = to_float64(one), to_float64(other)
    # Rounded off, so that a vector's cosine with itself is 1.
    return round(float(a @ b / np.sqrt((a @ a) * (b @ b) or 1.0)), 6)
