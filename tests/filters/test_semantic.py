"""Semantic duplicates, by a deterministic embedder and by a real one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.checkpoints import resolve
from datacreate.filters import semantic
from datacreate.filters.semantic import SemanticDuplicates
from datacreate.formats.validate import Candidate, Reason
from datacreate.selection.accepted_vectors import AcceptedVectors
from datacreate.selection.embeddings import SentenceEmbedder
from tests.filters.texts import DIFFERENT, NEAR, ODD, PARAPHRASES, HashedWords, asked

sentences = st.lists(st.sampled_from(["red", "green", "blue", "cats", "dogs", "run"]), max_size=4).map(
    " ".join
)


def holding(threshold: float, *held: str) -> SemanticDuplicates:
    found = SemanticDuplicates(threshold, AcceptedVectors(HashedWords()))
    for text in held:
        found.add(asked(text))
    return found


def test_the_same_words_in_another_order_are_found_and_others_are_not() -> None:
    filter = holding(0.95, *DIFFERENT, "which metal is liquid")
    match = filter.match(asked("is liquid which metal?"))
    assert filter.reason is Reason.SEMANTIC_DUPLICATE
    assert match
    assert match == "same meaning as example 43, cosine 1.00"
    assert filter.match(asked("who tunes pianos")) is None


def test_planted_pairs_are_found_and_different_questions_are_not() -> None:
    words = [
        (one, other) for one, other in NEAR if " " in one
    ]  # the embedder of the test knows no other script
    filter = SemanticDuplicates(0.85, AcceptedVectors(HashedWords()))
    for text in [*(one for one, _ in words), *DIFFERENT]:
        assert filter.match(asked(text)) is None
        filter.add(asked(text))
    found = [
        number
        for number, match in enumerate(matches(filter, [asked(other) for _, other in words]), 1)
        if match and f"example {number}," in match
    ]
    assert len(found) == len(words) >= 20


def matches(filter: SemanticDuplicates, candidates: Sequence[Candidate]) -> list[str | None]:
    return [filter.match(candidate) for candidate in candidates]


@pytest.mark.parametrize("text", ODD, ids=lambda text: ascii(text[:12]))
def test_any_text_goes_through_and_is_found_again(text: str) -> None:
    filter = holding(0.99, "What is kept in a quiver?", text)
    match = filter.match(asked(text))
    assert match
    assert match == "same meaning as example 2, cosine 1.00"


@given(st.lists(sentences, min_size=1, max_size=12), st.floats(0.1, 1.0))
def test_an_exact_repeat_is_always_found(held: list[str], threshold: float) -> None:
    filter = holding(threshold, *held)
    assert all(filter.match(asked(text)) for text in held)


@given(st.lists(sentences, max_size=12), st.lists(sentences, max_size=6), sentences)
def test_adding_never_removes_a_match(held: list[str], more: list[str], question: str) -> None:
    before = holding(0.7, *held).match(asked(question))
    after = holding(0.7, *held, *more).match(asked(question))
    assert after or not before


@given(st.lists(sentences, max_size=12), st.integers(0, 12), st.lists(sentences, min_size=1, max_size=4))
def test_a_resumed_run_embeds_nothing_again_and_decides_the_same(
    held: list[str], at: int, questions: list[str]
) -> None:
    through = holding(0.6, *held)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.f16"
        first = SemanticDuplicates(0.6, AcceptedVectors(HashedWords(), path))
        for text in held[:at]:
            first.add(asked(text))
        embedder = HashedWords()
        resumed = SemanticDuplicates(0.6, AcceptedVectors(embedder, path, len(held[:at])))
        for text in held:  # a replay adds all that was accepted
            resumed.add(asked(text))
        embedded = {text for texts in embedder.asked for text in texts}
        assert {"", *embedded} == {"", *held[at:]}  # and the root, where nothing was kept
        candidates = [asked(text) for text in questions]
        assert matches(resumed, candidates) == matches(through, candidates)


def test_with_the_graph_it_finds_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts = [f"{one} {two} {three}" for one in "abcdefgh" for two in "klmnop" for three in "uvwxyz"]
    repeats = [asked(" ".join(reversed(text.split()))) for text in texts]
    compared = matches(holding(0.95, *texts), repeats)
    monkeypatch.setattr(semantic, "MAX_EXACT", 0)
    kept = AcceptedVectors(HashedWords(), tmp_path / "vectors.f16")
    filter = SemanticDuplicates(0.95, kept)
    for text in texts:
        filter.add(asked(text))
    by_graph = matches(filter, repeats)
    resumed = SemanticDuplicates(0.95, AcceptedVectors(HashedWords(), tmp_path / "vectors.f16"))
    for text in texts:
        resumed.add(asked(text))
    assert all(compared)
    assert sum(a == b for a, b in zip(by_graph, compared, strict=True)) >= 0.99 * len(texts)
    assert matches(resumed, repeats) == by_graph


@pytest.mark.parametrize("most_exact", [20_000, 0], ids=["all compared", "by the graph"])
def test_asked_between_any_two_rows_or_after_all_of_them_it_finds_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, most_exact: int
) -> None:
    texts = [f"{one} {two} {three}" for one in "abcdefgh" for two in "klmnop" for three in "uvwxyz"]
    questions = [asked(text) for one, other in pairwise(texts) for text in (one, f"{one[:3]} {other[3:]} q")]
    monkeypatch.setattr(semantic, "MAX_EXACT", most_exact)
    in_turn = SemanticDuplicates(0.8, AcceptedVectors(HashedWords(), tmp_path / "vectors.f16"))
    for number, text in enumerate(texts):
        in_turn.match(questions[number])
        in_turn.add(asked(text))
    in_bulk = holding(0.8, *texts)
    found = matches(in_turn, questions)
    assert found == matches(in_bulk, questions)
    assert sum(match is not None for match in found) >= len(texts) - 1


@pytest.mark.model
def test_a_real_encoder_finds_paraphrases_at_stated_precision_and_recall() -> None:
    filter = SemanticDuplicates(
        0.8, AcceptedVectors(SentenceEmbedder(resolve("all-minilm-l6-v2", "encoder").path))
    )
    wrong = 0
    for text in [*(one for one, _ in PARAPHRASES), *DIFFERENT]:
        wrong += filter.match(asked(text)) is not None
        filter.add(asked(text))
    found = matches(filter, [asked(other) for _, other in PARAPHRASES])
    right = [match for number, match in enumerate(found, 1) if match and f"example {number}," in match]
    assert wrong == 0
    assert len([match for match in found if match]) == len(right)  # precision 1
    assert len(right) >= 0.8 * len(PARAPHRASES)
    for text in ODD:
        filter.match(asked(text))
        filter.add(asked(text))
        assert filter.match(asked(text))
