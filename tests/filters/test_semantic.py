"""Semantic duplicates, with a deterministic embedder and with a real one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.checkpoints.checkpoint import resolve
from datacreate.filters import semantic
from datacreate.filters.semantic import SemanticDuplicates
from datacreate.selection.embeddings import PassedVectors, SentenceEmbedder
from tests.filters.texts import DIFFERENT, ODD, PARAPHRASES, HashedWords, candidate, semantic_filter

sentences = st.lists(st.sampled_from(["red", "green", "blue", "cats", "dogs", "run"]), max_size=4).map(" ".join)

GRID = [f"{one} {two} {three}" for one in "abcdefgh" for two in "klmnop" for three in "uvwxyz"]


def filter_with(threshold: float, *added: str, vectors: PassedVectors | None = None) -> SemanticDuplicates:
    duplicates = semantic_filter(threshold, vectors)
    for number, text in enumerate(added):
        duplicates.add(candidate(text), number)
    return duplicates


def matches(duplicates: SemanticDuplicates, texts: list[str]) -> list[str | None]:
    return [duplicates.find_problem(candidate(text)) for text in texts]


def right(conflicts: list[str | None]) -> int:
    """How many of the matches name the request with their own number."""
    return sum(f"request {number}," in (match or "") for number, match in enumerate(conflicts))


def test_the_same_words_in_another_order_are_found_and_others_are_not() -> None:
    duplicates = filter_with(0.95, *DIFFERENT, "which metal is liquid")
    assert (
        duplicates.find_problem(candidate("is liquid which metal?"))
        == "same meaning as an example of request 14, cosine 1.00"
    )
    assert duplicates.find_problem(candidate("who tunes pianos")) is None


@given(st.lists(sentences, max_size=12), st.integers(0, 12), st.lists(sentences, min_size=1, max_size=4))
def test_a_resumed_run_embeds_nothing_twice_and_decides_the_same(added: list[str], at: int, texts: list[str]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.f16"
        filter_with(0.6, *added[:at], vectors=PassedVectors(HashedWords(), path))
        embedder = HashedWords()
        resumed = filter_with(0.6, *added, vectors=PassedVectors(embedder, path))
        embedded = {text for call in embedder.calls for text in call}
        assert {"", *embedded} == {"", *added[at:]}  # "" is the root, embedded if the file is new
        assert matches(resumed, texts) == matches(filter_with(0.6, *added), texts)


def test_the_graph_finds_the_same_as_the_exact_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    repeats = [" ".join(reversed(text.split())) for text in GRID]
    exact = matches(filter_with(0.95, *GRID), repeats)
    monkeypatch.setattr(semantic, "MAX_EXACT", 0)
    path = tmp_path / "vectors.f16"
    by_graph = matches(filter_with(0.95, *GRID, vectors=PassedVectors(HashedWords(), path)), repeats)
    resumed = filter_with(0.95, *GRID, vectors=PassedVectors(HashedWords(), path))
    assert all(exact)
    assert sum(a == b for a, b in zip(by_graph, exact, strict=True)) >= 0.99 * len(GRID)
    assert matches(resumed, repeats) == by_graph


def test_queries_between_additions_to_the_graph_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text for one, other in pairwise(GRID) for text in (one, f"{one[:3]} {other[3:]} q")]
    monkeypatch.setattr(semantic, "MAX_EXACT", 0)
    queried = semantic_filter(0.8)
    for number, text in enumerate(GRID):
        queried.find_problem(candidate(texts[number]))
        queried.add(candidate(text), number)
    conflicts = matches(queried, texts)
    assert conflicts == matches(filter_with(0.8, *GRID), texts)
    assert sum(match is not None for match in conflicts) >= len(GRID) - 1


@pytest.mark.model
def test_a_real_model_finds_four_of_five_paraphrases_and_nothing_else() -> None:
    embedder = SentenceEmbedder(resolve("all-minilm-l6-v2", "encoder").path)
    duplicates = semantic_filter(0.8, PassedVectors(embedder))
    for number, text in enumerate([*(one for one, _ in PARAPHRASES), *DIFFERENT]):
        assert duplicates.find_problem(candidate(text)) is None
        duplicates.add(candidate(text), number)
    conflicts = matches(duplicates, [other for _, other in PARAPHRASES])
    assert sum(match is not None for match in conflicts) == right(conflicts) >= 0.8 * len(PARAPHRASES)
    for number, text in enumerate(ODD):
        duplicates.add(candidate(text), number)
        assert duplicates.find_problem(candidate(text))
