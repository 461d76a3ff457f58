"""Balance of a fixed label set: a quota at commit, and labels dealt so that little hits it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from datacreate.tasks.example import Json, canonical_json


class Quotas:
    """How many examples each label still may have, so that `count` ends up even to one.

    Labels are told apart by their JSON: true is not 1. A label of no such set has no room.
    """

    def __init__(self, labels: Sequence[Json], count: int) -> None:
        self._labels = {canonical_json(label): label for label in labels}
        self._floor, self._spare = divmod(count, len(self._labels))
        self._accepted = dict.fromkeys(self._labels, 0)

    def room(self, label: Json) -> int:
        """How many more examples with this label can be accepted."""
        return self._room(canonical_json(label))

    def _room(self, key: str) -> int:
        if key not in self._accepted:
            return 0
        left = self._floor - self._accepted[key]
        # `_spare` labels may still have one more than the floor; who comes first has it.
        return max(0, left + (1 if self._spare > 0 and left >= 0 else 0))

    def add(self, label: Json) -> None:
        """Take in an accepted example with this label."""
        key = canonical_json(label)
        if self._accepted[key] == self._floor:
            self._spare -= 1
        self._accepted[key] += 1

    def copy(self) -> Quotas:
        """An independent copy, to try acceptances on."""
        other = Quotas.__new__(Quotas)
        other._labels, other._floor, other._spare = self._labels, self._floor, self._spare
        other._accepted = self._accepted.copy()
        return other

    def deal(self, number: int, rng: random.Random) -> list[Json]:
        """`number` labels for one request, as even as can be among those that still have room.

        None is dealt more often than it has room while others have some. Who gets one more than
        the others is drawn with weights of what is missing, so that labels that the model fails
        at catch up.
        """
        room = {key: left for key in self._labels if (left := self._room(key))} or dict.fromkeys(
            self._labels, 1
        )
        dealt: list[str] = []
        for each in range(number):
            if len(dealt) == number:
                break
            open_keys = [key for key, left in room.items() if left > each] or list(room)
            if len(open_keys) > number - len(dealt):
                open_keys = _drawn(open_keys, number - len(dealt), room, rng)
            dealt += open_keys
        rng.shuffle(dealt)
        return [self._labels[key] for key in dealt]


def _drawn(keys: list[str], number: int, weights: dict[str, int], rng: random.Random) -> list[str]:
    """`number` different ones of `keys`, the heavier the likelier."""
    pool, drawn = list(keys), []
    for _ in range(number):
        [key] = rng.choices(pool, weights=[weights[key] for key in pool])
        pool.remove(key)
        drawn.append(key)
    return drawn
