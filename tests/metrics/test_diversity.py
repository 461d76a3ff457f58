"""Diversity: figures by hand, and what must hold of any set of texts."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.formats.text_normalization import words
from datacreate.metrics.diversity import MOST_PAIRED, MOST_TEXTS, distinct, diversity, draw, vendi_score
from datacreate.metrics.self_bleu import self_bleu
from datacreate.metrics.text_similarity import WordOverlap
from tests.filters.rows import sentence

OVERLAP = WordOverlap()


def test_the_figures_by_hand() -> None:
    found = diversity(["The cat sat.", "the cat ran", "a dog"], OVERLAP, example="the cat")
    assert found is not None
    assert found.mean_words == pytest.approx(8 / 3)
    assert found.distinct_1 == pytest.approx(6 / 8)  # the, cat, sat, ran, a, dog
    assert found.distinct_2 == pytest.approx(4 / 5)
    assert found.distinct_3 == 1
    # Shared words: 2 of 4, none, none; of the example: 2 of 3, 2 of 3, none.
    assert found.between == pytest.approx(1 - (1 / 2) / 3)
    assert found.from_example == pytest.approx(1 - (2 / 3 + 2 / 3) / 3)
    # Eigenvalues of K / 3: (1 + 1/2) / 3, (1 - 1/2) / 3 and 1/3.
    label_ratio = np.array([1.5, 0.5, 1.0]) / 3
    assert found.vendi == pytest.approx(np.exp(-(label_ratio * np.log(label_ratio)).sum()))


def test_vendi_counts_texts_that_have_nothing_in_common() -> None:
    assert vendi_score(np.eye(7)) == pytest.approx(7)
    assert vendi_score(np.ones((7, 7))) == pytest.approx(1)
    twice = np.kron(np.eye(3), np.ones((2, 2)))
    assert vendi_score(twice) == pytest.approx(3)


def test_a_set_with_more_repeats_is_less_diverse_in_every_figure() -> None:
    rng = random.Random(1)
    fresh = [sentence(rng) for _ in range(120)]
    stale = [fresh[n % 10] for n in range(120)]
    for high, low in ((diversity(fresh, OVERLAP), diversity(stale, OVERLAP)),):
        assert high is not None
        assert low is not None
        assert high.distinct_3 is not None
        assert low.distinct_3 is not None
        assert high.self_bleu is not None
        assert low.self_bleu is not None
        assert high.vendi is not None
        assert low.vendi is not None
        assert high.distinct_3 > low.distinct_3
        assert high.self_bleu < low.self_bleu == pytest.approx(1)
        assert high.vendi > 3 * low.vendi
        assert low.vendi < 10.1


short = st.lists(st.sampled_from("a b c d e".split()), min_size=1, max_size=8)


@settings(max_examples=60)
@given(texts=st.lists(short, min_size=2, max_size=7))
def test_self_bleu_is_sacrebleus_with_all_others_as_references(texts: list[list[str]]) -> None:
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(tokenize="none", effective_order=True)
    joined = [" ".join(text) for text in texts]
    scores = [
        bleu.sentence_score(text, joined[:place] + joined[place + 1 :]).score / 100
        for place, text in enumerate(joined)
    ]
    assert self_bleu(texts) == pytest.approx(sum(scores) / len(scores))


@settings(max_examples=60)
@given(texts=st.lists(st.text(max_size=20), min_size=1, max_size=12))
def test_whatever_the_texts_the_figures_are_in_range(texts: list[str]) -> None:
    found = diversity(texts, OVERLAP, example=texts[0])
    if found is None:
        assert not any(map(words, texts))
        return
    assert found.vendi is not None
    assert found.vendi_share is not None
    assert 1 - 1e-6 <= found.vendi <= found.paired + 1e-6
    label_ratio = (found.distinct_1, found.distinct_2, found.distinct_3, found.self_bleu, found.between)
    for share in (*label_ratio, found.from_example, found.vendi_share):
        assert share is None or -1e-6 <= share <= 1 + 1e-6


@given(texts=st.lists(st.text(max_size=9), min_size=1, max_size=9))
def test_word_overlap_is_a_kernel(texts: list[str]) -> None:
    matrix = OVERLAP.matrix(texts)
    assert np.allclose(matrix, matrix.T)
    assert np.allclose(np.diag(matrix), 1)
    assert np.linalg.eigvalsh(matrix).min() > -1e-9


def test_large_sets_are_drawn_from_by_seed() -> None:
    rng = random.Random(2)
    texts = [sentence(rng) for _ in range(1500)]
    found = diversity(texts, OVERLAP, seed=1)
    assert found is not None
    assert (found.texts, found.paired) == (MOST_TEXTS, MOST_PAIRED)
    assert found == diversity(texts, OVERLAP, seed=1) != diversity(texts, OVERLAP, seed=2)
    fewer = diversity(texts, OVERLAP, number=60)
    assert fewer is not None
    assert (fewer.texts, fewer.paired) == (60, 60)
    assert len(set(draw(texts, 60, 0))) == 60


def test_scripts_without_spaces_have_words() -> None:
    assert words("猫が好き。") == ["猫", "が", "好", "き"]
    assert words("Is it NOT so?") == ["is", "it", "not", "so"]
    assert distinct([words("猫猫")], 1) == 0.5


def test_texts_without_words_have_no_figures() -> None:
    assert diversity([], OVERLAP) is None
    assert diversity([" ", "\u2028"], OVERLAP) is None
    alone = diversity(["one text"], OVERLAP)
    assert alone is not None
    assert (alone.self_bleu, alone.between, alone.vendi) == (None, None, pytest.approx(1))
