"""Which parents cover best what has been accepted: farthest first.

The greedy rule for k centres (Gonzalez, 1985): next is the candidate that is farthest from all that
were asked. It is at most twice as far as the best choice of as many centres would leave it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datacreate.selection.accepted_vectors import exact
from datacreate.selection.queue import Parent, RequestSlot

VectorOf = Callable[[int], NDArray[Any]]
"""The unit vector of an accepted example, by its number from 0 in the order of acceptance."""

_REMEMBERED = 4096
"""Asked parents that are kept for asking again: the first."""

_COMPARED = 2048
"""Asked parents that a new candidate is compared with: the first half, which lie far apart since they
were chosen so, and the latest half, which the new candidates are children of."""


class FarthestFirst:
    """The candidate that is least like all parents asked so far, by its largest cosine to any of them.

    At most `pool` candidates wait; when there are more, the one that is nearest to what was asked is
    dropped. While none waits, asked parents are asked again, the least asked and then the shallowest
    first, each at most `max_parent_uses` times as long as any request is out. The vectors of a commit's
    examples must be there when it is told of; they are rounded to float16, and what is
    decided by them is the same on every machine.
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
        self._concurrency = concurrency
        self._vector_of = vector_of
        self._max_parent_uses = max_parent_uses
        self._waiting = _Pool(pool, len(root_vector))
        self._centres = _Centres(len(root_vector))
        self._root: tuple[Parent, NDArray[np.float64]] | None = (root, exact(root_vector))
        self._asked: list[tuple[int, int, int, Parent]] = []  # a heap of (times asked, depth, order, node)
        self._order = 0
        self._accepted = 0
        self._assigned = 0
        self._committed = 0
        self._due: deque[RequestSlot] = deque()
        self._assign()

    def next(self) -> RequestSlot | None:
        return self._due.popleft() if self._due else None

    def commit(self, place: RequestSlot, chosen: Sequence[Parent], accepted: int) -> None:
        """As `ParentQueue` says; `chosen` are all accepted children, in order."""
        self._committed += 1
        if chosen:
            rows = range(self._accepted, self._accepted + len(chosen))
            vectors = exact(np.stack([self._vector_of(row) for row in rows]))
            for node, vector, nearness in zip(chosen, vectors, self._centres.nearest(vectors), strict=True):
                self._waiting.add(node, vector, nearness)
        self._accepted += accepted
        self._assign()

    def _assign(self) -> None:
        """All places that are due now: not when they are asked for, since that would hang on the engine."""
        while (place := self._place()) is not None:
            self._assigned += 1
            self._due.append(place)

    def _place(self) -> RequestSlot | None:
        out = self._assigned - self._committed
        if out == self._concurrency:
            return None
        found = self._root or self._waiting.take()
        if found:
            self._root = None
            parent, vector = found
            self._centres.add(vector)
            self._waiting.approach(vector)
            times, order = 0, self._order
            self._order += 1
        elif out == 0 or self._asked[0][0] < self._max_parent_uses:
            times, _, order, parent = heapq.heappop(self._asked)
        else:
            return None
        if order < _REMEMBERED:
            heapq.heappush(self._asked, (times + 1, parent.depth, order, parent))
        return RequestSlot(self._assigned, parent, times)


class _Centres:
    """The vectors of asked parents, as many as are compared with."""

    def __init__(self, dimensions: int) -> None:
        self._rows = np.zeros((_COMPARED, dimensions))
        self._added = 0

    def add(self, vector: NDArray[np.float64]) -> None:
        half = _COMPARED // 2
        at = self._added if self._added < _COMPARED else half + self._added % half
        self._rows[at] = vector
        self._added += 1

    def nearest(self, vectors: NDArray[np.float64]) -> list[float]:
        """The largest cosine of each vector, (n, dimensions), with any centre; there is at least one."""
        nearness: list[float] = (vectors @ self._rows[: min(self._added, _COMPARED)].T).max(axis=1).tolist()
        return nearness


class _Pool:
    """The candidates, how near each is to what was asked, and when it came."""

    def __init__(self, most: int, dimensions: int) -> None:
        self._most = most
        self._nodes: list[Parent] = []
        self._vectors = np.zeros((most + 1, dimensions))
        self._nearness = np.zeros(most + 1)
        self._order = np.zeros(most + 1, np.int64)
        self._added = 0

    def add(self, node: Parent, vector: NDArray[np.float64], nearness: float) -> None:
        at = len(self._nodes)
        self._nodes.append(node)
        self._vectors[at], self._nearness[at], self._order[at] = vector, nearness, self._added
        self._added += 1
        if len(self._nodes) > self._most:
            self._remove(int(np.lexsort((self._order[: at + 1], self._nearness[: at + 1]))[-1]))

    def take(self) -> tuple[Parent, NDArray[np.float64]] | None:
        """The farthest, the first of equals; it is no longer there."""
        number = len(self._nodes)
        if not number:
            return None
        at = int(np.lexsort((self._order[:number], self._nearness[:number]))[0])
        found = self._nodes[at], self._vectors[at].copy()
        self._remove(at)
        return found

    def approach(self, vector: NDArray[np.float64]) -> None:
        """Take note that `vector` was asked."""
        number = len(self._nodes)
        cosines = self._vectors[:number] @ vector
        np.maximum(self._nearness[:number], cosines, out=self._nearness[:number])

    def _remove(self, at: int) -> None:
        last = len(self._nodes) - 1
        self._nodes[at] = self._nodes[last]
        for column in (self._vectors, self._nearness, self._order):
            column[at] = column[last]
        self._nodes.pop()
