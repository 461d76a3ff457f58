"""Which parent is asked next.

Requests are numbered and committed in the order of their numbers. A queue is told of every
commit and asked for the next place; it sees nothing else, so that capacity, clock and arrival
decide nothing. At most `concurrency` places are out at any time. Chains always have that many out, so
the parent of request i depends on what had been committed up to request i - window; a tree that
has nobody new to ask waits for commits, and then a parent may depend on later ones.
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
"""How often a chain asks a parent again that gave nothing, before it goes back to the start."""

_REMEMBERED = 4096
"""How many asked parents a tree keeps for asking again: the shallowest."""


@dataclass(frozen=True, slots=True)
class Parent:
    """An example that can be asked: its line of train.jsonl (a tree keeps many), its depth below the root."""

    line: str
    depth: int


@dataclass(frozen=True)
class RequestSlot:
    """Where a request stands: its number, whom it asks, and for which time it asks them."""

    request: int
    parent: Parent
    attempt: int

    @cached_property
    def example(self) -> Example:
        """The parent's example, read from its line when it is first needed."""
        return Example(json.loads(self.parent.line))


class ParentQueue(Protocol):
    """The order in which parents are asked."""

    def next(self) -> RequestSlot | None:
        """The next place, or None while it depends on commits to come."""

    def commit(self, place: RequestSlot, chosen: Sequence[Parent], accepted: int) -> None:
        """Take note of what came of `place`: the next parents, and how many examples were accepted."""


class Chains:
    """`concurrency` chains side by side; request i belongs to chain i modulo window."""

    def __init__(self, root: Parent, concurrency: int) -> None:
        self._root = root
        self._at = [(root, 0)] * concurrency
        self._assigned = 0
        self._committed = 0

    def next(self) -> RequestSlot | None:
        if self._assigned - self._committed == len(self._at):
            return None
        parent, attempt = self._at[self._assigned % len(self._at)]
        self._assigned += 1
        return RequestSlot(self._assigned - 1, parent, attempt)

    def commit(self, place: RequestSlot, chosen: Sequence[Parent], accepted: int) -> None:
        self._committed += 1
        if chosen:
            after = (chosen[0], 0)
        elif accepted:
            after = (place.parent, 0)
        else:
            after = (place.parent, place.attempt + 1)
        self._at[place.request % len(self._at)] = after if after[1] <= MAX_ATTEMPTS else (self._root, 0)


class Tree:
    """All accepted children, breadth first.

    While no parent is waiting, the shallowest are asked again, each at most `max_parent_uses` times as long
    as any request is out: asking the root for a whole window would fill the batch at once, with
    repeats. A parent that gave nothing is passed over.
    """

    def __init__(self, root: Parent, concurrency: int, max_parent_uses: int) -> None:
        self._concurrency = concurrency
        self._max_parent_uses = max_parent_uses
        self._waiting = deque([root])
        self._asked: list[tuple[int, int, Parent]] = []  # a heap of (times asked, order, node)
        self._order = 0
        self._assigned = 0
        self._committed = 0

    def next(self) -> RequestSlot | None:
        out = self._assigned - self._committed
        if out == self._concurrency:
            return None
        if self._waiting:
            times, order, parent = 0, self._order, self._waiting.popleft()
            self._order += 1
        elif out == 0 or self._asked[0][0] < self._max_parent_uses:
            times, order, parent = heapq.heappop(self._asked)
        else:
            return None
        if order < _REMEMBERED:
            heapq.heappush(self._asked, (times + 1, order, parent))
        self._assigned += 1
        return RequestSlot(self._assigned - 1, parent, times)

    def commit(self, place: RequestSlot, chosen: Sequence[Parent], accepted: int) -> None:
        self._committed += 1
        self._waiting.extend(chosen)


class Levels:
    """The paper's tree: a whole level shuffled and finished before the next.

    A node that gave nothing is lost; a level that gave nothing at all is asked again, with the
    next attempt. The paper has one request out at a time; since a level's order is known when it
    begins, more of them change nothing but the time.
    """

    def __init__(self, root: Parent, seed: int, concurrency: int = 1) -> None:
        self._seed = seed
        self._concurrency = concurrency
        self._level = [root]
        self._children: list[Parent] = []
        self._at = 0  # within the level
        self._attempt = 0
        self._assigned = 0
        self._out = 0

    def next(self) -> RequestSlot | None:
        if self._out == self._concurrency or (self._out and self._at == len(self._level)):
            return None
        if self._at == len(self._level):
            self._descend()
        self._out += 1
        self._at += 1
        self._assigned += 1
        return RequestSlot(self._assigned - 1, self._level[self._at - 1], self._attempt)

    def _descend(self) -> None:
        self._attempt = 0 if self._children else self._attempt + 1
        if self._children:
            self._level, self._children = self._children, []
            random.Random(f"{self._seed}:level:{self._assigned}").shuffle(self._level)
        self._at = 0

    def commit(self, place: RequestSlot, chosen: Sequence[Parent], accepted: int) -> None:
        self._out -= 1
        self._children.extend(chosen)
