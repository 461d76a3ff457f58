"""Exact duplicates are texts with the same normal form."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from datacreate.filters.exact import ExactDuplicates
from datacreate.formats.text_normalization import normalize_text
from tests.filters.texts import asked


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
