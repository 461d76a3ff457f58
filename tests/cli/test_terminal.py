"""What stands on a terminal does nothing there."""

from __future__ import annotations

import pytest

from datacreate.cli.terminal import print_columns, printable, say
from datacreate.markdown import visible

ODD = "\x1b[31m \x9b \u202e \u2066 \x7f"


def test_nothing_moves_the_cursor_or_turns_text_round(capsys: pytest.CaptureFixture[str]) -> None:
    say(ODD)
    for shown in (printable(ODD), visible(ODD), capsys.readouterr().err.rstrip("\n")):
        assert shown == "�[31m � � � �"


def test_letters_and_spaces_of_all_languages_stay() -> None:
    for text in ("日本　語", "a\u00a0b", "עברית", "ça"):
        assert (printable(text), visible(text)) == (text, text)


def test_lines_end_where_a_line_of_ours_ends() -> None:
    assert printable("a\nb\tc") == "a�b�c"
    assert visible("a\nb\tc") == "a\nb\tc"


def test_columns_are_as_wide_as_their_widest_cell(capsys: pytest.CaptureFixture[str]) -> None:
    print_columns([("NAME", "N"), ("a", "12")])
    assert capsys.readouterr().out == "NAME  N\na     12\n"
