"""Shortcuts: what is planted is found, what is clean is not flagged, families stay together."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.formats.task_format import TaskFormat, read_format
from datacreate.metrics.shortcuts import MOST_ROWS, Shortcut, shortcuts, why_none
from tests.filters.rows import CHOICE, PASSAGE, STATEMENT, choice_rows, sentence, statement_rows


def measured(format: TaskFormat, rows: list[dict[str, Any]], **settings: Any) -> dict[str, Shortcut]:
    return {one.name: one for one in shortcuts(format, rows, **settings)}


def warned(found: dict[str, Shortcut]) -> set[str]:
    return {name for name, one in found.items() if one.warning}


def test_a_right_option_that_is_the_longest_is_found() -> None:
    rows = choice_rows(200, 1)
    for row in rows[:140]:
        row["label"] = max(row["options"], key=len)
    found = measured(CHOICE, rows)
    assert {"longest option", "length alone"} <= warned(found) <= {*found} - {"position of the right option"}
    assert found["longest option"].score > 0.65
    assert found["longest option"].chance == pytest.approx(0.2)
    assert "longest" in str(found["longest option"].warning)


def test_options_of_one_length_share_the_win() -> None:
    rows = [
        {"question": f"q{n}?", "context": None, "options": ["aa", "bb", "c"], "label": "bb"}
        for n in range(40)
    ]
    found = measured(CHOICE, rows)
    assert found["longest option"].score == pytest.approx(0.5)
    assert found["longest option"].chance == pytest.approx(1 / 3)


def test_a_right_option_in_one_place_is_found() -> None:
    rows = choice_rows(150, 2)
    for row in rows[:90]:
        row["label"] = row["options"][3]
    found = measured(CHOICE, rows)
    assert warned(found) == {"position of the right option"}
    assert "number 4" in str(found["position of the right option"].warning)


def test_a_right_option_that_stands_in_the_question_is_found() -> None:
    rows = choice_rows(150, 2)
    for row in rows[:90]:
        row["question"] = f"What of {row['label']} is it that so many know?"
    found = measured(CHOICE, rows)
    assert warned(found) == {"words of the question"}
    assert found["words of the question"].score > 0.6
    assert "repeats the question" in str(found["words of the question"].warning)


def test_words_that_mark_the_right_option_are_found() -> None:
    rows = choice_rows(300, 3)
    for row in rows[:200]:
        right = random.Random(row["label"]).choice(["clearly", "indeed"]) + " " + row["label"]
        others = [f"never {option}" for option in row["options"] if option != row["label"]]
        row["options"], row["label"] = [*others, right], right
        random.Random(right).shuffle(row["options"])
    found = measured(CHOICE, rows)
    assert "options alone" in warned(found)
    assert "without the question" in str(found["options alone"].warning)


def test_a_word_of_one_label_alone_is_found_and_named() -> None:
    rows = statement_rows(200, 4)
    for row in rows:
        if not row["label"]:
            first, *rest = row["question"].split()
            row["question"] = " ".join([first, "not", *rest])
    found = measured(STATEMENT, rows)
    assert warned(found) == {"wording"}
    assert found["wording"].score > 0.9
    assert "'not', in 100% of 'False' rows" in str(found["wording"].warning)


def test_a_first_word_that_tells_is_found() -> None:
    rows = statement_rows(200, 5)
    for row in rows[:150]:
        row["question"] = f"{'Every' if row['label'] else 'No'} {row['question']}"
    assert "first word" in warned(measured(STATEMENT, rows))


def test_labels_of_different_length_are_found() -> None:
    rng = random.Random(6)
    rows = statement_rows(200, 6)
    for row in rows:
        row["question"] = sentence(rng, *((12, 20) if row["label"] else (5, 13)))
    assert "length alone" in warned(measured(STATEMENT, rows))


def test_where_a_passage_decides_a_question_that_gives_its_answer_away_is_a_warning_sooner() -> None:
    """Words that carry to 70 %: tolerated where the wording is part of the task, not with a passage."""
    rng = random.Random(7)
    for format, passage, name, flagged in (
        (PASSAGE, True, "question alone", {"question alone"}),
        (STATEMENT, False, "wording", set[str]()),
    ):
        rows = statement_rows(800, 7, passage=passage)
        for row in rows:
            told = row["label"] if rng.random() < 0.7 else not row["label"]
            row["question"] = f"{sentence(rng)} {'surely' if told else 'hardly'} {sentence(rng)}"
        found = measured(format, rows)
        assert 0.62 < found[name].score < 0.75
        assert warned(found) == flagged


def test_what_leaks_only_within_families_is_not_flagged() -> None:
    """All children of a parent share words and a label: nothing of it helps with another parent's."""
    rng = random.Random(8)
    rows, families = [], []
    for parent in range(40):
        shared, label = " ".join(f"{word}{parent}" for word in sentence(rng).split()), rng.random() < 0.5
        rows += [
            row | {"question": f"{shared} {row['question']}", "label": label}
            for row in statement_rows(10, parent)
        ]
        families += [f"p{parent}"] * 10
    assert not warned(measured(STATEMENT, rows, families=families))
    # Taken apart, the same rows look like a tell.
    assert "wording" in warned(measured(STATEMENT, rows))


