"""Rows of test sets are embedded, and rephrased repeats of them are found."""

from __future__ import annotations

from tests.filters.texts import DIFFERENT, HashedWords, candidate, contamination, decontamination_set

ROWS = ["green boats sail slowly home", "a lamp burns in each window tonight", "nobody counts the old stairs"]
HOW = {"ngram": 99, "semantic": 0.95}


def rephrased(text: str) -> str:
    return " ".join(reversed(text.split()))


def test_rows_are_embedded_at_the_start_and_examples_in_batches() -> None:
    embedder, lines = HashedWords(), list[str]()
    filter = contamination([decontamination_set(ROWS)], embedder, lines.append, **HOW)
    assert lines == ["embedding 3 rows of creak test"]
    assert embedder.calls == [ROWS]
    texts = [*map(rephrased, ROWS), *DIFFERENT]
    filter.prefetch([candidate(text) for text in texts])
    assert embedder.calls[1:] == [texts]
    assert [text for text in texts if filter.find_conflict(candidate(text))] == texts[:3]
    assert filter.find_conflict(candidate(texts[1])) == f"creak test row 2 ({ROWS[1]}): cosine 1.00"


def test_the_first_of_equal_rows_is_named() -> None:
    rows = ["red cats", "cats red", "dogs run green blue"]
    filter = contamination([decontamination_set(rows)], HashedWords(), **HOW)
    assert "row 1 " in str(filter.find_conflict(candidate("cats cats red red")))


def test_a_row_is_compared_with_its_passage() -> None:
    passage = "the lake froze over in one night"
    sets = [decontamination_set([("Is it so?", passage), ROWS[0]], "mine"), decontamination_set(ROWS)]
    filter = contamination(sets, HashedWords(), **HOW)
    assert str(filter.find_conflict(candidate(rephrased(ROWS[2])))).startswith("creak test row 3 ")
    assert str(filter.find_conflict(candidate("so it Is?", rephrased(passage)))).startswith(
        "mine test row 1 "
    )
    assert filter.find_conflict(candidate("Is it so?", "nobody was at home")) is None
