"""The strategies as functions, and a real sentence encoder."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datacreate.checkpoints.checkpoint import resolve
from datacreate.errors import UsageError
from datacreate.selection.embeddings import SentenceEmbedder
from datacreate.selection.strategies import STRATEGIES, find_strategy, strategy
from tests.filters.texts import HashedWords

CHILDREN = ["a b x", "a b c", "y z x"]


def choose(name: str, seed: int = 0) -> list[int]:
    return list(find_strategy(name).choose("a b c d", CHILDREN, random.Random(seed), HashedWords()))


def test_the_choice_of_each_strategy() -> None:
    assert list(STRATEGIES) == ["naive", "random", "diverse", "similar", "tree", "coverage"]
    assert choose("naive") == []
    assert choose("diverse") == [2]
    assert choose("similar") == [1]
    assert choose("coverage") == [0, 1, 2]
    assert {choose("random", seed)[0] for seed in range(30)} == {0, 1, 2}
    assert len({tuple(choose("tree", seed)) for seed in range(30)}) == 6
    assert choose("random", 7) == choose("random", 7)
    assert choose("tree", 7) == choose("tree", 7)


def test_an_unknown_strategy_is_an_error() -> None:
    with pytest.raises(UsageError, match="unknown strategy 'contrastive'; choose one of naive, random, diverse"):
        find_strategy("contrastive")


def test_a_new_strategy_is_one_decorated_function() -> None:
    @strategy()
    def longest(parent, children, rng, embedder):  # type: ignore[no-untyped-def]
        return (max(range(len(children)), key=lambda i: len(children[i])),)

    try:
        assert find_strategy("longest").queue == "chain"
        assert choose("longest") == [0]
    finally:
        del STRATEGIES["longest"]


def test_an_embedding_model_computes_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server fills the GPUs."""
    loaded: dict[str, Any] = {}

    class Model:
        def __init__(self, path: str, **settings: Any) -> None:
            loaded.update(settings)

        def encode(self, texts: list[str], **_: Any) -> Any:
            return np.ones((len(texts), 2))

    monkeypatch.setattr("sentence_transformers.SentenceTransformer", Model)
    assert SentenceEmbedder(tmp_path).encode(["a", "b"]).shape == (2, 2)
    assert loaded["device"] == "cpu"


@pytest.mark.model
def test_a_real_encoder_compares_meanings() -> None:
    embedder = SentenceEmbedder(resolve("all-minilm-l6-v2", "encoder").path)
    parent = "Where do you keep a wet umbrella?"
    others = ["In which place is a dripping umbrella put?", "Who wrote the first symphony?", parent]
    asked, *vectors = embedder.encode([parent, *others])
    near, far, same = (vector @ asked for vector in vectors)
    assert same == pytest.approx(1, abs=1e-4)
    assert far < near < same
    assert list(find_strategy("similar").choose(parent, others, random.Random(0), embedder)) == [2]
    assert list(find_strategy("diverse").choose(parent, others, random.Random(0), embedder)) == [1]
