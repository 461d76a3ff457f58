"""Shares of a fixed label set: a quota at commit, and labels dealt so that little hits it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from datacreate.formats.example import Json, canonical_json


class Quotas:
    """How many examples each label still may have, so that `count` ends up exact to one per label.

    `label_ratio` (one per label, adding up to 1) say how many; without them all have the same. Labels
    are told apart by their JSON: true is not 1. A label of no such set has no room.
    """

    def __init__(
        self, labels: Sequence[Json], count: int, label_ratio: Sequence[float] | None = None
    ) -> None:
        self._labels = {canonical_json(label): label for label in labels}
        label_ratio = label_ratio or [1 / len(labels)] * len(labels)
        # A hair more, since a third of 9 is not to be 2.
        self._floors = {
            key: math.floor(count * share + 1e-9) if share else -1
            for key, share in zip(self._labels, label_ratio, strict=True)
        }
        self._spare = count - sum(max(0, floor) for floor in self._floors.values())
        self._accepted = dict.fromkeys(self._labels, 0)

    def room(self, label: Json) -> int:
        """How many more examples with this label can be accepted."""
        return self._room(canonical_json(label))

    def _room(self, key: str) -> int:
        if key not in self._accepted:
            return 0
        left = self._floors[key] - self._accepted[key]
        # `_spare` labels may still have one more than their floor; who comes first has it.
        return max(0, left + (1 if self._spare > 0 and left >= 0 else 0))

    def add(self, label: Json) -> None:
        """Take in an accepted example with this label."""
        key = canonical_json(label)
        if self._accepted[key] == self._floors[key]:
            self._spare -= 1
        self._accepted[key] += 1

    def deal(self, number: int, rng: random.Random) -> list[Json]:
        """`number` labels for one request, in the proportion of what each still has room for.

        None is dealt more often than it has room while others have some. Who gets one more than
        the others is drawn with weights of what is missing, so that labels that the model fails
        at catch up.
        """
        room = {key: left for key in self._labels if (left := self._room(key))} or dict.fromkeys(
            self._labels, 1
        )
        total = sum(room.values())
        dealt: list[str] = []
        for key, left in room.items():
            dealt += [key] * (number * left // total)
        rest = number - len(dealt)
        while rest:
            keys = [key for key, left in room.items() if dealt.count(key) < left] or list(room)
            drawn = _drawn(keys, min(rest, len(keys)), room, rng)
            dealt += drawn
            rest -= len(drawn)
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
