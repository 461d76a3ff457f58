"""The strategies as functions, and a real sentence encoder."""

from __future__ import annotations

import random

import pytest

from datacreate.checkpoints import resolve
from datacreate.errors import UsageError
from datacreate.selection.embeddings import SentenceSimilarity
from datacreate.selection.strategies import STRATEGIES, find_strategy, strategy
from tests.making import SharedWords

CHILDREN = ["a b x", "a b c", "y z x"]


def choose(name: str, seed: int = 0) -> list[int]:
    return list(find_strategy(name).choose("a b c d", CHILDREN, random.Random(seed), SharedWords()))


def test_the_five_of_the_paper_are_there_and_ours() -> None:
    assert list(STRATEGIES) == ["naive", "random", "diverse", "similar", "tree", "coverage"]


def test_what_each_chooses() -> None:
    assert choose("naive") == []
    assert choose("diverse") == [2]
    assert choose("similar") == [1]
    assert {choose("random", seed)[0] for seed in range(30)} == {0, 1, 2}
    assert sorted(choose("tree")) == [0, 1, 2]
    assert len({tuple(choose("tree", seed)) for seed in range(30)}) == 6


def test_the_same_seed_chooses_the_same() -> None:
    assert choose("random", 7) == choose("random", 7)
    assert choose("tree", 7) == choose("tree", 7)


def test_an_unknown_strategy_names_all() -> None:
    with pytest.raises(
        UsageError,
        match="unknown strategy 'contrastive'; choose one of naive, random, diverse, similar, tree",
    ):
        find_strategy("contrastive")


def test_without_an_encoder_similar_says_what_is_missing() -> None:
    with pytest.raises(UsageError, match="--embedding-model"):
        find_strategy("similar").choose("a", ["b"], random.Random(0), None)


def test_a_new_strategy_is_one_decorated_function() -> None:
    @strategy()
    def longest(parent, children, rng, similarity):  # type: ignore[no-untyped-def]
        """the longest child"""
        return (max(range(len(children)), key=lambda i: len(children[i])),)

    try:
        assert find_strategy("longest").queue == "chain"
        assert choose("longest") == [0]
    finally:
        del STRATEGIES["longest"]


@pytest.mark.model
def test_a_real_encoder_finds_what_is_alike() -> None:
    checkpoint = resolve("all-minilm-l6-v2", "encoder")
    similarity = SentenceSimilarity(checkpoint.path)
    parent = "Where do you keep a wet umbrella?"
    others = ["In which place is a dripping umbrella put?", "Who wrote the first symphony?", parent]
    near, far, same = similarity.similarities(parent, others)
    assert same == pytest.approx(1, abs=1e-4)
    assert far < near < same
    assert list(find_strategy("similar").choose(parent, others, random.Random(0), similarity)) == [2]
    assert list(find_strategy("diverse").choose(parent, others, random.Random(0), similarity)) == [1]
