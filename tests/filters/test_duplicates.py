"""Which texts are the same text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.filters.exact import ExactDuplicates
from datacreate.formats.text_normalization import normalize_text
from datacreate.formats.validate import Reason
from tests.filters.texts import asked


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Where is it?", "where is it"),
        ("Where  is\n it ?", "Where is it?"),
        ('"Where" is (it)?', "Where is it?"),
        ("a well-known fact", "a well known fact"),
        ("ﬁne cafe\u0301", "fine café"),
        ("Straße", "STRASSE"),
        ("１２３", "123"),
        ("ما هي عاصمة مصر؟", "ما هي عاصمة مصر"),
        ("水在多少度结冰？", "水在多少度结冰"),
        ("¿Qué hora es?", "qué hora es"),
        ("one\u2028two", "one two"),
        ("I ❤\ufe0f it", "i ❤ it"),
    ],
)
def test_case_spaces_punctuation_and_variants_do_not_count(one: str, other: str) -> None:
    assert normalize_text(one) == normalize_text(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 3-4?", "What is 3*4?"),
        ("What is 3+4?", "What is 3/4?"),
        ("Is it -5 outside?", "Is it 5 outside?"),
        ("Is C# typed?", "Is C typed?"),
        ("3.5", "35"),
        ("काला", "कीला"),
        ("มา", "มี"),
        ("résumé", "resume"),
        ("I ❤ it", "I 💔 it"),
        ("😀", "😡"),
        ("?", "!"),
        ("水", "火"),
    ],
)
def test_different_texts_in_any_script_differ(one: str, other: str) -> None:
    assert normalize_text(one) != normalize_text(other)


@given(st.text())
def test_a_normalised_text_is_its_own_normal_form(text: str) -> None:
    assert normalize_text(normalize_text(text)) == normalize_text(text)


def test_what_was_added_is_found_and_nothing_else() -> None:
    seen = ExactDuplicates()
    for text in ("One?", "\ud800", "one", "three"):
        seen.add(asked(text))
    assert seen.reason is Reason.DUPLICATE
    assert seen.match(asked("ONE")) == ("repeats example 1")
    assert seen.match(asked("\ud800")) == ("repeats example 2")
    assert seen.match(asked("three")) == ("repeats example 4")
    assert seen.match(asked("two")) is None


@given(st.lists(st.text(max_size=9), max_size=20), st.text(max_size=9))
def test_a_repeat_is_what_has_the_same_normal_form(held: list[str], question: str) -> None:
    seen = ExactDuplicates()
    for text in held:
        seen.add(asked(text))
    expected = normalize_text(question) in {normalize_text(text) for text in held}
    assert (seen.match(asked(question)) is not None) == expected
