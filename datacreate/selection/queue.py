"""The queues of parents: chains, a tree, and the levels of the paper.

Requests are numbered and committed in order. A queue only sees the commits, so that neither the capacity of the
engine nor the order of arrival influences its decisions. At most `concurrency` requests are in flight. With chains
there are always that many, so the parent of request i depends on the commits up to request i - `concurrency`. A tree
without a new parent waits for commits, so a parent may depend on later ones.
"""

from __future__ import annotations

import heapq
import json
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from datacreate.formats.example import Example

MAX_ATTEMPTS = 8
"""How often a chain retries a parent without accepted children before it returns to the root."""

_MAX_REUSABLE = 4096
"""Only this many parents, the first ones, can be used again."""


@dataclass(frozen=True, slots=True)
class Parent:
    """An example for a prompt: its line of train.jsonl (small in memory), and its depth (root: 0)."""

    line: str
    depth: int


@dataclass(frozen=True)
class RequestSlot:
    """The number of a request, its parent, and how often that parent was used before."""

    number: int
    parent: Parent
    previous_uses: int

    @cached_property
    def example(self) -> Example:
        """The parent as an example."""
        return Example(json.loads(self.parent.line))


class ParentQueue(Protocol):
    """The order in which parents are used."""

    def next(self) -> RequestSlot | None:
        """The next request; None if it depends on commits that are not there yet."""

    def commit(self, slot: RequestSlot, chosen: Sequence[Parent], accepted: int) -> None:
        """Record the result of a request: the parents that the strategy chose, and the number accepted."""


class Chains:
    """`concurrency` independent chains; request i belongs to chain i modulo `concurrency`."""

    def __init__(self, root: Parent, concurrency: int) -> None:
        self._root = root
        self._chains = [(root, 0)] * concurrency
        self._assigned = 0
        self._committed = 0

    def next(self) -> RequestSlot | None:
        if self._assigned - self._committed == len(self._chains):
            return None
        parent, previous_uses = self._chains[self._assigned % len(self._chains)]
        self._assigned += 1
        return RequestSlot(self._assigned - 1, parent, previous_uses)

    def commit(self, slot: RequestSlot, chosen: Sequence[Parent], accepted: int) -> None:
        self._committed += 1
        if chosen:
            following = (chosen[0], 0)
        elif accepted:
            following = (slot.parent, 0)
        elif slot.previous_uses < MAX_ATTEMPTS:
            following = (slot.parent, slot.previous_uses + 1)
        else:
            following = (self._root, 0)
        self._chains[slot.number % len(self._chains)] = following


Use = tuple[int, tuple[int, ...], Parent]
"""How often a parent was used, its rank among equally used ones, and the parent."""


class UsedParents:
    """Parents that can be used again, the least used first."""

    def __init__(self, max_uses: int) -> None:
        self._max_uses = max_uses
        self._heap: list[Use] = []

    def push(self, uses: int, rank: tuple[int, ...], parent: Parent) -> None:
        """Add a parent. `rank` orders equally used parents; its last number counts the parents from 0."""
        if rank[-1] < _MAX_REUSABLE:
            heapq.heappush(self._heap, (uses, rank, parent))

    def pop(self, in_flight: int) -> Use | None:
        """The least used parent; None if it was used `max_uses` times and new children may still arrive."""
        if in_flight and self._heap[0][0] >= self._max_uses:
            return None
        return heapq.heappop(self._heap)


class Tree:
    """All accepted children, breadth first.

    While there is no new parent, the shallowest are used again, up to `max_parent_uses` times while requests are in
    flight. More uses of the root would fill the batch at once, but with repetitive examples.
    """

    def __init__(self, root: Parent, concurrency: int, max_parent_uses: int) -> None:
        self._concurrency = concurrency
        self._new = deque([root])
        self._used = UsedParents(max_parent_uses)
        self._parents = 0
        self._assigned = 0
        self._committed = 0

    def next(self) -> RequestSlot | None:
        in_flight = self._assigned - self._committed
        if in_flight == self._concurrency:
            return None
        use: Use | None
        if (new := self._take_new()) is not None:
            use = (0, self._rank(new), new)
            self._parents += 1
        else:
            use = self._used.pop(in_flight)
        if use is None:
            return None
        uses, rank, parent = use
        self._used.push(uses + 1, rank, parent)
        self._assigned += 1
        return RequestSlot(self._assigned - 1, parent, uses)

    def _take_new(self) -> Parent | None:
        """Remove and return the next parent that was not used before."""
        return self._new.popleft() if self._new else None

    def _rank(self, parent: Parent) -> tuple[int, ...]:
        """The order among equally used parents."""
        return (self._parents,)

    def commit(self, slot: RequestSlot, chosen: Sequence[Parent], accepted: int) -> None:
        self._committed += 1
        self._new.extend(chosen)


class Levels:
    """The tree of the paper: a level is shuffled and completed before the next one starts.

    A parent without accepted children is not used again. If a whole level has none, the level is repeated. The paper
    sends one request at a time. The order of a level is known when it starts, so more requests in flight change
    nothing but the time.
    """

    def __init__(self, root: Parent, seed: int, concurrency: int = 1) -> None:
        self._seed = seed
        self._concurrency = concurrency
        self._level = [root]
        self._children: list[Parent] = []
        self._position = 0  # in the level
        self._previous_uses = 0
        self._assigned = 0
        self._in_flight = 0

    def next(self) -> RequestSlot | None:
        level_done = self._position == len(self._level)
        if self._in_flight == self._concurrency or (self._in_flight and level_done):
            return None
        if level_done:
            self._start_next_level()
        self._in_flight += 1
        self._position += 1
        self._assigned += 1
        return RequestSlot(self._assigned - 1, self._level[self._position - 1], self._previous_uses)

    def _start_next_level(self) -> None:
        self._previous_uses = 0 if self._children else self._previous_uses + 1
        if self._children:
            self._level, self._children = self._children, []
            random.Random(f"{self._seed}:level:{self._assigned}").shuffle(self._level)
        self._position = 0

    def commit(self, slot: RequestSlot, chosen: Sequence[Parent], accepted: int) -> None:
        self._in_flight -= 1
        self._children.extend(chosen)
