"""`ValueQuotas` keeps the count of each label within one of its share, and assigns labels by need."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from datacreate.creation.quotas import ValueQuotas

label_sets = st.lists(
    st.text(max_size=3) | st.booleans() | st.integers(-2, 9), min_size=1, max_size=6, unique_by=lambda x: (type(x), x)
)


def test_equal_numbers_are_one_label_and_true_is_another() -> None:
    quotas = ValueQuotas([True, 1], 4)
    quotas.add(True)
    quotas.add(1.0)
    assert (quotas.remaining(True), quotas.remaining(1), quotas.remaining(1.0)) == (1, 1, 1)
    assert quotas.remaining("1") == quotas.remaining(2.5) == 0


@given(
    weights=st.none() | st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any),
    count=st.integers(0, 60),
    rng=st.randoms(use_true_random=False),
)
def test_counts_are_exact_to_one_in_whatever_order_labels_arrive(
    weights: list[int] | None, count: int, rng: random.Random
) -> None:
    label_ratio = [weight / sum(weights) for weight in weights] if weights else [1 / 3] * 3
    labels = list(range(len(label_ratio)))
    quotas = ValueQuotas(labels, count, label_ratio if weights else None)
    accepted: Counter[int] = Counter()
    while accepted.total() < count:
        label = rng.choice([label for label in labels if quotas.remaining(label)])
        quotas.add(label)
        accepted[label] += 1
    assert not any(map(quotas.remaining, labels))
    for label, share in enumerate(label_ratio):
        assert abs(accepted[label] - count * share) < 1 + 1e-6
        assert share or not accepted[label]


@given(labels=label_sets, number=st.integers(0, 12), seed=st.integers())
def test_labels_are_assigned_evenly_while_none_is_nearly_full(labels: list[object], number: int, seed: int) -> None:
    assigned = ValueQuotas(labels, 1000).assign(number, random.Random(seed))
    counts = [sum(type(x) is type(label) and x == label for x in assigned) for label in labels]
    assert sum(counts) == len(assigned) == number
    assert max(counts) - min(counts) <= 1
    assert assigned == ValueQuotas(labels, 1000).assign(number, random.Random(seed))


@given(needed=st.lists(st.integers(0, 6), min_size=1, max_size=5), number=st.integers(1, 12), seed=st.integers())
def test_no_label_is_assigned_more_often_than_it_needs_while_others_need_some(
    needed: list[int], number: int, seed: int
) -> None:
    quotas = ValueQuotas(range(len(needed)), 6 * len(needed))
    for label, left in enumerate(needed):
        for _ in range(6 - left):
            quotas.add(label)
    assigned = Counter(quotas.assign(number, random.Random(seed)))
    assert assigned.total() == number
    if sum(needed) >= number:
        assert all(assigned[label] <= left for label, left in enumerate(needed))
    elif any(needed):
        assert all(assigned[label] >= left for label, left in enumerate(needed))
        assert all(left for label, left in enumerate(needed) if assigned[label])
