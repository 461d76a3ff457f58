"""Exact duplicates are texts with the same normal form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.filters.exact import ExactDuplicates
from datacreate.formats.text_normalization import normalize_text
from tests.filters.texts import asked

EQUAL = [
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
]

DIFFERENT = [
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
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_case_spaces_punctuation_and_variants_are_ignored(one: str, other: str) -> None:
    assert normalize_text(one) == normalize_text(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_texts_in_any_script_stay_different(one: str, other: str) -> None:
    assert normalize_text(one) != normalize_text(other)


@given(st.text())
def test_normalization_is_idempotent(text: str) -> None:
    assert normalize_text(normalize_text(text)) == normalize_text(text)


def test_a_match_names_the_first_example_with_the_text() -> None:
    filter = ExactDuplicates()
    for text in ("One?", "\ud800", "one", "three"):
        filter.add(asked(text))
    found = [filter.match(asked(text)) for text in ("ONE", "\ud800", "three", "two")]
    assert found == ["repeats example 1", "repeats example 2", "repeats example 4", None]


@given(st.lists(st.text(max_size=9), max_size=20), st.text(max_size=9))
def test_exactly_texts_with_an_added_normal_form_match(added: list[str], text: str) -> None:
    filter = ExactDuplicates()
    for each in added:
        filter.add(asked(each))
    expected = normalize_text(text) in set(map(normalize_text, added))
    assert (filter.match(asked(text)) is not None) == expected
