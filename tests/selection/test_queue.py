"""The queues: chains, tree, levels and coverage, and that only commits decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from datacreate.selection.accepted_vectors import to_float64
from datacreate.selection.farthest_first import FarthestFirst
from datacreate.selection.queue import MAX_ATTEMPTS, Chains, Levels, Parent, ParentQueue, Tree
from tests.selection.walking import ROOT, drain, walk

Rows = NDArray[np.float32]
MakeQueue = Callable[[int], ParentQueue]


def unit_vectors(seed: int, number: int, dimensions: int = 6) -> Rows:
    rows = np.random.default_rng(seed).normal(size=(number, dimensions)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


VECTORS = unit_vectors(1, 400)
ROOT_VECTOR = unit_vectors(2, 1)[0]


def coverage(
    concurrency: int = 1, max_parent_uses: int = 4, pool: int = 1024, vectors: Rows = VECTORS
) -> FarthestFirst:
    return FarthestFirst(
        ROOT, concurrency, vectors.__getitem__, ROOT_VECTOR, max_parent_uses=max_parent_uses, pool=pool
    )


outcomes = st.lists(st.integers(0, 4), min_size=60, max_size=60)
"""The number of children of each request."""

reusing = pytest.mark.parametrize(
    "make", [lambda w, uses: Tree(ROOT, w, uses), coverage], ids=["tree", "coverage"]
)


# Chains


@given(outcomes, st.integers(1, 9))
def test_a_chain_continues_with_its_child_or_retries_the_parent(born: list[int], concurrency: int) -> None:
    slots = walk(Chains(ROOT, concurrency), lambda slot: born[slot.number], 60, chain=True)
    assert [commits for _, commits in slots] == [max(0, slot.number - concurrency + 1) for slot, _ in slots]
    for slot, _ in slots[concurrency:]:
        previous = slots[slot.number - concurrency][0]
        if born[previous.number]:
            assert slot.parent == Parent(str(sum(born[: previous.number])), previous.parent.depth + 1)
            assert slot.previous_uses == 0
        elif previous.previous_uses < MAX_ATTEMPTS:
            assert (slot.parent, slot.previous_uses) == (previous.parent, previous.previous_uses + 1)
        else:
            assert (slot.parent, slot.previous_uses) == (ROOT, 0)


def test_a_chain_keeps_its_parent_if_no_child_was_chosen() -> None:
    queue = Chains(ROOT, 1)
    for _ in range(20):
        [slot] = drain(queue)
        assert (slot.parent, slot.previous_uses) == (ROOT, 0)
        queue.commit(slot, [], 3)


@pytest.mark.parametrize("make", [lambda w: Chains(ROOT, w), lambda w: Tree(ROOT, w, max_parent_uses=1000)])
@given(born=outcomes, other=outcomes, concurrency=st.integers(1, 9), at=st.integers(0, 59))
def test_the_parent_depends_only_on_commits_before_the_concurrency_window(
    make: MakeQueue, born: list[int], other: list[int], concurrency: int, at: int
) -> None:
    changed = born[: max(0, at - concurrency + 1)] + other[max(0, at - concurrency + 1) :]
    first = walk(make(concurrency), lambda slot: born[slot.number], 60)
    second = walk(make(concurrency), lambda slot: changed[slot.number], 60)
    assert first[at][0] == second[at][0]


# Tree and coverage


@reusing
@given(born=outcomes, concurrency=st.integers(1, 12), max_parent_uses=st.integers(1, 6))
def test_between_one_and_concurrency_requests_are_in_flight(
    make: Callable[[int, int], ParentQueue], born: list[int], concurrency: int, max_parent_uses: int
) -> None:
    slots = walk(make(concurrency, max_parent_uses), lambda slot: born[slot.number], 60)
    assert [slot.number for slot, _ in slots] == list(range(len(slots)))
    for commits in range(61):
        assert 1 <= sum(seen <= commits for _, seen in slots) - commits <= concurrency


@reusing
def test_the_root_is_reused_at_most_max_parent_uses_times_while_requests_are_in_flight(
    make: Callable[[int, int], ParentQueue],
) -> None:
    queue = make(20, 4)
    slots = drain(queue)
    assert [(slot.parent, slot.previous_uses) for slot in slots] == [
        (ROOT, previous_uses) for previous_uses in range(4)
    ]
    for slot in slots[:3]:
        queue.commit(slot, [], 0)
        assert drain(queue) == []
    queue.commit(slots[3], [], 0)  # nothing is in flight: the root once more
    assert [slot.previous_uses for slot in drain(queue)] == [4]


@given(outcomes, st.integers(1, 9))
def test_the_tree_uses_every_child_breadth_first(born: list[int], concurrency: int) -> None:
    slots = walk(Tree(ROOT, concurrency, 1), lambda slot: born[slot.number], 60)
    first_uses = [slot.parent.line for slot, _ in slots if slot.previous_uses == 0]
    assert first_uses == [ROOT.line, *map(str, range(len(first_uses) - 1))]


def test_parents_without_new_children_are_reused_evenly_shallow_ones_first() -> None:
    slots = walk(Tree(ROOT, 1, 4), lambda slot: 2 if slot.number == 0 else 0, 30)
    uses = Counter(slot.parent.line for slot, _ in slots)
    assert len(uses) == 3
    assert max(uses.values()) - min(uses.values()) <= 1
    slots = walk(coverage(), lambda slot: 3 if slot.number == 0 else 0, 12)
    assert [slot.previous_uses for slot, _ in slots] == [0] * 4 + [1] * 4 + [2] * 4 + [3]
    assert [slot.parent.depth for slot, _ in slots[4:8]] == [0, 1, 1, 1]


# Levels


def test_a_level_is_completed_before_the_next_and_childless_parents_are_dropped() -> None:
    queue = Levels(ROOT, 1)
    slots = walk(queue, lambda slot: [3, 0, 2, 2][min(slot.number, 3)], 8)
    assert [slot.parent.depth for slot, _ in slots] == [0, 1, 1, 1, 2, 2, 2, 2, 3]
    assert len({slot.parent for slot, _ in slots}) == len(slots)
    assert all(slot.number == commits for slot, commits in slots)  # one request at a time


def test_a_level_without_children_is_repeated() -> None:
    slots = walk(Levels(ROOT, 1), lambda slot: 3 if slot.number == 2 else 0, 9)
    uses = [(slot.parent.depth, slot.previous_uses) for slot, _ in slots]
    assert uses == [(0, 0), (0, 1), (0, 2), *[(1, 0)] * 3, *[(1, 1)] * 3, (1, 2)]


def test_the_seed_shuffles_levels() -> None:
    def order(seed: int) -> list[str]:
        return [slot.parent.line for slot, _ in walk(Levels(ROOT, seed), lambda _: 9, 9)]

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(5)}) > 1


# Coverage


def by_definition(born: list[int], commits: int, pool: int) -> list[str]:
    """The farthest-first order with one request in flight: all cosines are computed at every step."""
    used, waiting, order, rows = [to_float64(ROOT_VECTOR)], [], [ROOT.line], 0

    def closeness(row: int) -> tuple[float, int]:
        return max(float(to_float64(VECTORS[row]) @ one) for one in used), row

    for number in range(commits):
        for row in range(rows, rows + born[number]):
            waiting.append(row)
            if len(waiting) > pool:
                waiting.remove(max(waiting, key=closeness))
        rows += born[number]
        chosen = min(waiting, key=closeness)
        waiting.remove(chosen)
        used.append(to_float64(VECTORS[chosen]))
        order.append(str(chosen))
    return order


@given(st.lists(st.integers(1, 5), min_size=30, max_size=30), st.integers(1, 12))
def test_the_farthest_candidate_is_next(born: list[int], pool: int) -> None:
    slots = [slot for slot, _ in walk(coverage(pool=pool), lambda slot: born[slot.number], 30)]
    assert [slot.parent.line for slot in slots] == by_definition(born, 30, pool)
    assert all(slot.previous_uses == 0 for slot in slots)


@given(outcomes, st.integers(1, 9))
def test_vectors_from_the_file_give_the_same_parents(born: list[int], concurrency: int) -> None:
    computed = walk(coverage(concurrency), lambda slot: born[slot.number], 60)
    read = walk(coverage(concurrency, vectors=VECTORS.astype(np.float16)), lambda slot: born[slot.number], 60)
    assert computed == read


def test_memory_and_time_are_bounded() -> None:
    queue = coverage(pool=16)
    walk(queue, lambda slot: 0 if slot.number > 60 else 5, 7000)  # more than any limit
    assert drain(queue) == []
