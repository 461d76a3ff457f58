"""Near-duplicates: what is found, what is not, and that the hashing does not decide it."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.filters.lsh import MAX_IN_BUCKET, LshIndex
from datacreate.filters.near import NearDuplicates, NearIndex, jaccard, shingles, sketch
from datacreate.formats.validate import Reason
from tests.filters.texts import DIFFERENT, NEAR, ODD, PARAPHRASES, asked

texts = st.text(max_size=60) | st.sampled_from(ODD[:-4])


def exact(one: str, other: str) -> float:
    a, b = set(shingles(one)), set(shingles(other))
    return len(a & b) / len(a | b)


def holding(threshold: float, *held: str) -> NearDuplicates:
    found = NearDuplicates(threshold)
    for text in held:
        found.add(asked(text))
    return found


def test_planted_near_duplicates_are_all_found_and_nothing_else_is() -> None:
    others = [*DIFFERENT, *(text for pair in PARAPHRASES for text in pair)]
    near = holding(0.7, *(original for original, _ in NEAR), *others)
    assert len(NEAR) >= 20
    for number, (_, edited) in enumerate(NEAR, 1):
        match = near.match(asked(edited))
        assert match
        assert match.startswith(f"similar to example {number}, Jaccard 0.")
    each = NearDuplicates(0.7)
    for text in [*(original for original, _ in NEAR), *others]:
        assert each.match(asked(text)) is None
        each.add(asked(text))


def test_a_match_says_which_example_and_how_alike() -> None:
    near = holding(0.5, "nothing of the kind", "the cat sat on the mat")
    match = near.match(asked("The cat sat on a mat!"))
    assert near.reason is Reason.NEAR_DUPLICATE
    assert match
    assert match == "similar to example 2, Jaccard 0.62"


def test_case_and_punctuation_do_not_count_and_the_order_of_words_does() -> None:
    near = holding(1.0, "Is a dog bigger than a cat?")
    assert near.match(asked("is a dog, bigger than a CAT"))
    assert not near.match(asked("Is a cat bigger than a dog?"))


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_recall_at_the_threshold_is_at_least_95_percent_and_precision_is_whole(threshold: float) -> None:
    rng = random.Random(threshold)
    vocabulary = [f"w{number}" for number in range(5000)]
    index, pairs = NearIndex(threshold), []
    while len(pairs) < 400:
        one = rng.choices(vocabulary, k=rng.randrange(8, 60))
        other = list(one)
        for _ in range(rng.randrange(12)):
            other[rng.randrange(len(other))] = rng.choice(vocabulary)
        alike = exact(" ".join(one), " ".join(other))
        if threshold - 0.05 < alike < threshold + 0.05:
            pairs.append((" ".join(one), " ".join(other), alike))
    for one, _, _ in pairs:
        index.add(one)
    found = [index.match(other) is not None for _, other, _ in pairs]
    above = [hit for hit, (_, _, alike) in zip(found, pairs, strict=True) if alike >= threshold]
    assert sum(above) >= 0.95 * len(above) > 50
    assert not any(hit for hit, (_, _, alike) in zip(found, pairs, strict=True) if alike < threshold)


def test_the_likeness_of_long_texts_is_estimated_within_a_tenth() -> None:
    rng = random.Random(3)
    for share in (0.02, 0.05, 0.1, 0.3):
        one = [f"w{rng.randrange(10_000)}" for _ in range(3000)]
        other = [f"v{rng.random()}" if rng.random() < share else word for word in one]
        guess = jaccard(sketch(shingles(" ".join(one))), sketch(shingles(" ".join(other))))
        assert guess == pytest.approx(exact(" ".join(one), " ".join(other)), abs=0.1)


def test_a_long_text_with_a_word_changed_is_found() -> None:
    text = " ".join(f"word{number}" for number in range(8000))
    match = holding(0.8, text).match(asked(text.replace("word4000", "other")))
    assert match
    assert match.startswith("similar to example 1, Jaccard 1.0")


@pytest.mark.parametrize("text", ODD, ids=lambda text: ascii(text[:12]))
def test_any_text_goes_through_and_is_found_again(text: str) -> None:
    near = holding(0.9, "What is kept in a quiver?")
    assert near.match(asked(text)) is None
    near.add(asked(text))
    match = near.match(asked(text))
    assert match
    assert match == "similar to example 2, Jaccard 1.00"


@given(st.lists(texts, min_size=1, max_size=12), st.floats(0.2, 1.0))
def test_an_exact_repeat_is_always_found(held: list[str], threshold: float) -> None:
    near = holding(threshold, *held)
    assert all(near.match(asked(text)) for text in held)


@given(st.lists(texts, max_size=12), st.lists(texts, max_size=6), texts)
def test_adding_never_removes_a_match(held: list[str], more: list[str], question: str) -> None:
    before = holding(0.5, *held).match(asked(question))
    after = holding(0.5, *held, *more).match(asked(question))
    assert after or not before


@given(st.lists(texts, max_size=10), st.integers(0, 10))
def test_asking_changes_nothing(held: list[str], at: int) -> None:
    questions = [asked(text) for text in held]
    plain, curious = NearDuplicates(0.6), NearDuplicates(0.6)
    for question in questions:
        plain.add(question)
        curious.match(asked(held[at % len(held)]))
        curious.match(question)
        curious.add(question)
    assert [plain.match(q) for q in questions] == [curious.match(q) for q in questions]


def test_bands_find_what_shares_one_after_any_number_of_rows() -> None:
    rows = np.random.default_rng(0).integers(0, 2**32, (5000, 4), dtype=np.uint32)
    bands = LshIndex(4)
    for row in rows:
        bands.add(row)
    assert len(bands) == 5000
    for number in range(0, 5000, 97):
        asked_for = rows[number].copy()
        asked_for[[0, 1, 3]] ^= 1
        assert bands.find(asked_for) == [number]


def test_a_bucket_keeps_the_oldest_and_its_size() -> None:
    rng = np.random.default_rng(0)
    bands = LshIndex(2)
    for _ in range(3000):
        bands.add(np.array([7, rng.integers(2**32)], np.uint32))
    assert bands.find(np.array([7, 8], np.uint32)) == list(range(MAX_IN_BUCKET))
