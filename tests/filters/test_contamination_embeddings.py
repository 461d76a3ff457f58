"""Rows of test sets are embedded once and cached, and rephrased repeats of them are found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from datacreate.filters.contamination import Contamination
from datacreate.messages import Notify, no_notify
from tests.filters.texts import DIFFERENT, HashedWords, candidate, contamination, decontamination_set

ROWS = ["green boats sail slowly home", "a lamp burns in each window tonight", "nobody counts the old stairs"]
MODEL = "ab" * 32


def semantic_only(
    embedder: HashedWords,
    model_sha256: str | None = None,
    rows: Sequence[str] = ROWS,
    notify: Notify = no_notify,
) -> Contamination:
    return contamination([decontamination_set(rows)], embedder, model_sha256, notify, ngram=99, semantic=0.95)


def rephrased(text: str) -> str:
    return " ".join(reversed(text.split()))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "embeddings"


def test_prepare_embeds_the_rows_and_reports_it() -> None:
    embedder, lines = HashedWords(), list[str]()
    filter = semantic_only(embedder, notify=lines.append)
    assert lines == ["embedding 3 rows of creak test"]
    assert embedder.calls == [ROWS]
    assert filter.find_conflict(candidate(rephrased(ROWS[1]))) == f"creak test row 2 ({ROWS[1]}): cosine 1.00"
    assert filter.find_conflict(candidate("who tunes the piano")) is None
    assert embedder.calls[1:] == [[rephrased(ROWS[1])], ["who tunes the piano"]]


@pytest.mark.parametrize("kept", [None, -100, 0], ids=["whole", "truncated", "empty"])
def test_cached_embeddings_are_used_again_and_made_again_if_damaged(cache: Path, kept: int | None) -> None:
    semantic_only(HashedWords(), MODEL)
    [cached] = cache.rglob("*.npy")
    whole = cached.read_bytes()
    cached.write_bytes(whole[:kept])
    embedder = HashedWords()
    filter = semantic_only(embedder, MODEL)
    assert embedder.calls == ([] if kept is None else [ROWS])
    assert cached.read_bytes() == whole
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]
    assert filter.find_conflict(candidate(rephrased(ROWS[0])))
    other = HashedWords()
    semantic_only(other, "cd" * 32)
    assert other.calls == [ROWS], "another model has its own cache"


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file in place of the folder")
    assert semantic_only(HashedWords(), MODEL).find_conflict(candidate(rephrased(ROWS[0])))


def test_a_batch_is_embedded_in_one_call() -> None:
    embedder = HashedWords()
    filter = semantic_only(embedder)
    texts = [*map(rephrased, ROWS), *DIFFERENT]
    filter.prefetch([candidate(text) for text in texts])
    assert embedder.calls[1:] == [texts]
    assert [text for text in texts if filter.find_conflict(candidate(text))] == texts[:3]


def test_the_first_of_equal_rows_is_named() -> None:
    filter = semantic_only(HashedWords(), rows=["red cats", "cats red", "dogs run green blue"])
    assert "row 1 " in str(filter.find_conflict(candidate("cats cats red red")))


def test_the_embeddings_of_a_test_set_do_not_depend_on_the_others(cache: Path) -> None:
    semantic_only(HashedWords(), MODEL)
    embedder, passage = HashedWords(), "the lake froze over in one night"
    sets = [
        decontamination_set([("Is it so?", passage), ROWS[0]], "mine"),
        decontamination_set(["odd"], "mine"),
        decontamination_set(ROWS),
    ]
    filter = contamination(sets, embedder, MODEL, ngram=99, semantic=0.95)
    assert embedder.calls == [[f"Is it so?\n{passage}", ROWS[0]], ["odd"]]
    assert str(filter.find_conflict(candidate(rephrased(ROWS[2])))).startswith("creak test row 3 ")
    assert str(filter.find_conflict(candidate("so it Is?", rephrased(passage)))).startswith(
        "mine test row 1 "
    )
    assert filter.find_conflict(candidate("Is it so?", "nobody was at home")) is None
