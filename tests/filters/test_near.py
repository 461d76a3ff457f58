"""Near-duplicates: recall and precision, and the index behind them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from datacreate.filters.lsh import MAX_IN_BUCKET, LshIndex
from datacreate.filters.near import NearDuplicates, NearIndex, jaccard, shingles, sketch_of
from tests.filters.texts import DIFFERENT, NEAR, PARAPHRASES, asked


def exact(one: str, other: str) -> float:
    a, b = set(shingles(one)), set(shingles(other))
    return len(a & b) / len(a | b)


def filter_with(threshold: float, *added: str) -> NearDuplicates:
    filter = NearDuplicates(threshold)
    for text in added:
        filter.add(asked(text))
    return filter


def test_all_planted_near_duplicates_are_found_and_nothing_else() -> None:
    others = [*DIFFERENT, *(text for pair in PARAPHRASES for text in pair)]
    filter = filter_with(0.7, *(original for original, _ in NEAR), *others)
    for number, (_, edited) in enumerate(NEAR, 1):
        assert str(filter.match(asked(edited))).startswith(f"similar to example {number}, Jaccard 0.")
    one_by_one = NearDuplicates(0.7)
    for text in [*(original for original, _ in NEAR), *others]:
        assert one_by_one.match(asked(text)) is None
        one_by_one.add(asked(text))


def test_case_and_punctuation_are_ignored_and_the_order_of_words_is_not() -> None:
    filter = filter_with(0.5, "nothing of the kind", "the cat sat on the mat")
    assert filter.match(asked("The cat sat on a mat!")) == "similar to example 2, Jaccard 0.62"
    filter = filter_with(1.0, "Is a dog bigger than a cat?")
    assert filter.match(asked("is a dog, bigger than a CAT"))
    assert not filter.match(asked("Is a cat bigger than a dog?"))


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_recall_at_the_threshold_is_at_least_95_percent_and_precision_is_1(threshold: float) -> None:
    rng = random.Random(threshold)
    vocabulary = [f"w{number}" for number in range(5000)]
    index, pairs = NearIndex(threshold), []
    while len(pairs) < 400:
        one = rng.choices(vocabulary, k=rng.randrange(8, 60))
        other = list(one)
        for _ in range(rng.randrange(12)):
            other[rng.randrange(len(other))] = rng.choice(vocabulary)
        similarity = exact(" ".join(one), " ".join(other))
        if threshold - 0.05 < similarity < threshold + 0.05:
            pairs.append((" ".join(one), " ".join(other), similarity))
    for one, _, _ in pairs:
        index.add([one])
    found = [(index.match([other]) is not None, similarity) for _, other, similarity in pairs]
    above = [hit for hit, similarity in found if similarity >= threshold]
    assert sum(above) >= 0.95 * len(above) > 50
    assert not any(hit for hit, similarity in found if similarity < threshold)


def test_long_texts_are_estimated_within_a_tenth() -> None:
    rng = random.Random(3)
    for share in (0.02, 0.05, 0.1, 0.3):
        one = [f"w{rng.randrange(10_000)}" for _ in range(3000)]
        other = [f"v{rng.random()}" if rng.random() < share else word for word in one]
        guess = jaccard(sketch_of(shingles(" ".join(one))), sketch_of(shingles(" ".join(other))))
        assert guess == pytest.approx(exact(" ".join(one), " ".join(other)), abs=0.1)


def test_the_index_finds_shared_bands_after_any_number_of_rows() -> None:
    rows = np.random.default_rng(0).integers(0, 2**32, (5000, 4), dtype=np.uint32)
    index = LshIndex(4)
    for row in rows:
        index.add(row)
    for number in range(0, 5000, 97):
        query = rows[number].copy()
        query[[0, 1, 3]] ^= 1
        assert index.find(query) == [number]


def test_a_bucket_keeps_its_oldest_rows() -> None:
    rng = np.random.default_rng(0)
    index = LshIndex(2)
    for _ in range(3000):
        index.add(np.array([7, rng.integers(2**32)], np.uint32))
    assert index.find(np.array([7, 8], np.uint32)) == list(range(MAX_IN_BUCKET))


def test_every_input_must_be_similar() -> None:
    passage = " ".join(f"word{i}" for i in range(30))
    pairs = [
        (
            ("Give the plural of the following noun.", "ox"),
            ("Give the plural of the following noun.", "cactus"),
        ),
        (("Who was she?", passage), ("Where did the old king live?", passage)),
    ]
    for one, other in pairs:
        index = NearIndex(0.6)
        for _ in range(6):  # more rows than are compared one by one
            index.add(one)
        assert index.match(one) == (0, 1.0)
        assert index.match(other) is None
        assert index.match(["\n".join(one)]) is not None, "another number of inputs: compared as a whole"
    index.add((pairs[1][1][0], passage.replace("word7 ", "other ")))
    assert index.match(pairs[1][1]) == (6, pytest.approx(0.9, abs=0.05))
