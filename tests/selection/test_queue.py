"""The frontiers by themselves: what decides who is asked, and what does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.selection.queue import MAX_ATTEMPTS, Chains, Levels, Parent, ParentQueue, RequestSlot, Tree

ROOT = Parent('{"q": "root"}', 0)

Outcome = Callable[[RequestSlot], int]
"""How many children a place gets."""


def children(place: RequestSlot, number: int) -> list[Parent]:
    return [Parent(f'{{"q": "{place.number}.{k}"}}', place.parent.depth + 1) for k in range(number)]


def drain(queue: ParentQueue) -> list[RequestSlot]:
    places = []
    while (place := queue.next()) is not None:
        places.append(place)
    return places


def walk(
    queue: ParentQueue, outcome: Outcome, commits: int, *, chain: bool = False
) -> list[tuple[RequestSlot, int]]:
    """Commit `commits` requests in order; every place with how many commits there were when it came due."""
    due = [(place, 0) for place in drain(queue)]
    for number in range(commits):
        place = due[number][0]
        assert place.number == number
        born = children(place, outcome(place))
        queue.commit(place, born[:1] if chain else born, len(born))
        due += [(new, number + 1) for new in drain(queue)]
    return due


outcomes = st.lists(st.integers(0, 4), min_size=60, max_size=60)


@given(outcomes, st.integers(1, 9))
def test_a_chain_is_the_requests_that_are_alike_modulo_the_window(born: list[int], concurrency: int) -> None:
    due = walk(Chains(ROOT, concurrency), lambda place: born[place.number], 60, chain=True)
    assert [seen for _, seen in due] == [max(0, place.number - concurrency + 1) for place, _ in due]
    for place, _ in due[concurrency:]:
        before = due[place.number - concurrency][0]
        if born[before.number]:
            assert place.parent == children(before, 1)[0]
            assert place.attempt == 0
        elif before.attempt < MAX_ATTEMPTS:
            assert (place.parent, place.attempt) == (before.parent, before.attempt + 1)
        else:
            assert (place.parent, place.attempt) == (ROOT, 0)


def test_a_chain_asks_a_barren_parent_eight_times_more_then_the_root() -> None:
    due = walk(Chains(ROOT, 1), lambda place: int(place.number == 0), 12, chain=True)
    asked = [(place.parent.depth, place.attempt) for place, _ in due]
    assert asked[1:11] == [*((1, attempt) for attempt in range(9)), (0, 0)]


def test_children_that_none_was_chosen_of_leave_the_parent_as_it_is() -> None:
    queue = Chains(ROOT, 1)
    for _ in range(20):
        [place] = drain(queue)
        assert (place.parent, place.attempt) == (ROOT, 0)
        queue.commit(place, [], 3)


@pytest.mark.parametrize("make", [lambda w: Chains(ROOT, w), lambda w: Tree(ROOT, w, max_parent_uses=1000)])
@given(born=outcomes, other=outcomes, concurrency=st.integers(1, 9), at=st.integers(0, 59))
def test_the_parent_of_a_request_knows_only_commits_a_window_before(
    make: Callable[[int], ParentQueue], born: list[int], other: list[int], concurrency: int, at: int
) -> None:
    later = born[: max(0, at - concurrency + 1)] + other[max(0, at - concurrency + 1) :]
    one = walk(make(concurrency), lambda place: born[place.number], 60)
    two = walk(make(concurrency), lambda place: later[place.number], 60)
    assert one[at][0] == two[at][0]


@given(outcomes, st.integers(1, 12), st.integers(1, 6))
def test_a_tree_always_has_a_request_out_and_never_more_than_the_window(
    born: list[int], concurrency: int, max_parent_uses: int
) -> None:
    due = walk(Tree(ROOT, concurrency, max_parent_uses), lambda place: born[place.number], 60)
    assert [place.number for place, _ in due] == list(range(len(due)))
    for commits in range(61):
        out = sum(seen <= commits for _, seen in due) - commits
        assert 1 <= out <= concurrency


@given(outcomes, st.integers(1, 9))
def test_a_tree_asks_every_child_breadth_first(born: list[int], concurrency: int) -> None:
    due = walk(Tree(ROOT, concurrency, 1), lambda place: born[place.number], 60)
    first = [place.parent for place, _ in due if place.attempt == 0]
    queue = [ROOT, *(node for place, _ in due[:60] for node in children(place, born[place.number]))]
    assert first == queue[: len(first)]


def test_a_tree_asks_the_root_only_so_often_while_others_are_out() -> None:
    queue = Tree(ROOT, concurrency=20, max_parent_uses=4)
    places = drain(queue)
    assert [(place.parent, place.attempt) for place in places] == [(ROOT, attempt) for attempt in range(4)]
    for place in places[:3]:
        queue.commit(place, [], 0)
        assert drain(queue) == []
    queue.commit(places[3], [], 0)  # nothing is out any more: the root once again
    assert [place.attempt for place in drain(queue)] == [4]


def test_an_exhausted_tree_asks_its_shallowest_again_evenly() -> None:
    due = walk(Tree(ROOT, 1, 4), lambda place: 2 if place.number == 0 else 0, 30)
    asked = Counter(place.parent.line for place, _ in due)
    assert len(asked) == 3
    assert max(asked.values()) - min(asked.values()) <= 1


def test_a_level_is_finished_before_the_next_and_barren_nodes_are_lost() -> None:
    due = walk(Levels(ROOT, 1), lambda place: [3, 0, 2, 2][min(place.number, 3)], 8)
    depths = [place.parent.depth for place, _ in due]
    assert depths == [0, 1, 1, 1, 2, 2, 2, 2, 3]
    assert len({place.parent for place, _ in due}) == len(due)


def test_a_level_that_gave_nothing_at_all_is_asked_again() -> None:
    due = walk(Levels(ROOT, 1), lambda place: 3 if place.number == 2 else 0, 9)
    asked = [(place.parent.depth, place.attempt) for place, _ in due]
    assert asked == [(0, 0), (0, 1), (0, 2), *[(1, 0)] * 3, *[(1, 1)] * 3, (1, 2)]


def test_levels_are_shuffled_by_the_seed() -> None:
    def order(seed: int) -> list[str]:
        return [place.parent.line for place, _ in walk(Levels(ROOT, seed), lambda _: 9, 9)]

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(5)}) > 1


def test_one_request_at_a_time_is_out_in_levels() -> None:
    queue = Levels(ROOT, 1)
    assert len(drain(queue)) == 1
