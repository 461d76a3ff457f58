"""Contamination in meaning: rows are embedded once, compared together, and found when they are reworded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.checkpoints import resolve
from datacreate.filters import held_out_embeddings as meaning
from datacreate.filters.contamination import Contamination
from datacreate.filters.held_out import held_out_sets
from datacreate.selection.embeddings import SentenceEmbedder
from tests.benchmarks.conftest import imported
from tests.filters.texts import DIFFERENT, ODD, PARAPHRASES, HashedWords, asked

ROWS = ["green boats sail slowly home", "a lamp burns in each window tonight", "nobody counts the old stairs"]
ENCODER = "ab" * 32


def decontaminate(tmp_path: Path, questions: Sequence[str], split: str = "test") -> None:
    """Have the rows of a benchmark imported."""
    rows = [
        {"question": text, "context": None, "options": ["True", "False"], "label": True} for text in questions
    ]
    imported(tmp_path / "files", "creak", {split: rows})


def held(embedder: HashedWords, encoder_sha256: str | None = None) -> Contamination:
    """The filter by meaning alone: n-grams are too long to say anything."""
    return Contamination(
        held_out_sets(["creak"]), ngram=99, semantic=0.95, embedder=embedder, model_sha256=encoder_sha256
    )


def reworded(text: str) -> str:
    return " ".join(reversed(text.split()))


@pytest.fixture(scope="module")
def encoder() -> SentenceEmbedder:
    """A real one, from the home as it is before a test has its own."""
    return SentenceEmbedder(resolve("all-minilm-l6-v2", "encoder").path)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home's embeddings."""
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "embeddings"


def test_the_same_words_in_another_order_are_found_with_the_row_named(tmp_path: Path) -> None:
    decontaminate(tmp_path, ROWS)
    found = held(HashedWords())
    match = found.match(asked(reworded(ROWS[1])))
    assert match
    assert match == f"creak test row 2 ({ROWS[1]}): cosine 1.00"
    assert found.match(asked("who tunes the piano")) is None


def test_preparing_says_what_it_embeds_and_leaves_nothing_for_the_questions(tmp_path: Path) -> None:
    decontaminate(tmp_path, ROWS)
    embedder, said = HashedWords(), list[str]()
    found = held(embedder)
    found.prepare(said.append)
    assert said == ["embedding 3 test questions of creak"]
    assert embedder.asked == [ROWS]
    assert found.match(asked(reworded(ROWS[0])))
    assert embedder.asked == [ROWS, [reworded(ROWS[0])]]


def test_what_takes_long_is_told_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decontaminate(tmp_path, ROWS)
    monkeypatch.setattr(meaning, "_CHUNK", 1)
    monkeypatch.setattr(meaning, "_NOTIFY_SECONDS", 0.0)
    said = list[str]()
    held(HashedWords()).prepare(said.append)
    assert said[1:] == [f"embedded {done} of 3 test questions of creak" for done in (1, 2)]


def test_embeddings_that_are_kept_are_used_again(tmp_path: Path, place: Path) -> None:
    decontaminate(tmp_path, ROWS)
    held(HashedWords(), ENCODER).prepare()
    [kept] = place.rglob("*.npy")
    assert np.load(kept).dtype == np.float16
    again, said = HashedWords(), list[str]()
    found = held(again, ENCODER)
    found.prepare(said.append)
    assert again.asked == said == []
    assert found.match(asked(reworded(ROWS[2])))
    other = HashedWords()
    held(other, "cd" * 32).prepare()
    assert other.asked == [ROWS], "another encoder's are others"


@pytest.mark.parametrize("damage", ["truncated", "empty", "of other rows", "of other numbers"])
def test_embeddings_that_are_damaged_are_made_anew(tmp_path: Path, place: Path, damage: str) -> None:
    decontaminate(tmp_path, ROWS)
    held(HashedWords(), ENCODER).prepare()
    [kept] = place.rglob("*.npy")
    whole = kept.read_bytes()
    if damage == "of other rows":
        np.save(kept, np.load(kept)[:2])
    elif damage == "of other numbers":
        np.save(kept, np.load(kept).astype(np.float64))
    else:
        kept.write_bytes(whole[:-100] if damage == "truncated" else b"")
    embedder = HashedWords()
    found = held(embedder, ENCODER)
    found.prepare()
    assert embedder.asked == [ROWS]
    assert kept.read_bytes() == whole
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    assert found.match(asked(reworded(ROWS[0])))


def test_a_home_that_cannot_be_written_costs_time_only(tmp_path: Path, place: Path) -> None:
    decontaminate(tmp_path, ROWS)
    place.write_text("a file where the folder should be")
    assert held(HashedWords(), ENCODER).match(asked(reworded(ROWS[0])))


def test_no_text_is_compared_twice_and_those_at_hand_together(tmp_path: Path) -> None:
    decontaminate(tmp_path, ROWS)
    embedder = HashedWords()
    found = held(embedder)
    found.prepare()
    texts = [*map(reworded, ROWS), *DIFFERENT]
    found.prefetch([asked(text) for text in texts])
    assert embedder.asked[1:] == [texts]
    for _ in range(2):
        assert [text for text in texts if found.match(asked(text))] == texts[:3]
    assert embedder.asked[1:] == [texts]


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decontaminate(tmp_path, ROWS)
    monkeypatch.setattr(meaning, "REMEMBERED", 2)
    embedder = HashedWords()
    found = held(embedder)
    found.prepare()
    for text in "abc":
        found.match(asked(text))
    found.match(asked("c"))
    found.match(asked("a"))
    assert embedder.asked[1:] == [["a"], ["b"], ["c"], ["a"]]


words = st.lists(st.sampled_from(["red", "green", "blue", "cats", "dogs", "run"]), min_size=1, max_size=4)


@given(st.lists(words.map(" ".join), min_size=1, max_size=20))
def test_alone_and_among_others_a_text_gets_the_same_answer(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("DATACREATE_HOME", str(folder))
        decontaminate(folder, ["red cats", "cats red", "green dogs run", "dogs run green blue"])
        alone, together = held(HashedWords()), held(HashedWords())
        together.prefetch([asked(text) for text in texts])
        assert [alone.match(asked(text)) for text in texts] == [together.match(asked(text)) for text in texts]
        match = alone.match(asked("red cats"))
        assert match
        assert "row 1 " in match, "the first of equals"


@pytest.mark.model
def test_a_real_encoder_finds_test_rows_reworded_at_stated_recall_and_precision(
    tmp_path: Path, encoder: SentenceEmbedder
) -> None:
    decontaminate(tmp_path, [one for one, _ in PARAPHRASES])
    found = Contamination(held_out_sets(["creak"]), semantic=0.8, embedder=encoder)
    found.prepare()
    candidates = [asked(text) for text in (*(other for _, other in PARAPHRASES), *DIFFERENT, *ODD)]
    found.prefetch(candidates)
    said = [match if (match := found.match(candidate)) else "" for candidate in candidates]
    right = [f"creak test row {row} " in what for row, what in enumerate(said[: len(PARAPHRASES)], 1)]
    assert sum(right) >= 0.8 * len(PARAPHRASES)
    assert sum("cosine" in what for what in said) >= 0.8 * len(PARAPHRASES)
    assert not any(said[len(PARAPHRASES) :])
