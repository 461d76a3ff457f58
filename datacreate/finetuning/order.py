"""In which order a pass goes through the rows: rows of like length together, batches in any order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

POOLED = 50
"""Batches whose rows are sorted together: more pad less, fewer are more random."""


class ByLength:
    """A sampler: each iteration is a pass, whose order depends on the seed and its number alone.

    So a training that goes on in the middle of a pass sees the rows that are left, each once.
    (transformers' own draws from the global random state, and goes from long to short.)
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, passes: int = 0) -> None:
        """`batch` rows make a step; so many `passes` are over."""
        self._lengths = list(lengths)
        self._batch = batch
        self._seed = seed
        self._passes = passes

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self._seed}:{self._passes}")
        number, batch = len(self._lengths), self._batch
        rows = rng.sample(range(number), number)
        pool = batch * max(1, min(POOLED, number // (4 * batch)))
        sorted_ = [
            row
            for at in range(0, number, pool)
            for row in sorted(rows[at : at + pool], key=lambda row: -self._lengths[row])
        ]
        whole = [sorted_[at : at + batch] for at in range(0, number - number % batch, batch)]
        rng.shuffle(whole)
        if self._passes == 0:  # what does not fit the memory shows at once
            longest = [max(self._lengths[row] for row in rows) for rows in whole]
            if whole:
                whole.insert(0, whole.pop(longest.index(max(longest))))
        self._passes += 1
        yield from (row for rows in whole for row in rows)
        yield from sorted_[number - number % batch :]
