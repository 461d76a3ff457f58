"""Diversity: metrics computed by hand, and properties of any set of texts."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.formats.text_normalization import words
from datacreate.metrics.diversity import MAX_PAIRED, MAX_TEXTS, measure_diversity, vendi_score, word_overlap
from tests.metrics.rows import sentence


def test_by_hand() -> None:
    metrics = measure_diversity(["The cat sat.", "the cat ran", "a dog"], examples=["the cat"])
    assert metrics is not None
    assert metrics.mean_words == pytest.approx(8 / 3)
    assert metrics.distinct_1 == pytest.approx(6 / 8)  # the, cat, sat, ran, a, dog
    assert metrics.distinct_2 == pytest.approx(4 / 5)
    assert metrics.distinct_3 == 1
    # Shared words: 2 of 4, none, none; of the example: 2 of 3, 2 of 3, none.
    assert metrics.between == pytest.approx(1 - (1 / 2) / 3)
    assert metrics.from_example == pytest.approx(1 - (2 / 3 + 2 / 3) / 3)
    eigenvalues = np.array([1.5, 0.5, 1.0]) / 3
    assert metrics.vendi == pytest.approx(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def test_vendi_counts_texts_that_have_nothing_in_common() -> None:
    assert vendi_score(np.eye(7)) == pytest.approx(7)
    assert vendi_score(np.ones((7, 7))) == pytest.approx(1)
    assert vendi_score(np.kron(np.eye(3), np.ones((2, 2)))) == pytest.approx(3)


def test_a_set_with_more_repeats_is_less_diverse_by_every_metric() -> None:
    rng = random.Random(1)
    fresh = [sentence(rng) for _ in range(120)]
    high, low = measure_diversity(fresh), measure_diversity([fresh[n % 10] for n in range(120)])
    assert high is not None
    assert low is not None
    assert (high.distinct_3 or 0) > (low.distinct_3 or 0)
    assert (high.self_bleu or 0) < (low.self_bleu or 0) == pytest.approx(1)
    assert (high.vendi or 0) > 3 * (low.vendi or 0)
    assert (low.vendi or 0) < 10.1


@settings(max_examples=60)
@given(texts=st.lists(st.text(max_size=20), min_size=1, max_size=12))
def test_metrics_of_any_texts_are_in_range(texts: list[str]) -> None:
    metrics = measure_diversity(texts, examples=texts[:1])
    if metrics is None:
        assert not any(map(words, texts))
        return
    matrix = word_overlap(texts)
    assert np.allclose(matrix, matrix.T)
    assert np.allclose(np.diag(matrix), 1)
    assert np.linalg.eigvalsh(matrix).min() > -1e-9
    assert metrics.vendi is not None
    assert 1 - 1e-6 <= metrics.vendi <= metrics.paired + 1e-6
    shares = (metrics.distinct_1, metrics.distinct_2, metrics.distinct_3, metrics.self_bleu, metrics.between)
    for share in (*shares, metrics.from_example):
        assert share is None or -1e-6 <= share <= 1 + 1e-6


def test_large_sets_are_sampled() -> None:
    rng = random.Random(2)
    texts = [sentence(rng) for _ in range(1500)]
    metrics = measure_diversity(texts)
    assert metrics is not None
    assert (metrics.texts, metrics.paired) == (MAX_TEXTS, MAX_PAIRED)
    assert metrics == measure_diversity(texts)
    fewer = measure_diversity(texts, count=60)
    assert fewer is not None
    assert (fewer.texts, fewer.paired) == (60, 60)


def test_too_few_texts() -> None:
    assert measure_diversity([]) is None
    assert measure_diversity([" ", "\u2028"]) is None
    alone = measure_diversity(["one text"])
    assert alone is not None
    assert (alone.self_bleu, alone.between, alone.vendi) == (None, None, pytest.approx(1))
