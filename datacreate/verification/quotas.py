"""Keeps the counts of a fixed label set exact: how many examples each label may still have."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from datacreate.formats.answers import label_key
from datacreate.formats.example import Json


class Quotas:
    """How many examples each label may still have; of `count` examples each count is exact to one.

    `label_ratio` (one share per label, adding up to 1) sets the target; without it all labels get the same.
    4 and 4.0 are one label, true is not 1. A value that is not a label has a quota of 0.
    """

    def __init__(
        self, labels: Sequence[Json], count: int, label_ratio: Sequence[float] | None = None
    ) -> None:
        self._labels = {label_key(label): label for label in labels}
        label_ratio = label_ratio or [1 / len(labels)] * len(labels)
        # 1e-9 against rounding: a third of 9 is 3, not 2.
        self._floors = {
            key: math.floor(count * share + 1e-9) if share else -1
            for key, share in zip(self._labels, label_ratio, strict=True)
        }
        self._spare = count - sum(max(0, floor) for floor in self._floors.values())
        self._accepted = dict.fromkeys(self._labels, 0)

    def remaining(self, label: Json) -> int:
        """How many more examples with this label can be accepted."""
        key = label_key(label)
        if key not in self._accepted:
            return 0
        left = self._floors[key] - self._accepted[key]
        # `_spare` labels may have one more than their floor: the first ones to reach it.
        return max(0, left + (1 if self._spare > 0 and left >= 0 else 0))

    def add(self, label: Json) -> None:
        """Count an accepted example with this label."""
        key = label_key(label)
        if self._accepted[key] == self._floors[key]:
            self._spare -= 1
        self._accepted[key] += 1

    def remove(self, label: Json) -> None:
        """Free the place of an accepted example with this label."""
        key = label_key(label)
        self._accepted[key] -= 1
        if self._accepted[key] == self._floors[key]:
            self._spare += 1

    def assign(self, number: int, rng: random.Random) -> list[Json]:
        """`number` labels for one request, in proportion to what each label still needs.

        No label is assigned more often than it needs while others need some. Remainders are drawn, weighted
        by need, so that labels that the model often fails at catch up.
        """
        needed = {key: left for key, label in self._labels.items() if (left := self.remaining(label))}
        needed = needed or dict.fromkeys(self._labels, 1)
        total = sum(needed.values())
        assigned: list[str] = []
        for key, left in needed.items():
            assigned += [key] * (number * left // total)
        rest = number - len(assigned)
        while rest:
            keys = [key for key, left in needed.items() if assigned.count(key) < left] or list(needed)
            drawn = _weighted_sample(keys, min(rest, len(keys)), needed, rng)
            assigned += drawn
            rest -= len(drawn)
        rng.shuffle(assigned)
        return [self._labels[key] for key in assigned]


def _weighted_sample(keys: list[str], number: int, weights: dict[str, int], rng: random.Random) -> list[str]:
    """`number` different keys, drawn in proportion to their weights."""
    pool, drawn = list(keys), []
    for _ in range(number):
        [key] = rng.choices(pool, weights=[weights[key] for key in pool])
        pool.remove(key)
        drawn.append(key)
    return drawn
