"""Shortcuts: planted ones are found, clean rows raise no warning, families stay together."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.formats.task_format import TaskFormat, read_format
from datacreate.metrics.shortcuts import Shortcut, measure_shortcuts
from tests.metrics.rows import CHOICE, PASSAGE, STATEMENT, choice_rows, sentence, statement_rows

Rows = list[dict[str, Any]]


def measured(task_format: TaskFormat, rows: Rows, **settings: Any) -> dict[str, Shortcut]:
    return {one.name: one for one in measure_shortcuts(task_format, rows, **settings)}


def warned(by_name: dict[str, Shortcut]) -> set[str]:
    return {name for name, one in by_name.items() if one.warning}


def right_is_longest() -> Rows:
    rows = choice_rows(200, 1)
    for row in rows[:140]:
        row["label"] = max(row["options"], key=len)
    return rows


def right_is_in_the_question() -> Rows:
    rows = choice_rows(150, 2)
    for row in rows[:90]:
        row["question"] = f"What of {row['label']} is it that so many know?"
    return rows


def words_mark_the_right_option() -> Rows:
    rows = choice_rows(300, 3)
    for row in rows[:200]:
        right = random.Random(row["label"]).choice(["clearly", "indeed"]) + " " + row["label"]
        others = [f"never {option}" for option in row["options"] if option != row["label"]]
        row["options"], row["label"] = [*others, right], right
        random.Random(right).shuffle(row["options"])
    return rows


def a_word_marks_one_label() -> Rows:
    rows = statement_rows(200, 4)
    for row in rows:
        if not row["label"]:
            first, *rest = row["question"].split()
            row["question"] = " ".join([first, "not", *rest])
    return rows


def labels_differ_in_length() -> Rows:
    rng, rows = random.Random(6), statement_rows(200, 6)
    for row in rows:
        row["question"] = sentence(rng, *((12, 20) if row["label"] else (5, 13)))
    return rows


@pytest.mark.parametrize(
    ("task_format", "rows", "name", "warning"),
    [
        (CHOICE, right_is_longest, "longest option", "longest too often"),
        (CHOICE, right_is_in_the_question, "words of the question", "repeats the question"),
        (CHOICE, words_mark_the_right_option, "options alone", "without the question"),
        (STATEMENT, a_word_marks_one_label, "wording", "'not', in 100% of 'False' rows"),
        (STATEMENT, labels_differ_in_length, "length alone", "lengths alone"),
    ],
)
def test_a_planted_shortcut_is_found(
    task_format: TaskFormat, rows: Callable[[], Rows], name: str, warning: str
) -> None:
    by_name = measured(task_format, rows())
    assert name in warned(by_name)
    assert by_name[name].score > by_name[name].chance + 0.15
    assert warning in str(by_name[name].warning)


def test_options_of_one_length_share_the_credit() -> None:
    options = {"options": ["aa", "bb", "c"], "label": "bb"}
    by_name = measured(CHOICE, [{"question": f"q{n}?", "context": None} | options for n in range(40)])
    assert by_name["longest option"].score == pytest.approx(0.5)
    assert by_name["longest option"].chance == pytest.approx(1 / 3)


def test_wording_is_tolerated_further_if_there_is_no_passage() -> None:
    rng = random.Random(7)
    for task_format, passage, name, flagged in (
        (PASSAGE, True, "question alone", {"question alone"}),
        (STATEMENT, False, "wording", set[str]()),
    ):
        rows = statement_rows(800, 7, passage=passage)
        for row in rows:
            marked = row["label"] if rng.random() < 0.7 else not row["label"]
            row["question"] = f"{sentence(rng)} {'surely' if marked else 'hardly'} {sentence(rng)}"
        by_name = measured(task_format, rows)
        assert 0.62 < by_name[name].score < 0.75
        assert warned(by_name) == flagged


def test_what_leaks_only_within_families_is_not_a_warning() -> None:
    """Children of one parent share words and a label, which says nothing about another parent's children."""
    rng = random.Random(8)
    rows, families = [], []
    for parent in range(40):
        shared, label = " ".join(f"{word}{parent}" for word in sentence(rng).split()), rng.random() < 0.5
        rows += [
            row | {"question": f"{shared} {row['question']}", "label": label} for row in statement_rows(10, parent)
        ]
        families += [f"p{parent}"] * 10
    assert not warned(measured(STATEMENT, rows, families=families))
    assert "wording" in warned(measured(STATEMENT, rows))  # with every row as a family of its own


