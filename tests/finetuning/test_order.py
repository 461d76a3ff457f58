"""The order of a pass: every row once, like lengths together, the same for the same seed and pass."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from datacreate.finetuning.trial import LengthGroupedSampler

LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=300)


@given(LENGTHS, st.integers(1, 32), st.integers(0, 9), st.integers(0, 5))
def test_every_row_comes_once_in_every_pass(lengths: list[int], batch: int, seed: int, passes: int) -> None:
    order = LengthGroupedSampler(lengths, batch, seed, passes)
    assert len(order) == len(lengths)
    for _ in range(3):
        assert sorted(order) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 32), st.integers(0, 9), st.integers(1, 5))
def test_a_pass_is_the_same_whether_those_before_it_were_made_or_not(
    lengths: list[int], batch: int, seed: int, passes: int
) -> None:
    order = LengthGroupedSampler(lengths, batch, seed)
    for _ in range(passes):
        list(order)
    assert list(order) == list(LengthGroupedSampler(lengths, batch, seed, passes))


@given(LENGTHS, st.integers(1, 32))
@example([1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 3, 1], 3)  # the longest of all is in what is left over
def test_the_longest_row_is_in_the_first_batch_that_is_whole(lengths: list[int], batch: int) -> None:
    rows = list(LengthGroupedSampler(lengths, batch, seed=1))
    rest = len(lengths) % batch
    shown = [lengths[row] for row in rows]
    assert max(shown[:batch], default=0) == max(shown[: len(shown) - rest], default=max(shown[:batch]))


def test_batches_hold_rows_of_like_length_and_come_in_any_order() -> None:
    lengths = [1 + place % 97 for place in range(2000)]
    rows = list(LengthGroupedSampler(lengths, 16, seed=1, passes=1))
    batches = [[lengths[row] for row in rows[at : at + 16]] for at in range(0, 2000, 16)]
    padding = sum(max(batch) * len(batch) - sum(batch) for batch in batches)
    assert padding < 0.05 * sum(lengths)
    means = [sum(batch) / len(batch) for batch in batches]
    rises = sum(one < two for one, two in pairwise(means))
    assert 0.4 < rises / len(means) < 0.6


def test_passes_and_seeds_differ() -> None:
    lengths = list(range(1, 101))
    first, second = LengthGroupedSampler(lengths, 8, seed=1), LengthGroupedSampler(lengths, 8, seed=2)
    assert list(first) != list(second) != list(first)
