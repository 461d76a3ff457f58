"""The queues of parents: chains, a tree, the farthest parent first, and the levels of the paper.

Requests are numbered and committed in order. A queue only sees the commits, so that neither the capacity of the
servers nor the order of arrival influences its decisions. Its caller limits the uncommitted requests. The log names
every parent, so that a resumed run takes them from there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datacreate.selection.embeddings import rounded_to_float16

MAX_ATTEMPTS = 8  # how often a chain retries a parent without children before it returns to a root
_MAX_REUSABLE = 4096  # only the first parents, this many, can be used again
UNLIMITED_USES = 2**62

_MAX_WAITING = 2**18
"""A tree keeps at most this many unused parents, more than it can use before new ones arrive. The limit does not
depend on the count of the run, so that a run with a larger count finds the parents that the log names."""

_MAX_CENTERS = 2048
"""A new parent is compared with this many used parents. Half of them were used first and are far apart, the others were
used last and are close to new ones."""


@dataclass(frozen=True, slots=True)
class Parent:
    """An example for a prompt.

    `number` counts from 1 in the order in which examples passed; the formatting examples, the roots, have
    0, -1, -2 and so on. `line` is the line of train.jsonl, which needs little memory; it is empty for the only root of
    a run without formatting examples. `depth` is 0 for a root.
    """

    number: int
    line: str
    depth: int


class ParentQueue(Protocol):
    """The order in which parents are used."""

    def next(self, request_number: int, *, is_idle: bool, logged: int | None = None) -> Parent | None:
        """The parent of a request; None if a commit must come first.

        `is_idle` says that no request is uncommitted. `logged` is the number of the parent in the log when a run is
        resumed; the result is None if that cannot be a parent.
        """

    def add_result(self, request_number: int, parents: Sequence[Parent], passed: int) -> None:
        """Record the result of a request: the children chosen as parents, and how many examples passed."""


class ChainQueue:
    """Independent chains; request i belongs to chain i modulo their number, which limits the uncommitted requests.

    They start from the roots in turn; a chain that returns to a root takes the next one.
    """

    def __init__(self, roots: Sequence[Parent], num_chains: int) -> None:
        self._roots = cycle(roots)
        # The next parent of each chain, and how many requests with this parent had no children.
        self._parents = list(islice(self._roots, num_chains))
        self._attempts = [0] * num_chains

    def next(self, request_number: int, *, is_idle: bool, logged: int | None = None) -> Parent | None:
        return self._parents[request_number % len(self._parents)]

    def add_result(self, request_number: int, parents: Sequence[Parent], passed: int) -> None:
        chain = request_number % len(self._parents)
        if not passed and self._attempts[chain] < MAX_ATTEMPTS:
            self._attempts[chain] += 1
            return
        self._attempts[chain] = 0
        if parents:
            self._parents[chain] = parents[0]
        elif not passed:
            self._parents[chain] = next(self._roots)


class TreeQueue:
    """Uses all chosen children, breadth first.

    While there is no new parent, the least used one is used again; of several, the shallowest. While there are
    uncommitted requests, this is limited to `max_parent_uses` times: more uses of a root fill the batch earlier, but
    with repetitive examples.
    """

    def __init__(self, roots: Sequence[Parent], max_parent_uses: int, max_root_uses: int | None = None) -> None:
        """`max_root_uses` is the limit for each root, if it differs from that of other parents."""
        self._max_parent_uses = max_parent_uses
        self._max_root_uses = max_parent_uses if max_root_uses is None else max_root_uses
        self._waiting = {root.number: root for root in roots}  # unused parents, in order
        self._uses: dict[int, int] = {}
        self._used: dict[int, Parent] = {}  # parents that can be used again, in the order of their first use

    def next(self, request_number: int, *, is_idle: bool, logged: int | None = None) -> Parent | None:
        number = self._choose(is_idle=is_idle) if logged is None else logged
        if number is None:
            return None
        if (parent := self._waiting.pop(number, None)) is not None:
            self._use_first(parent)
            if len(self._used) < _MAX_REUSABLE:
                self._used[number], self._uses[number] = parent, 1
        elif (parent := self._used.get(number)) is not None:
            self._uses[number] += 1
        return parent

    def _choose(self, *, is_idle: bool) -> int | None:
        if self._waiting:
            return self._choose_new()
        number = min(self._used, key=self._rank)
        return number if is_idle or not self._is_at_limit(number) else None

    def _rank(self, number: int) -> tuple[bool, int, int]:
        return self._is_at_limit(number), self._uses[number], self._used[number].depth

    def _is_at_limit(self, number: int) -> bool:
        limit = self._max_parent_uses if self._used[number].depth else self._max_root_uses
        return self._uses[number] >= limit

    def _choose_new(self) -> int:
        """The number of the waiting parent that is used next."""
        return next(iter(self._waiting))

    def _use_first(self, parent: Parent) -> None:
        """Record that a parent is used for the first time."""

    def add_result(self, request_number: int, parents: Sequence[Parent], passed: int) -> None:
        self._waiting |= {parent.number: parent for parent in parents[: _MAX_WAITING - len(self._waiting)]}


class FarthestFirstQueue(TreeQueue):
    """The queue of the strategy `coverage`: a tree that uses the waiting parent with the smallest maximum cosine to the
    parents used so far.

    This is the greedy algorithm for k centers (Gonzalez, 1985): its covering radius is at most twice the optimum. The
    latest `pool` parents that were not used wait. Vectors are rounded to float16, so that all machines
    decide alike.
    """

    def __init__(
        self,
        roots: Sequence[Parent],
        vector_of: Callable[[int], NDArray[Any]],
        *,
        max_parent_uses: int,
        max_root_uses: int | None = None,
        pool: int = 1024,
    ) -> None:
        """`vector_of` returns the unit vector of a parent, of shape (dimensions,), given its number."""
        super().__init__((), max_parent_uses, max_root_uses)
        dimensions = len(vector_of(roots[0].number))
        self._vector_of = vector_of
        self._centers = np.zeros((_MAX_CENTERS, dimensions))
        self._num_centers = 0  # number of centers added so far
        # Each waiting parent has a row of these arrays.
        self._vectors = np.zeros((pool, dimensions))
        self._cosines = np.full(pool, np.inf)  # the largest cosine to a center; inf in free rows
        self._numbers = np.zeros(pool, np.int64)
        self._rows: dict[int, int] = {}  # number of the parent -> its row
        self._free_rows = list(range(pool))[::-1]  # the first of several roots is used first
        self._add(roots)

    def _add(self, parents: Sequence[Parent]) -> None:
        vectors = rounded_to_float16(np.stack([self._vector_of(parent.number) for parent in parents]))
        centers = self._centers[: min(self._num_centers, _MAX_CENTERS)]
        cosines = (vectors @ centers.T).max(axis=1, initial=-1.0)
        for parent, vector, cosine in zip(parents, vectors, cosines, strict=True):
            if not self._free_rows:
                oldest = next(iter(self._waiting))
                del self._waiting[oldest]
                self._free_row(oldest)
            row = self._free_rows.pop()
            self._waiting[parent.number], self._rows[parent.number] = parent, row
            self._vectors[row], self._cosines[row], self._numbers[row] = vector, cosine, parent.number

    def _free_row(self, number: int) -> int:
        """Free the row of a parent that no longer waits, and return it."""
        row = self._rows.pop(number)
        self._cosines[row] = np.inf
        self._free_rows.append(row)
        return row

    def _choose_new(self) -> int:
        return int(self._numbers[self._cosines.argmin()])

    def _use_first(self, parent: Parent) -> None:
        """The parent becomes a center."""
        half = _MAX_CENTERS // 2
        index = self._num_centers if self._num_centers < _MAX_CENTERS else half + self._num_centers % half
        self._centers[index] = center = self._vectors[self._free_row(parent.number)]
        self._num_centers += 1
        np.maximum(self._cosines, self._vectors @ center, out=self._cosines)  # free rows stay inf

    def add_result(self, request_number: int, parents: Sequence[Parent], passed: int) -> None:
        """See ParentQueue. `parents` are all children that passed, whose vectors must exist."""
        if parents:
            self._add(parents)


class LevelQueue:
    """The tree of the paper: a level is shuffled and completed before the next one starts.

    A parent without children is not used again. If a whole level has none, the level is repeated. The paper
    sends one request at a time. The order of a level is known when it starts, so more uncommitted requests
    change nothing but the time.
    """

    def __init__(self, roots: Sequence[Parent], seed: int) -> None:
        self._seed = seed
        self._level = list(roots)
        self._children: list[Parent] = []
        self._position = 0  # the index of the next parent in `_level`

    def next(self, request_number: int, *, is_idle: bool, logged: int | None = None) -> Parent | None:
        if self._position == len(self._level):
            if not is_idle:
                return None
            if self._children:
                self._level, self._children = self._children, []
                random.Random(f"{self._seed}:level:{request_number}").shuffle(self._level)
            self._position = 0
        self._position += 1
        return self._level[self._position - 1]

    def add_result(self, request_number: int, parents: Sequence[Parent], passed: int) -> None:
        self._children.extend(parents)
