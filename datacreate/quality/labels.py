"""Balance of a fixed label set: a quota at commit, and labels dealt so that little hits it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from datacreate.tasks.example import Json, canonical_json


class Quotas:
    """How many examples each label still may have, so that `count` ends up even to one."""

    def __init__(self, labels: Sequence[Json], count: int) -> None:
        self._labels = tuple(labels)
        self._floor, self._extra = divmod(count, len(labels))
        self._accepted: Counter[str] = Counter()

    def room(self, label: Json) -> int:
        """How many more examples with this label can be accepted."""
        key = canonical_json(label)
        used = sum(max(0, self._accepted[canonical_json(other)] - self._floor) for other in self._labels)
        above = max(0, self._accepted[key] - self._floor)
        spare = self._extra - used  # labels that may still have one more than the floor
        return max(0, self._floor - self._accepted[key]) + (1 if spare > 0 and not above else 0)

    def add(self, label: Json) -> None:
        self._accepted[canonical_json(label)] += 1

    def copy(self) -> Quotas:
        """An independent copy, to try acceptances on."""
        other = Quotas(self._labels, 0)
        other._floor, other._extra, other._accepted = self._floor, self._extra, self._accepted.copy()
        return other

    def deal(self, number: int, rng: random.Random) -> list[Json]:
        """`number` labels for one request, as even as can be among those that still have room.

        Who gets one more than the others is drawn with weights of what is missing, so that
        labels that the model fails at catch up.
        """
        rooms = [(label, self.room(label)) for label in self._labels]
        open_labels = [(label, room) for label, room in rooms if room] or [(label, 1) for label in self._labels]
        each, rest = divmod(number, len(open_labels))
        dealt = [label for label, _ in open_labels for _ in range(each)]
        pool = list(open_labels)
        for _ in range(rest):
            [(label, room)] = rng.choices(pool, weights=[room for _, room in pool])
            pool.remove((label, room))
            dealt.append(label)
        rng.shuffle(dealt)
        return dealt
