"""Which texts are equal, and what a word is."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.formats.text_normalization import normalize_text, words

EQUAL = [
    ("Where  is\n it ?", "where is it"),
    ('"Where" is (it)?', "Where is it?"),
    ("“Stop!”, she said…", '"Stop", she said.'),
    ("don’t", "don't"),
    ("a well-known fact", "a well known fact"),
    ("a 2-year-old", "a 2 year old"),
    ("COVID‑19", "covid 19"),
    ("Paris — the city", "Paris - the city"),
    ("in the year (2019), then", "in the year 2019 then"),
    ("1,2,3", "1, 2, 3"),
    ("The ____ is _red_.", "the is red"),
    ("co\u00adoperate", "cooperate"),
    ("ﬁne cafe\u0301", "fine café"),
    ("Straße", "STRASSE"),
    ("１２３ ＝ （x）！", "123 = (x)!"),
    ("H₂O", "H2O"),
    ("2+3", "2 + 3"),
    ("(2+3)*4", "( 2 + 3 )  *  4"),
    ("−5", "-5"),
    ("1990–1995", "1990-1995"),
    ("10⁻²", "10^-2"),
    ("1½", "1 1/2"),
    ("ما هي عاصمة مصر؟", "ما هي عاصمة مصر"),
    ("水（火）？", "水 火"),
    ("¿Qué hora es?", "qué hora es"),
    ("one\u2028two", "one two"),
    ("I ❤\ufe0f it", "i ❤ it"),
]

DIFFERENT = [
    ("What is 3-4?", "What is 3*4?"),
    ("What is 3 - 4?", "What is 3 4?"),
    ("Is it -5 outside?", "Is it 5 outside?"),
    ("–5°", "5°"),
    ("-x", "x"),
    ("sin x - cos x", "sin x cos x"),
    ("(2 + 3) * 4", "2 + 3 * 4"),
    ("a - (b + c)", "a - b + c"),
    ("f(g(x)) * 2", "f(g(x) * 2)"),
    ("10²", "102"),
    ("10⁻²", "10²"),
    ("(-3)²", "-3²"),
    ("1½", "11/2"),
    ("5!", "5"),
    ("15!", "15"),
    ("(n-1)!", "n-1!"),
    ("x != y", "x = y"),
    ("x -= y", "x = y"),
    ("a -> b", "a > b"),
    ("2 ≤ 3", "2 ≥ 3"),
    ("f'(x)", "f(x)"),
    ("a[0]", "a(0)"),
    ("!ready", "ready"),
    ("snake_case", "snake case"),
    ("rm -rf", "rm rf"),
    ("Is C# typed?", "Is C typed?"),
    ("3.5", "35"),
    ("3.5", "3 5"),
    (".5 mg", "5 mg"),
    ("5‰", "5"),
    ("¬p", "p"),
    ("It is not red.", "It is red."),
    ("it's", "its"),
    ("I love it :)", "I love it :("),
    ("काला", "कीला"),
    ("มา", "มี"),
    ("résumé", "resume"),
    ("I ❤ it", "I 💔 it"),
    ("😀", "😡"),
    ("?", "!"),
    ("水", "火"),
]

TEXTS = st.text() | st.text(alphabet="ab5 -–−!().[]:;_\\'=+*^²½\u00ad,\u0301Aé’水⁻＝（")
PROSE = st.lists(st.from_regex(r"[A-Za-zäéßñ]{2,8}", fullmatch=True), min_size=1, max_size=6)
OPERATORS = st.sampled_from("+-*/=<>^×÷≤≠")


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_case_spaces_punctuation_and_variants_are_ignored(one: str, other: str) -> None:
    assert normalize_text(one) == normalize_text(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_texts_of_different_meaning_stay_different(one: str, other: str) -> None:
    assert normalize_text(one) != normalize_text(other)


@given(TEXTS)
def test_normalization_is_idempotent_and_ignores_spacing_and_composition(text: str) -> None:
    plain = normalize_text(text)
    assert normalize_text(plain) == plain
    assert normalize_text(f"  {text.replace(' ', '  ')}\n") == plain
    for form in ("NFC", "NFD"):
        assert normalize_text(unicodedata.normalize(form, text)) == plain


@given(PROSE, st.sampled_from([", ", " — ", "; ", "-", '" "', " ("]), st.sampled_from([".", "?", "!", ")!", "…"]))
def test_prose_is_its_words(parts: list[str], between: str, end: str) -> None:
    plain = normalize_text(" ".join(parts))
    assert normalize_text(between.join(parts) + end) == plain
    assert normalize_text(" ".join(parts).upper()) == plain


@given(st.integers(-99, 99), st.integers(0, 99), OPERATORS, OPERATORS)
def test_numbers_and_operators_count(a: int, b: int, operator: str, other: str) -> None:
    text = normalize_text(f"{a} {operator} {b}")
    assert normalize_text(f"{a}{operator}{b}") == text
    assert (normalize_text(f"{a} {other} {b}") == text) == (operator == other)
    assert normalize_text(f"{a} {operator} {b + 1}") != text
    assert normalize_text(f"{a} {operator} {b}²") != text
    assert normalize_text(f"{a} {b}") != text


def test_words() -> None:
    assert words("Is it well-known? f(x)=-3.5") == ["is", "it", "well", "known", *"f(x)=−", "3.5"]
    assert words("猫が好き。") == ["猫", "が", "好", "き"]
