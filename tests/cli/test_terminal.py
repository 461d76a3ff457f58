"""What stands on a terminal does nothing there."""

from __future__ import annotations

import json

import pytest

from datacreate.cli.terminal import echo, print_json, say
from datacreate.messages import safe_line, safe_text

ODD = "\x1b[31m \x9b \u202e \u2066 \u200b \ufeff \ud800"


def test_nothing_moves_the_cursor_or_turns_text_round(capsys: pytest.CaptureFixture[str]) -> None:
    say(ODD)
    echo(ODD)
    printed = capsys.readouterr()
    for shown in (safe_line(ODD), safe_text(ODD), printed.err.rstrip("\n"), printed.out.rstrip("\n")):
        assert shown == "�[31m � � � � � �"
    print_json({ODD: [ODD]})
    shown = capsys.readouterr().out
    assert json.loads(shown) == {ODD: [ODD]}
    assert shown.isascii()


def test_letters_and_spaces_of_all_languages_stay_and_lines_end_where_one_of_ours_ends() -> None:
    for text in ("日本　語", "a\u00a0b", "עברית", "ça"):
        assert (safe_line(text), safe_text(text)) == (text, text)
    assert safe_line("a\nb\tc") == "a�b�c"
    assert safe_text("a\nb\tc") == "a\nb\tc"
