"""Quotas: even to one, whatever the order in which labels arrive."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from datacreate.verification.quotas import Quotas

label_sets = st.lists(
    st.text(max_size=3) | st.booleans() | st.integers(-2, 9),
    min_size=1,
    max_size=6,
    unique_by=lambda x: (type(x), x),
)


@given(labels=label_sets, count=st.integers(0, 40), chance=st.randoms(use_true_random=False))
def test_the_count_per_label_is_even_to_one_in_whatever_order_labels_arrive(
    labels: list[object], count: int, chance: random.Random
) -> None:
    quotas = Quotas(labels, count)
    accepted: Counter[int] = Counter()
    favourites = [chance.random() ** 3 for _ in labels]
    while accepted.total() < count:
        assert any(quotas.remaining(label) for label in labels)
        at = chance.choices(range(len(labels)), weights=[f + 1e-6 for f in favourites])[0]
        if quotas.remaining(labels[at]):
            quotas.add(labels[at])
            accepted[at] += 1
    assert all(quotas.remaining(label) == 0 for label in labels)
    counts = [accepted[at] for at in range(len(labels))]
    assert max(counts) - min(counts) <= 1


def test_true_and_1_and_1_point_0_are_different_labels() -> None:
    quotas = Quotas([True, 1], 2)
    quotas.add(True)
    assert (quotas.remaining(True), quotas.remaining(1), quotas.remaining(1.0)) == (0, 1, 0)


@given(
    weights=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any),
    count=st.integers(0, 60),
    chance=st.randoms(use_true_random=False),
)
def test_a_target_distribution_is_exact_to_one_per_label(
    weights: list[int], count: int, chance: random.Random
) -> None:
    label_ratio = [weight / sum(weights) for weight in weights]
    quotas = Quotas(list(range(len(label_ratio))), count, label_ratio)
    accepted = [0] * len(label_ratio)
    while sum(accepted) < count:
        at = chance.choice([label for label in range(len(label_ratio)) if quotas.remaining(label)])
        quotas.add(at)
        accepted[at] += 1
    assert not any(map(quotas.remaining, range(len(label_ratio))))
    for share, number in zip(label_ratio, accepted, strict=True):
        assert abs(number - count * share) < 1 + 1e-6
        assert share or not number


@given(labels=label_sets, number=st.integers(0, 12), seed=st.integers())
def test_labels_are_dealt_evenly_while_all_have_room(labels: list[object], number: int, seed: int) -> None:
    dealt = Quotas(labels, 1000).assign(number, random.Random(seed))
    counts = [sum(type(x) is type(label) and x == label for x in dealt) for label in labels]
    assert sum(counts) == len(dealt) == number
    assert max(counts) - min(counts) <= 1


@given(
    rooms=st.lists(st.integers(0, 6), min_size=1, max_size=5), number=st.integers(1, 12), seed=st.integers()
)
def test_none_is_dealt_beyond_its_room_while_others_have_some(
    rooms: list[int], number: int, seed: int
) -> None:
    quotas = Quotas(range(len(rooms)), 6 * len(rooms))
    for label, room in enumerate(rooms):
        for _ in range(6 - room):
            quotas.add(label)
    dealt = Counter(quotas.assign(number, random.Random(seed)))
    assert dealt.total() == number
    if sum(rooms) >= number:
        assert all(dealt[label] <= room for label, room in enumerate(rooms))
    elif any(rooms):
        assert all(dealt[label] >= room for label, room in enumerate(rooms))
        assert all(room for label, room in enumerate(rooms) if dealt[label])


def test_the_label_that_misses_most_is_dealt_most_often() -> None:
    quotas = Quotas(["rare", "common"], 100)
    for _ in range(45):
        quotas.add("common")
    first = Counter(quotas.assign(1, random.Random(seed))[0] for seed in range(300))
    assert first["rare"] > 4 * first["common"]


def test_dealing_depends_on_the_seed_alone() -> None:
    quotas = Quotas(["a", "b", "c"], 90)
    assert quotas.assign(5, random.Random(7)) == quotas.assign(5, random.Random(7))
