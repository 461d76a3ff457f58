"""Rows of test sets are found in examples: copied, changed in a few words, inside longer texts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from datacreate.filters.decontamination import Decontamination
from tests.filters.texts import ODD, candidate, decontamination, decontamination_set

SUBJECTS = "baker sailor nurse farmer painter tailor pilot judge miner poet".split()
THINGS = "kettle ladder compass lantern blanket hammer violin mirror basket anchor".split()
PLACES = "harbour attic meadow station cellar orchard chapel market tunnel island".split()
REASONS = [
    "because the rain had come early that autumn",
    "since nobody else in the village wanted it",
    "although the owner had asked for it twice",
    "so that the children would not trip over it",
    "after the clock in the hall had struck nine",
]


def question(i: int) -> str:
    """One of 1,000 questions of about 16 words."""
    who, what, where = SUBJECTS[i % 10], THINGS[i // 10 % 10], PLACES[i // 100 % 10]
    return f"Why did the {who} carry a {what} into the {where} {REASONS[i % 5]} in year {i}?"


def against(rows: Sequence[str | tuple[str, str]], **how: Any) -> Decontamination:
    return decontamination([decontamination_set(rows)], **how)


def test_copies_are_found_whatever_their_case_punctuation_and_surroundings() -> None:
    decontamination = against([question(i) for i in range(200)])
    for i in range(200):
        copy = question(i).upper().replace("?", " !").replace(" ", "  ")
        match = str(decontamination.find_problem(candidate(copy)))
        assert match.startswith(f"creak test row {i + 1} (Why did the ")
        assert match.endswith(": n-gram")
    assert decontamination.find_problem(candidate(f"Here is a riddle for you. {question(7)} Think before you answer."))


def test_rows_with_two_words_changed_are_found_and_unrelated_ones_are_not() -> None:
    rng = random.Random(0)
    decontamination = against([question(i) for i in range(300)], decontaminate_near=0.6)
    found = 0
    for i in range(300):
        words = question(i).split()
        for place in rng.sample(range(len(words)), 2):
            words[place] = rng.choice(["grey", "quickly", "seven", "beyond"])
        found += decontamination.find_problem(candidate(" ".join(words))) is not None
    assert found >= 0.8 * 300
    for i in range(300):
        thing, place, who = rng.choice(THINGS), rng.choice(PLACES), rng.choice(SUBJECTS)
        unrelated = f"Can a {thing} from {1700 + i} be worth a {place}, as some {who}s say?"
        assert decontamination.find_problem(candidate(unrelated)) is None


def test_a_question_shorter_than_an_ngram_must_be_repeated_whole() -> None:
    decontamination = against(["What is it?", "how do pearls get made"])
    assert decontamination.find_problem(candidate("what is it"))
    assert not decontamination.find_problem(candidate("A parcel lies on the table, what is it that he brought?"))
    assert decontamination.find_problem(candidate("Tell me, how do pearls get made, and by whom?"))
    assert not decontamination.find_problem(candidate("How do pearls get lost?"))


@pytest.mark.parametrize(
    ("row", "example", "repeats"),
    [
        (("How do pearls get made?", "One."), ("how do pearls get made", ""), True),
        (("How do pearls get made?", "One."), ("Tell me, how do pearls get made?", ""), False),
        (("How do pearls get made?", "One."), ("How do pearls get made?", "Two."), False),
        (("How do pearls get made?", ""), ("How do pearls get made?", "Two."), True),
        (("What is it?", "One."), ("What is it?", ""), False),
    ],
)
def test_a_short_question_is_compared_unless_both_have_a_passage(
    row: tuple[str, str], example: tuple[str, str], repeats: bool
) -> None:
    assert (against([row]).find_problem(candidate(*example)) is not None) is repeats


def test_ngram_is_the_number_of_consecutive_words() -> None:
    row = "the quiet lighthouse keeper counted every single ship that passed before dawn"
    eight = candidate("Is it true that the quiet lighthouse keeper counted every single ship?")
    assert against([row]).find_problem(eight)
    assert not against([row], ngram=9).find_problem(eight)


def test_a_passage_must_share_a_large_part_with_one_row() -> None:
    texts = [" ".join(f"word{row}x{i}" for i in range(200)) for row in range(3)]
    formula = "we conducted a randomised double blind placebo controlled trial in two centres"
    decontamination = against([(question(i), f"{formula} {text}") for i, text in enumerate(texts)])
    own = " ".join(f"own{i}" for i in range(100))
    cases = {
        texts[1]: True,
        " ".join(texts[1].split()[50:110]): True,
        f"{own} {' '.join(texts[2].split()[:60])}": True,
        f"{formula} {own}": False,  # a common phrase
        f"{own} {' '.join(texts[2].split()[:12])}": False,  # a short quotation
        " ".join(f"{' '.join(text.split()[:22])} {own}" for text in texts): False,  # parts of several rows
        own: False,
    }
    for passage, repeats in cases.items():
        match = decontamination.find_problem(candidate("Is it so that nothing of the kind was ever seen?", passage))
        assert (match is not None) is repeats, passage[:60]
        assert match is None or "of the n-grams of the passage" in match
    assert "creak test row 2 " in str(decontamination.find_problem(candidate("Is it?", texts[1])))


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (question(1), True),
        ("How do pearls get made?", True),
        ("What is it?", False),
        (f"{' '.join(question(1).split()[:12])} and then some other words of another thing", False),
        (f"{' '.join(map(question, range(1, 4)))}", True),
        (f"{' '.join(map(question, range(1, 9)))}", False),
    ],
)
def test_a_question_without_a_passage_is_looked_for_in_passages(row: str, found: bool) -> None:
    own = " ".join(f"own{i}" for i in range(100))
    passage = f"{own} {question(1)} How do pearls get made? What is it? {own}"
    match = against([row]).find_problem(candidate("Is nothing of the kind ever seen?", passage))
    assert (match is not None) is found
    assert match is None or "of the n-grams of the question" in match


def test_scripts_without_spaces_are_compared_by_character() -> None:
    decontamination = against(["水在一个大气压下于摄氏一百度沸腾。"])
    assert decontamination.find_problem(candidate("请问：水在一个大气压下于摄氏一百度沸腾，对吗？"))
    assert not decontamination.find_problem(candidate("水在山顶上的沸点比较低，对吗？"))


def test_any_text_is_found_if_it_is_a_row_and_passes_if_it_is_not() -> None:
    texts = [text for text in ODD if text and "\ud800" not in text]
    rows = [f"{question(i)} {text}" for i, text in enumerate(texts)]
    other, same = against([question(1)], decontaminate_near=0.7), against(rows, decontaminate_near=0.7)
    for row, text in zip(rows, texts, strict=True):
        assert other.find_problem(candidate(text, text)) is None
        assert same.find_problem(candidate(row))


def test_rows_with_passages_repeat_each_other_as_a_whole() -> None:
    passages = [" ".join(f"word{row}x{i}" for i in range(12)) for row in range(3)]
    decontamination = against(
        [("Is it so?", passages[0]), ("How do pearls get made?", passages[1])], decontaminate_near=0.6
    )
    assert decontamination.find_problem(candidate("Is it so?", passages[2])) is None
    assert decontamination.find_problem(candidate("How do pearls get made?", passages[2])) is None
    changed = passages[1].replace("word1x5", "other")
    assert ": Jaccard 0." in str(
        against([("", passages[1])], ngram=12, decontaminate_near=0.6).find_problem(candidate("", changed))
    )
    without = against(["How do pearls get made in the sea?"], decontaminate_near=0.6)
    assert without.find_problem(candidate("How do pearls get made in a sea?", passages[2])), "no passage to compare"


def test_a_phrase_of_many_test_rows_shows_no_repeat() -> None:
    phrase = "classify the sentiment of the following text into one of three classes"
    rows = [f"{phrase}\n{' '.join(f'w{row}x{i}' for i in range(6))}" for row in range(11)]
    decontamination = against([*rows, *rows])
    assert decontamination.find_problem(candidate(f"{phrase}\nquite another text than those")) is None
    assert all(decontamination.find_problem(candidate(row)) for row in rows)
    assert against(rows[:10]).find_problem(candidate(f"{phrase}\nquite another text than those"))