def test_twins_with_opposite_answers_are_at_chance() -> None:
    rng = random.Random(9)
    rows = []
    for pair in range(100):
        options = [f"name{rng.randrange(40)}", f"place{pair % 7}"]
        twin = {"question": f"{sentence(rng)} {pair}?", "context": None, "options": options}
        rows += [twin | {"label": label} for label in options]
    by_name = measured(CHOICE, rows)
    assert by_name["options alone"].score == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("number", [50, 300])
@pytest.mark.parametrize(
    ("task_format", "make"), [(CHOICE, choice_rows), (STATEMENT, statement_rows)], ids=["options", "labels"]
)
def test_clean_rows_raise_no_alarm(task_format: TaskFormat, make: Any, number: int) -> None:
    """None of 25 sets, in families of five."""
    for seed in range(25):
        families = [index // 5 for index in range(number)]
        assert not warned(measured(task_format, make(number, seed), families=families)), seed


def test_few_rows_one_label_one_family_and_free_text() -> None:
    assert measure_shortcuts(STATEMENT, statement_rows(19, 12)) == ()
    assert measure_shortcuts(STATEMENT, [row | {"label": True} for row in statement_rows(60, 12)]) == ()
    labels = {"enum": [f"topic {n}" for n in range(20)]}
    fields = {"question": {"type": "string"}, "label": labels}
    topics = read_format({"type": "object", "properties": fields, "x-datacreate": {"roles": {"answer": "label"}}}, "t")
    rows = [{"question": f"Question {n} about {n % 7}?", "label": f"topic {n % 20}"} for n in range(60)]
    assert (measure_shortcuts(topics, rows[:59]), len(measure_shortcuts(topics, rows))) == (
        (),
        2,
    )  # 3 rows of each label
    by_name = measured(CHOICE, choice_rows(60, 13), families=["one"] * 60)
    assert set(by_name) == {"longest option", "words of the question"}  # nothing to cross-validate on
    document = {
        "type": "object",
        "properties": {"question": {"type": "string"}, "answer": {"type": "string"}},
        "x-datacreate": {"roles": {"answer": "answer"}},
    }
    free = read_format(document, "free")
    assert measure_shortcuts(free, [{"question": f"q {n}", "answer": f"a {n}"} for n in range(50)]) == ()


texts = st.text(max_size=12) | st.sampled_from(["[bold]", "\u2028", "مرحبا", "日本語", "🙂" * 3, "x" * 60_000])


@settings(max_examples=25)
@given(
    rows=st.lists(
        st.tuples(texts, st.lists(texts, min_size=1, max_size=4), st.integers(0, 3)), min_size=20, max_size=30
    )
)
def test_scores_of_any_texts_are_shares(rows: list[tuple[str, list[str], int]]) -> None:
    made = [
        {"question": question, "context": None, "options": options, "label": options[at % len(options)]}
        for question, options, at in rows
    ]
    closed = [
        {"question": question, "context": None, "options": ["True", "False"], "label": at % 2 == 0}
        for question, _, at in rows
    ]
    for one in (*measure_shortcuts(CHOICE, made), *measure_shortcuts(STATEMENT, closed)):
        assert 0 <= one.score <= 1 + 1e-9
        assert 0 < one.chance <= 0.5


def test_the_bound_is_wider_if_rows_come_in_families() -> None:
    rows = choice_rows(100, 1)
    for row in rows[:45]:
        row["label"] = max(row["options"], key=len)
    families = [index // 20 for index in range(100)]
    assert "longest option" in warned(measured(CHOICE, rows))
    assert "longest option" not in warned(measured(CHOICE, rows, families=families))
