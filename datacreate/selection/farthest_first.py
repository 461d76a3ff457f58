"""The queue of the strategy `coverage`: the accepted example that is farthest from all parents used so far.

This is the greedy algorithm for k centers (Gonzalez, 1985): its covering radius is at most twice the optimum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datacreate.selection.accepted_vectors import to_float64
from datacreate.selection.queue import Parent, RequestSlot, Tree

VectorOf = Callable[[int], NDArray[Any]]
"""From the number of an accepted example (from 0) to its unit vector."""

_MAX_CENTERS = 2048
"""Used parents that a new candidate is compared with: the first half (far apart), and the latest half (close)."""


class FarthestFirst(Tree):
    """A tree that uses the candidate with the smallest maximum cosine to the parents used so far.

    At most `pool` candidates wait; beyond that, the one closest to a used parent is dropped. While none waits, parents
    are used again: the least used first, then the shallowest. Vectors are rounded to float16, so that all machines
    decide alike.
    """

    def __init__(
        self,
        root: Parent,
        concurrency: int,
        vector_of: VectorOf,
        root_vector: NDArray[Any],
        *,
        max_parent_uses: int,
        pool: int = 1024,
    ) -> None:
        super().__init__(root, concurrency, max_parent_uses)
        self._vector_of = vector_of
        self._root_vector = to_float64(root_vector)
        self._candidates = _Candidates(pool, len(root_vector))
        self._centers = _Centers(len(root_vector))
        self._accepted = 0

    def _take_new(self) -> Parent | None:
        if root := super()._take_new():
            found = (root, self._root_vector)
        elif (farthest := self._candidates.take_farthest()) is not None:
            found = farthest
        else:
            return None
        parent, vector = found
        self._centers.add(vector)
        self._candidates.update(vector)
        return parent

    def _rank(self, parent: Parent) -> tuple[int, ...]:
        return (parent.depth, self._parents)

    def commit(self, slot: RequestSlot, chosen: Sequence[Parent], accepted: int) -> None:
        """See ParentQueue. `chosen` are all accepted children, whose vectors must exist."""
        self._committed += 1
        if chosen:
            rows = range(self._accepted, self._accepted + len(chosen))
            vectors = to_float64(np.stack([self._vector_of(row) for row in rows]))
            for parent, vector, cosine in zip(
                chosen, vectors, self._centers.max_cosines(vectors), strict=True
            ):
                self._candidates.add(parent, vector, cosine)
        self._accepted += accepted


class _Centers:
    """The vectors of used parents, at most _MAX_CENTERS."""

    def __init__(self, dimensions: int) -> None:
        self._rows = np.zeros((_MAX_CENTERS, dimensions))
        self._added = 0

    def add(self, vector: NDArray[np.float64]) -> None:
        half = _MAX_CENTERS // 2
        index = self._added if self._added < _MAX_CENTERS else half + self._added % half
        self._rows[index] = vector
        self._added += 1

    def max_cosines(self, vectors: NDArray[np.float64]) -> list[float]:
        """The largest cosine of each vector, (n, dimensions), to a center."""
        cosines: list[float] = (vectors @ self._rows[: min(self._added, _MAX_CENTERS)].T).max(axis=1).tolist()
        return cosines


class _Candidates:
    """The waiting candidates, with the largest cosine of each to a used parent."""

    def __init__(self, max_size: int, dimensions: int) -> None:
        self._max_size = max_size
        self._parents: list[Parent] = []
        self._vectors = np.zeros((max_size + 1, dimensions))
        self._cosines = np.zeros(max_size + 1)
        self._order = np.zeros(max_size + 1, np.int64)
        self._added = 0

    def add(self, parent: Parent, vector: NDArray[np.float64], cosine: float) -> None:
        index = len(self._parents)
        self._parents.append(parent)
        self._vectors[index], self._cosines[index], self._order[index] = vector, cosine, self._added
        self._added += 1
        if len(self._parents) > self._max_size:
            self._remove(self._by_distance()[-1])

    def take_farthest(self) -> tuple[Parent, NDArray[np.float64]] | None:
        """Remove and return the farthest candidate, the oldest of equal ones."""
        if not self._parents:
            return None
        index = self._by_distance()[0]
        found = self._parents[index], self._vectors[index].copy()
        self._remove(index)
        return found

    def update(self, vector: NDArray[np.float64]) -> None:
        """Record that `vector` is now a used parent."""
        number = len(self._parents)
        cosines = self._vectors[:number] @ vector
        np.maximum(self._cosines[:number], cosines, out=self._cosines[:number])

    def _by_distance(self) -> list[int]:
        """The indices of the candidates, farthest first, then oldest first."""
        number = len(self._parents)
        indices: list[int] = np.lexsort((self._order[:number], self._cosines[:number])).tolist()
        return indices

    def _remove(self, index: int) -> None:
        last = len(self._parents) - 1
        self._parents[index] = self._parents[last]
        for column in (self._vectors, self._cosines, self._order):
            column[index] = column[last]
        self._parents.pop()
