"""Runs a queue: commits requests in order and records the slots."""

from __future__ import annotations

from collections.abc import Callable

from datacreate.selection.queue import Parent, ParentQueue, RequestSlot

ROOT = Parent('{"q": "root"}', 0)


def drain(queue: ParentQueue) -> list[RequestSlot]:
    """All slots that are available now."""
    return list(iter(queue.next, None))


def walk(
    queue: ParentQueue, num_children: Callable[[RequestSlot], int], commits: int, *, chain: bool = False
) -> list[tuple[RequestSlot, int]]:
    """Commit `commits` requests; every slot with the number of commits when it became available.

    Children are numbered in order of acceptance, and their line is that number.
    """
    slots, rows = [(slot, 0) for slot in drain(queue)], 0
    for number in range(commits):
        slot = slots[number][0]
        assert slot.number == number
        accepted = num_children(slot)
        children = [Parent(str(rows + k), slot.parent.depth + 1) for k in range(accepted)]
        rows += accepted
        queue.commit(slot, children[:1] if chain else children, accepted)
        slots += [(new, number + 1) for new in drain(queue)]
    return slots
