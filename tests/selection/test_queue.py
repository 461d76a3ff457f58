"""The queues: chains, tree, levels and coverage, and that only commits decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from datacreate.selection.embeddings import rounded_to_float16
from datacreate.selection.queue import (
    MAX_ATTEMPTS,
    UNLIMITED_USES,
    ChainQueue,
    FarthestFirstQueue,
    LevelQueue,
    Parent,
    ParentQueue,
    TreeQueue,
)

ROOT = Parent(0, "root", 0)

Rows = NDArray[np.float32]
Queues = Callable[[int], ParentQueue]
"""From the limit of uses of a parent to a queue."""


@dataclass(frozen=True)
class QueuedRequest:
    """A request: its parent, the commits before it, and the earlier uses of the parent."""

    parent: Parent
    commits: int
    previous_uses: int


def walk(
    queue: ParentQueue,
    born: list[int],
    *,
    window: int = 1,
    chain: bool = False,
    logged: list[QueuedRequest] | None = None,
) -> list[QueuedRequest]:
    """All requests, with at most `window` uncommitted; request i gets `born[i]` accepted children.

    `logged`: the requests of an earlier walk, whose parents are used again.
    """
    requests: list[QueuedRequest] = []
    uses: Counter[int] = Counter()
    rows = 0
    for commits in range(len(born) + 1):
        while len(requests) - commits < window:
            request = len(requests)
            number = logged[request].parent.number if logged else None
            if logged and logged[request].commits > commits:
                break
            parent = queue.next(request, is_idle=request == commits, logged=number)
            if parent is None:
                break
            requests.append(QueuedRequest(parent, commits, uses[parent.number]))
            uses[parent.number] += 1
            if logged and len(requests) == len(logged):
                logged = None
        if commits < len(born):
            depth = requests[commits].parent.depth + 1
            children = [Parent(number, f"line {number}", depth) for number in range(rows + 1, rows + born[commits] + 1)]
            rows += len(children)
            queue.add_result(commits, children[:1] if chain else children, len(children))
    return requests


def unit_vectors(seed: int, number: int, dimensions: int = 6) -> Rows:
    rows = np.random.default_rng(seed).normal(size=(number, dimensions)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


VECTORS = unit_vectors(1, 400)


def coverage(max_parent_uses: int = 4, pool: int = 1024, vectors: Rows = VECTORS) -> FarthestFirstQueue:
    return FarthestFirstQueue([ROOT], vectors.__getitem__, max_parent_uses=max_parent_uses, pool=pool)


def tree(max_parent_uses: int = 4) -> TreeQueue:
    return TreeQueue([ROOT], max_parent_uses)


outcomes = st.lists(st.integers(0, 4), min_size=60, max_size=60)
reusing = pytest.mark.parametrize("make", [tree, coverage])


# Chains


@given(outcomes, st.integers(1, 9))
def test_a_chain_continues_with_its_child_or_retries_the_parent(born: list[int], chains: int) -> None:
    requests = walk(ChainQueue([ROOT], chains), born, window=chains, chain=True)
    assert [each.commits for each in requests] == [max(0, i - chains + 1) for i in range(len(requests))]
    attempts = [0] * chains
    for i, each in enumerate(requests[chains:]):
        previous = requests[i]
        attempts[i % chains] = 0 if born[i] else attempts[i % chains] + 1
        if born[i]:
            assert each.parent == Parent(sum(born[:i]) + 1, f"line {sum(born[:i]) + 1}", previous.parent.depth + 1)
        elif attempts[i % chains] <= MAX_ATTEMPTS:
            assert each.parent == previous.parent
        else:
            assert each.parent == ROOT
            attempts[i % chains] = 0


def test_a_chain_keeps_its_parent_if_no_child_was_chosen() -> None:
    queue = ChainQueue([ROOT], 1)
    for request in range(20):
        assert queue.next(request, is_idle=True) == ROOT
        queue.add_result(request, [], 3)


# Tree and coverage


@reusing
@given(born=outcomes, window=st.integers(1, 12), uses=st.integers(1, 6))
def test_at_least_one_request_is_uncommitted(make: Queues, born: list[int], window: int, uses: int) -> None:
    requests = walk(make(uses), born, window=window)
    assert all(sum(each.commits <= commits for each in requests) > commits for commits in range(61))


@reusing
def test_the_root_is_reused_at_most_max_parent_uses_times_while_requests_are_uncommitted(make: Queues) -> None:
    requests = walk(make(4), [0] * 4, window=20)
    assert [(each.parent, each.commits) for each in requests] == [(ROOT, 0)] * 4 + [(ROOT, 4)]
    assert len(walk(make(UNLIMITED_USES), [0], window=50)) == 51  # `naive`


@given(outcomes, st.integers(1, 9))
def test_the_tree_uses_every_child_breadth_first(born: list[int], window: int) -> None:
    requests = walk(tree(1), born, window=window)
    first_uses = [each.parent.number for each in requests if each.previous_uses == 0]
    assert first_uses == list(range(len(first_uses)))


def test_parents_without_new_children_are_reused_evenly_shallow_ones_first() -> None:
    uses = Counter(each.parent.number for each in walk(tree(), [2] + [0] * 29))
    assert len(uses) == 3
    assert max(uses.values()) - min(uses.values()) <= 1
    requests = walk(coverage(), [3] + [0] * 11)
    assert [each.previous_uses for each in requests] == [0] * 4 + [1] * 4 + [2] * 4 + [3]
    assert [each.parent.depth for each in requests[4:8]] == [0, 1, 1, 1]


@pytest.mark.parametrize("make", [tree, coverage, lambda _: LevelQueue([ROOT], 1), lambda _: ChainQueue([ROOT], 3)])
@given(born=outcomes, at=st.integers(0, 60))
def test_logged_parents_give_the_same_state(make: Queues, born: list[int], at: int) -> None:
    whole = walk(make(4), born, window=3)
    assert walk(make(4), born, window=3, logged=whole[: at + 1]) == whole
    # The limit of uses may have grown with the count.
    assert walk(make(9), born, window=3, logged=whole)[: len(whole)] == whole


# Levels


def test_a_level_is_completed_before_the_next_and_childless_parents_are_dropped() -> None:
    requests = walk(LevelQueue([ROOT], 1), [3, 0, 2, 2, 2, 2, 2, 2], window=5)
    assert [each.parent.depth for each in requests[:9]] == [0, 1, 1, 1, 2, 2, 2, 2, 3]
    assert len({each.parent.number for each in requests}) == len(requests)
    assert [each.commits for each in requests[:9]] == [0, 1, 1, 1, 4, 4, 4, 4, 8]


def test_a_level_without_children_is_repeated() -> None:
    requests = walk(LevelQueue([ROOT], 1), [0, 0, 3, 0, 0, 0, 0, 0, 0])
    uses = [(each.parent.depth, each.previous_uses) for each in requests]
    assert uses == [(0, 0), (0, 1), (0, 2), *[(1, 0)] * 3, *[(1, 1)] * 3, (1, 2)]


def test_the_seed_shuffles_levels() -> None:
    def order(seed: int) -> list[int]:
        return [each.parent.number for each in walk(LevelQueue([ROOT], seed), [9] * 9)]

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(5)}) > 1


# Coverage


def by_definition(born: list[int], pool: int) -> list[int]:
    """The farthest-first order with one request at a time: all cosines are computed at every step."""
    used, waiting, order, rows = [rounded_to_float16(VECTORS[0])], list[int](), [0], 0
    for number in born:
        waiting = [*waiting, *range(rows + 1, rows + number + 1)][-pool:]
        rows += number
        cosines = {row: max(float(rounded_to_float16(VECTORS[row]) @ one) for one in used) for row in waiting}
        chosen = min(waiting, key=cosines.__getitem__)
        waiting.remove(chosen)
        used.append(rounded_to_float16(VECTORS[chosen]))
        order.append(chosen)
    return order


@given(st.lists(st.integers(1, 5), min_size=30, max_size=30), st.integers(5, 12))
def test_the_farthest_of_the_latest_waiting_parents_is_next(born: list[int], pool: int) -> None:
    requests = walk(coverage(pool=pool), born)
    assert [each.parent.number for each in requests] == by_definition(born, pool)


def test_memory_and_time_are_bounded() -> None:
    born = [5 if request <= 60 else 0 for request in range(7000)]  # more than any limit
    assert len(walk(coverage(pool=16), born)) == 7001


# Several roots

ROOTS = [Parent(-number, f"root {number}", 0) for number in range(3)]


@pytest.mark.parametrize("make", [lambda: TreeQueue(ROOTS, UNLIMITED_USES), lambda: LevelQueue(ROOTS, 1)])
def test_without_children_roots_take_turns(make: Callable[[], ParentQueue]) -> None:
    requests = [each.parent.number for each in walk(make(), [0] * 8)]
    assert requests == [0, -1, -2] * 3


def test_coverage_uses_the_root_that_is_farthest_from_those_used() -> None:
    vectors = {0: [1, 0, 0], -1: [0.8, 0.6, 0], -2: [0, 0, 1], -3: [0, 1, 0]}
    roots = [*ROOTS, Parent(-3, "root 3", 0)]
    queue = FarthestFirstQueue(roots, lambda number: np.array(vectors[number]), max_parent_uses=4)
    assert [queue.next(request, is_idle=False) for request in range(4)] == [roots[at] for at in (0, 2, 3, 1)]


def test_roots_have_a_limit_of_their_own() -> None:
    requests = walk(TreeQueue(ROOTS, 4, 1), [2] * 3 + [0] * 30, window=40)
    uses = Counter(each.parent.number for each in requests if each.commits < 20)
    assert uses == {0: 1, -1: 1, -2: 1, **dict.fromkeys(range(1, 7), 4)}
