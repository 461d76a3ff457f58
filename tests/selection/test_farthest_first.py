"""The queue that covers: who is asked next, and that nothing but commits decides it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from datacreate.selection.accepted_vectors import to_float64
from datacreate.selection.farthest_first import FarthestFirst
from datacreate.selection.queue import Parent, ParentQueue, RequestSlot
from datacreate.selection.strategies import find_strategy

Rows = NDArray[np.float32]

ROOT = Parent("root", 0)


def unit(seed: int, number: int, dimensions: int = 6) -> Rows:
    rows = np.random.default_rng(seed).normal(size=(number, dimensions)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


VECTORS = unit(1, 400)
ROOT_VECTOR = unit(2, 1)[0]


def cover(
    concurrency: int = 1, max_parent_uses: int = 4, pool: int = 1024, vectors: Rows = VECTORS
) -> FarthestFirst:
    return FarthestFirst(
        ROOT, concurrency, vectors.__getitem__, ROOT_VECTOR, max_parent_uses=max_parent_uses, pool=pool
    )


def drain(queue: ParentQueue) -> list[RequestSlot]:
    return list(iter(queue.next, None))


def walk(queue: ParentQueue, born: Callable[[RequestSlot], int], commits: int) -> list[RequestSlot]:
    """Commit `commits` requests in order; every place that came due. The line of a child is its row."""
    due, rows = drain(queue), 0
    for number in range(commits):
        place = due[number]
        assert place.number == number
        children = [Parent(str(rows + k), place.parent.depth + 1) for k in range(born(place))]
        rows += len(children)
        queue.commit(place, children, len(children))
        due += drain(queue)
    return due


def farthest_first(born: list[int], commits: int, pool: int) -> list[str]:
    """The same by the definition, window 1: every cosine anew at every step."""
    asked, waiting, order, rows = [to_float64(ROOT_VECTOR)], [], ["root"], 0

    def nearness(row: int) -> float:
        return max(float(to_float64(VECTORS[row]) @ one) for one in asked)

    for number in range(commits):
        for row in range(rows, rows + born[number]):
            waiting.append(row)
            if len(waiting) > pool:
                waiting.remove(max(waiting, key=lambda row: (nearness(row), row)))
        rows += born[number]
        following = min(waiting, key=lambda row: (nearness(row), row))
        waiting.remove(following)
        asked.append(to_float64(VECTORS[following]))
        order.append(str(following))
    return order


@given(st.lists(st.integers(1, 5), min_size=30, max_size=30), st.integers(1, 12))
def test_the_next_parent_is_the_candidate_farthest_from_all_that_were_asked(
    born: list[int], pool: int
) -> None:
    due = walk(cover(pool=pool), lambda place: born[place.number], 30)
    assert [place.parent.line for place in due] == farthest_first(born, 30, pool)
    assert all(place.attempt == 0 for place in due)


def test_of_several_clusters_it_asks_one_each_before_any_twice() -> None:
    centres = np.eye(6, dtype=np.float32)[np.arange(300) % 6]
    near = centres + unit(5, 300) * 0.1
    vectors = np.asarray(near / np.linalg.norm(near, axis=1, keepdims=True), np.float32)
    queue = FarthestFirst(ROOT, 1, vectors.__getitem__, vectors[0], max_parent_uses=1)
    due = walk(queue, lambda place: 60 if place.number == 0 else 0, 6)
    assert {int(place.parent.line) % 6 for place in due[1:6]} == {1, 2, 3, 4, 5}


@given(st.lists(st.integers(0, 4), min_size=60, max_size=60), st.integers(1, 12), st.integers(1, 6))
def test_there_is_always_a_request_out_and_never_more_than_the_window(
    born: list[int], concurrency: int, max_parent_uses: int
) -> None:
    queue = cover(concurrency, max_parent_uses)
    due, rows = drain(queue), 0
    for number, place in enumerate(due):
        assert place.number == number
        assert 1 <= len(due) - number <= concurrency
        if number == 60:
            break
        queue.commit(place, [Parent(str(rows + k), 1) for k in range(born[number])], born[number])
        rows += born[number]
        due += drain(queue)


@given(st.lists(st.integers(0, 4), min_size=40, max_size=40), st.integers(1, 9), st.integers(0, 40))
def test_only_commits_decide_and_not_when_places_are_asked_for(
    born: list[int], concurrency: int, at: int
) -> None:
    """A run that goes on after a kill tells of all commits first, by vectors that were read from the file."""
    whole = walk(cover(concurrency), lambda place: born[place.number], 40)
    resumed, rows = cover(concurrency, vectors=VECTORS.astype(np.float16)), 0
    for place in whole[:at]:
        number = born[place.number]
        children = [Parent(str(rows + k), place.parent.depth + 1) for k in range(number)]
        resumed.commit(place, children, number)
        rows += number
    due = drain(resumed)
    assert due == whole[: len(due)]
    assert len(due) > at


def test_while_nobody_waits_the_shallowest_are_asked_again_only_so_often() -> None:
    queue = cover(concurrency=20, max_parent_uses=4)
    places = drain(queue)
    assert [(place.parent, place.attempt) for place in places] == [(ROOT, attempt) for attempt in range(4)]
    for place in places[:3]:
        queue.commit(place, [], 0)
        assert drain(queue) == []
    queue.commit(places[3], [], 0)  # nothing is out any more: the root once again
    assert [place.attempt for place in drain(queue)] == [4]


def test_when_all_were_asked_the_least_asked_come_first_then_the_shallowest() -> None:
    due = walk(cover(), lambda place: 3 if place.number == 0 else 0, 12)
    assert [place.attempt for place in due] == [0] * 4 + [1] * 4 + [2] * 4 + [3]
    assert [place.parent.depth for place in due[4:8]] == [0, 1, 1, 1]


def test_rows_are_counted_by_what_was_accepted() -> None:
    read: list[int] = []

    def vector_of(row: int) -> Rows:
        read.append(row)
        return np.asarray(VECTORS[row])

    queue = FarthestFirst(ROOT, 1, vector_of, ROOT_VECTOR, max_parent_uses=4)
    walk(queue, lambda place: [3, 0, 2][place.number], 3)
    assert read == [0, 1, 2, 3, 4]


def test_its_cost_does_not_grow_with_what_was_asked() -> None:
    queue = cover(pool=16)
    walk(queue, lambda place: 0 if place.number > 60 else 5, 7000)  # more than it keeps of anything
    assert len(drain(queue)) == 0  # the window is full, and it still answers


def test_it_is_in_the_registry_and_takes_every_child() -> None:
    found = find_strategy("coverage")
    assert (found.queue, found.needs_similarity) == ("coverage", True)
    assert list(found.choose("parent", ["a", "b", "c"], None, None)) == [0, 1, 2]  # type: ignore[arg-type]


@pytest.mark.parametrize("pool", [1, 2])
def test_a_tiny_pool_works(pool: int) -> None:
    assert len({place.parent.line for place in walk(cover(pool=pool), lambda place: 2, 20)}) == 21
