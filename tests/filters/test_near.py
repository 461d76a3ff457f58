"""Near-duplicates: recall and precision, and the index behind them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from datacreate.filters.near import NearDuplicates
from datacreate.filters.near_index import MAX_IN_BUCKET, LshIndex, NearIndex, shingles
from tests.filters.texts import DIFFERENT, NEAR, PARAPHRASES, candidate, near_filter


def exact(one: str, other: str) -> float:
    a, b = set(shingles(one)), set(shingles(other))
    return len(a & b) / len(a | b)


def filter_with(threshold: float, *added: str) -> NearDuplicates:
    duplicates = near_filter(threshold)
    for number, text in enumerate(added):
        duplicates.add(candidate(text), number)
    return duplicates


def test_all_planted_near_duplicates_are_found_and_nothing_else() -> None:
    duplicates = near_filter(0.7)
    texts = [*(one for one, _ in NEAR), *DIFFERENT, *(text for pair in PARAPHRASES for text in pair)]
    for number, text in enumerate(texts):
        assert duplicates.find_problem(candidate(text)) is None
        duplicates.add(candidate(text), number)
    for number, (_, edited) in enumerate(NEAR):
        assert str(duplicates.find_problem(candidate(edited))).startswith(
            f"similar to an example of request {number}, "
        )


def test_case_and_punctuation_are_ignored_and_the_order_of_words_is_not() -> None:
    duplicates = filter_with(0.5, "nothing of the kind", "the cat sat on the mat")
    assert (
        duplicates.find_problem(candidate("The cat sat on a mat!"))
        == "similar to an example of request 1, Jaccard 0.62"
    )
    duplicates = filter_with(1.0, "Is a dog bigger than a cat?")
    assert duplicates.find_problem(candidate("is a dog, bigger than a CAT"))
    assert not duplicates.find_problem(candidate("Is a cat bigger than a dog?"))


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9, 1.0])
def test_recall_at_the_threshold_is_at_least_95_percent_and_precision_is_1(threshold: float) -> None:
    rng = random.Random(threshold)
    vocabulary = [f"w{number}" for number in range(5000)]
    index, pairs = NearIndex(threshold), []
    while len(pairs) < 400:
        one = rng.choices(vocabulary, k=rng.randrange(8, 150))
        other = list(one)
        for _ in range(rng.randrange(max(12, len(one) // 4))):
            other[rng.randrange(len(other))] = rng.choice(vocabulary)
        similarity = exact(" ".join(one), " ".join(other))
        if threshold - 0.05 < similarity < threshold + 0.05:
            pairs.append((" ".join(one), " ".join(other), similarity))
    for one, _, _ in pairs:
        index.add([one])
    matches = [(index.match([other]), similarity) for _, other, similarity in pairs]
    above = [match for match, similarity in matches if similarity >= threshold]
    assert sum(match is not None for match in above) >= 0.95 * len(above) > 50
    assert not any(match for match, similarity in matches if similarity < threshold)
    assert all(match[1] == pytest.approx(similarity) for match, similarity in matches if match)


def test_inputs_that_share_words_are_found_as_often() -> None:
    rng, vocabulary = random.Random(1), [f"w{number}" for number in range(3000)]
    index, queries = NearIndex(0.7), []
    while len(queries) < 400:
        begin = rng.choices(vocabulary, k=rng.randint(10, 20))  # of both inputs of both examples
        premise, hypothesis, *other = (" ".join(begin + rng.choices(vocabulary, k=2)) for _ in range(4))
        if min(exact(premise, other[0]), exact(hypothesis, other[1])) >= 0.7:
            index.add((premise, hypothesis))
            queries.append(other)
    assert sum(index.match(query) is not None for query in queries) >= 0.95 * 400


@pytest.mark.parametrize("together", [1, 700, 5000])
def test_the_index_finds_shared_bands_after_any_number_of_rows(together: int) -> None:
    rows = np.random.default_rng(0).integers(0, 2**32, (5000, 4), dtype=np.uint32)
    index = LshIndex(4)
    for begin in range(0, 5000, together):
        index.add(rows[begin : begin + together])
    for number in range(0, 5000, 97):
        query = rows[number].copy()
        query[[0, 1, 3]] ^= 1
        assert index.find(query[None]) == [[number]]


@pytest.mark.parametrize("together", [1, 20, 3000])
def test_a_bucket_keeps_its_oldest_rows(together: int) -> None:
    rng = np.random.default_rng(0)
    index = LshIndex(2)
    for _ in range(3000 // together):
        random_band = rng.integers(2**32, size=together, dtype=np.uint32)
        index.add(np.stack([np.full(together, 7, np.uint32), random_band], axis=1))
    assert index.find(np.array([[7, 8]], np.uint32)) == [list(range(MAX_IN_BUCKET))]


def test_every_input_must_be_similar() -> None:
    instruction, passage = "Give the plural of the following noun.", " ".join(f"word{i}" for i in range(30))
    for one, other in [
        ((instruction, "ox"), (instruction, "cactus")),
        (("Who was she?", passage), ("Where did the old king live?", passage)),
    ]:
        index = NearIndex(0.6)
        for _ in range(6):
            index.add(one)
        assert index.match(one) == (0, 1.0)
        assert index.match(other) is None
        assert index.match(["\n".join(one)]) is not None, "another number of inputs: compared as a whole"
    index.add((other[0], passage.replace("word7 ", "other ")))
    assert index.match(other) == (6, pytest.approx(0.9, abs=0.05))
