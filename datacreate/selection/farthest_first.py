"""The queue of the strategy `coverage`: the waiting parent that is farthest from the parents used so far.

This is the greedy algorithm for k centers (Gonzalez, 1985): its covering radius is at most twice the optimum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datacreate.selection.passed_vectors import to_float64
from datacreate.selection.queue import Parent, Tree

VectorOf = Callable[[int], NDArray[Any]]
"""From the number of a parent (0 and less: a root) to its unit vector, (dimensions,)."""

_MAX_CENTERS = 2048
"""Used parents that a new parent is compared with: the first half (far apart), and the latest half (close)."""


class FarthestFirst(Tree):
    """A tree that uses the waiting parent with the smallest maximum cosine to the parents used so far.

    The latest `pool` parents that were not used wait. Vectors are rounded to float16, so that all machines
    decide alike.
    """

    def __init__(
        self,
        roots: Sequence[Parent],
        vector_of: VectorOf,
        *,
        max_parent_uses: int,
        max_root_uses: int | None = None,
        pool: int = 1024,
    ) -> None:
        super().__init__(roots, max_parent_uses, max_root_uses)
        dimensions = len(vector_of(roots[0].number))
        self._vector_of = vector_of
        self._centers = np.zeros((_MAX_CENTERS, dimensions))
        self._num_centers = 0  # added so far
        # A waiting parent has a slot: a row of these arrays.
        self._vectors = np.zeros((pool, dimensions))
        self._cosines = np.full(pool, np.inf)  # the largest one to a center; inf in free slots
        self._numbers = np.zeros(pool, np.int64)
        self._slots: dict[int, int] = {}
        self._free = list(range(pool))[::-1]  # the first of several roots is used first
        self._waiting.clear()
        self._add(roots)

    def _add(self, parents: Sequence[Parent]) -> None:
        vectors = to_float64(np.stack([self._vector_of(parent.number) for parent in parents]))
        centers = self._centers[: min(self._num_centers, _MAX_CENTERS)]
        cosines = (vectors @ centers.T).max(axis=1, initial=-1.0)
        for parent, vector, cosine in zip(parents, vectors, cosines, strict=True):
            if not self._free:
                oldest = next(iter(self._waiting))
                del self._waiting[oldest]
                self._free_slot(oldest)
            slot = self._free.pop()
            self._waiting[parent.number], self._slots[parent.number] = parent, slot
            self._vectors[slot], self._cosines[slot], self._numbers[slot] = vector, cosine, parent.number

    def _free_slot(self, number: int) -> int:
        slot = self._slots.pop(number)
        self._cosines[slot] = np.inf
        self._free.append(slot)
        return slot

    def _choose_new(self) -> int:
        return int(self._numbers[self._cosines.argmin()])

    def _use_first(self, parent: Parent) -> None:
        """The parent becomes a center."""
        half = _MAX_CENTERS // 2
        at = self._num_centers if self._num_centers < _MAX_CENTERS else half + self._num_centers % half
        self._centers[at] = center = self._vectors[self._free_slot(parent.number)]
        self._num_centers += 1
        np.maximum(self._cosines, self._vectors @ center, out=self._cosines)  # free slots stay inf

    def commit(self, request: int, parents: Sequence[Parent], passed: int, needed: int) -> None:
        """See ParentQueue. `parents` are all children that passed the filters, whose vectors must exist."""
        if parents:
            self._add(parents)
