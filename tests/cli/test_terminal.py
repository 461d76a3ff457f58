"""What stands on a terminal does nothing there."""

from __future__ import annotations

import pytest

from datacreate.cli.terminal import Quarters, harmless, print_columns, printable, say

ODD = "\x1b[31m \x9b \u202e \u2066 \x7f"


def test_nothing_moves_the_cursor_or_turns_text_round(capsys: pytest.CaptureFixture[str]) -> None:
    say(ODD)
    for shown in (printable(ODD), harmless(ODD), capsys.readouterr().err.rstrip("\n")):
        assert shown == "�[31m � � � �"


def test_letters_and_spaces_of_all_languages_stay() -> None:
    for text in ("日本　語", "a\u00a0b", "עברית", "ça"):
        assert (printable(text), harmless(text)) == (text, text)


def test_lines_end_where_a_line_of_ours_ends() -> None:
    assert printable("a\nb\tc") == "a�b�c"
    assert harmless("a\nb\tc") == "a\nb\tc"


def test_columns_are_as_wide_as_their_widest_cell(capsys: pytest.CaptureFixture[str]) -> None:
    print_columns([("NAME", "N"), ("a", "12")])
    assert capsys.readouterr().out == "NAME  N\na     12\n"


def test_a_stage_is_told_at_each_quarter_once(capsys: pytest.CaptureFixture[str]) -> None:
    quarters = Quarters("mine")
    quarters("the Hub is out of reach", 0, 0, "")
    for done in range(0, 101, 10):
        quarters("hashing", done * 10**6, 10**8, "bytes")
    assert capsys.readouterr().err.splitlines() == [
        "mine: the Hub is out of reach",
        *(f"mine: hashing: {share} % of 100 MB" for share in (0, 30, 50, 80, 100)),
    ]