def test_twins_with_opposite_answers_are_at_chance_and_not_below() -> None:
    rng = random.Random(9)
    rows = []
    for pair in range(100):
        options = [f"name{rng.randrange(40)}", f"place{pair % 7}"]
        twin = {"question": f"{sentence(rng)} {pair}?", "context": None, "options": options}
        rows += [twin | {"label": label} for label in options]
    found = measured(CHOICE, rows)
    assert found["options alone"].score == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("number", [50, 300])
@pytest.mark.parametrize(
    ("format", "make"), [(CHOICE, choice_rows), (STATEMENT, statement_rows)], ids=["options", "labels"]
)
def test_clean_rows_raise_no_alarm(format: TaskFormat, make: Any, number: int) -> None:
    """None of 25 sets of 50 and 25 of 300 rows, in families of five: fewer than one set in 17 (95 %)."""
    for seed in range(25):
        families = [place // 5 for place in range(number)]
        assert not warned(measured(format, make(number, seed), families=families)), seed


def test_the_same_rows_and_seed_give_the_same_figures() -> None:
    rows = choice_rows(200, 10)
    assert shortcuts(CHOICE, rows, seed=3) == shortcuts(CHOICE, rows, seed=3)


def test_of_many_rows_some_are_drawn() -> None:
    found = shortcuts(STATEMENT, statement_rows(MOST_ROWS + 500, 11))
    assert {one.rows for one in found} == {MOST_ROWS}


def test_few_rows_one_label_and_free_text_have_nothing_to_measure() -> None:
    assert shortcuts(STATEMENT, statement_rows(19, 12)) == ()
    assert shortcuts(STATEMENT, [row | {"label": True} for row in statement_rows(60, 12)]) == ()
    free = read_format(
        {
            "type": "object",
            "properties": {"question": {"type": "string"}, "answer": {"type": "string"}},
            "x-datacreate": {"roles": {"question": "question", "answer": "answer"}},
        },
        "free",
    )
    rows = [{"question": f"q {n}", "answer": f"a {n}"} for n in range(50)]
    assert shortcuts(free, rows) == ()
    assert "free text" in str(why_none(free))
    assert why_none(STATEMENT) is None


def test_rows_of_one_family_alone_are_counted_but_not_classified() -> None:
    found = measured(CHOICE, choice_rows(60, 13), families=["one"] * 60)
    assert set(found) == {"longest option", "words of the question", "position of the right option"}


texts = st.text(max_size=12) | st.sampled_from(
    ["[bold]", "\u2028", "مرحبا", "日本語", "🙂" * 3, "x" * 60_000]
)


@settings(max_examples=25)
@given(
    rows=st.lists(
        st.tuples(texts, st.lists(texts, min_size=1, max_size=4), st.integers(0, 3)), min_size=20, max_size=30
    )
)
def test_whatever_the_texts_scores_are_shares(rows: list[tuple[str, list[str], int]]) -> None:
    made = [
        {"question": question, "context": None, "options": options, "label": options[at % len(options)]}
        for question, options, at in rows
    ]
    closed = [
        {"question": question, "context": None, "options": ["True", "False"], "label": at % 2 == 0}
        for question, _, at in rows
    ]
    for one in (*shortcuts(CHOICE, made), *shortcuts(STATEMENT, closed)):
        assert 0 <= one.score <= 1 + 1e-9
        assert 0 < one.chance <= 0.5
