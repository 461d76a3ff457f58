"""One row: normalized text, one spelling of the label, and what is not a row."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.benchmarks import find_benchmark
from datacreate.benchmarks.registry import clean, parse_row
from tests.benchmarks.conftest import choices, claims, passages

ANY_TEXT = st.text(st.characters(), max_size=60)


@given(ANY_TEXT)
def test_clean_text_is_printable_nfc_and_cleaning_is_idempotent(text: str) -> None:
    once = clean(text)
    assert clean(once) == once == unicodedata.normalize("NFC", once)
    assert once.splitlines() == once.removesuffix("\n").split("\n") or not once
    assert all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") for c in once)
    once.encode("utf-8")


@pytest.mark.parametrize(
    ("odd", "plain"),
    [
        ("a\u2028b\u2029c\r\nd\re", "a\nb\nc\nd\ne"),
        ("it\x92s \x96 so\x85", "it’s – so…"),
        ("bell\x07 \x9d", "bell   "),
        ("e\u0301", "é"),
        ("half \ud83d", "half \ufffd"),
    ],
)
def test_odd_characters_are_replaced_by_what_they_mean(odd: str, plain: str) -> None:
    assert clean(odd) == plain


@pytest.mark.parametrize(
    ("label", "truth"), [(True, True), (False, False), ("True", True), ("false", False), ("yes", True), (" No ", False)]
)
def test_every_spelling_of_yes_and_no_is_a_boolean(label: object, truth: bool) -> None:
    row = parse_row({**claims(1)[0], "label": label}, find_benchmark("creak"))
    assert row.label is truth
    assert row.options == ("True", "False")


BAD: dict[str, tuple[str, Any, str]] = {
    "a list": ("creak", [1], "the row: "),
    "no label": ("csqa", {"question": "Q", "context": None, "options": []}, "label: Field required"),
    "no question": ("creak", {**claims(1)[0], "question": " "}, "question: String should match"),
    "label outside the set": ("creak", {**claims(1)[0], "label": "maybe"}, "'maybe' is neither True nor False"),
    "passage in a closed book": ("creak", passages(1)[0], "this set is closed book"),
    "no passage in an open book": ("boolq_open", claims(1)[0], "this set is open book"),
    "context a number": ("csqa", {**choices(1)[0], "context": 3}, "context: Input should be a valid string"),
    "options of another set": ("piqa", choices(1)[0], "5 options, and this set has 2"),
    "options no list": ("csqa", {**choices(1)[0], "options": "abcde"}, "options: Input should be a valid tuple"),
    "label a number": ("csqa", {**choices(1)[0], "label": 2}, "label: Input should be a valid string"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_wrong_row_is_refused_with_the_reason(what: str) -> None:
    name, values, said = BAD[what]
    with pytest.raises(ValueError, match=said):
        parse_row(values, find_benchmark(name))
