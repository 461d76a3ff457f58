"""The JSON in what a model wrote, whatever stands around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.formats.parse import extract_json
from tests.formats.kinds import json_values

ROWS = '[["Where do boats sleep?",["harbour","attic"]],["Who bakes?",["a baker","b"]]]'
TAGGED = json.dumps([["What does </think> end, and <think> begin?", ["a [", "b"]]])
lists_and_objects = json_values.filter(lambda value: isinstance(value, list | dict)).map(json.dumps)
prose = st.text(alphabet="abc 🙂é\n\t\"'`.,:;(){}!-").filter(
    lambda text: '{"' not in text and "{}" not in text
)


@pytest.mark.parametrize("part", [ROWS, '{"rows": [1, 2], "a": {}}', TAGGED, ROWS[:-8]])
@pytest.mark.parametrize(
    "before",
    [
        "",
        "Here you are:\n",
        "```json\n",
        "The example [shown] has 'two' parts [1].\n```\n",
        "<think>Five of them.</think>",
        ' <think>[1], or [[2]]? "[</think>\n\n<think></think>```json\n',
        "Hmm, five.</think>\n",
        "[hm] [1]</think>",
    ],
)
def test_what_stands_before_the_answer_is_left_out(before: str, part: str) -> None:
    assert extract_json(before + part) == part


def test_an_answer_that_is_cut_off_goes_to_the_end() -> None:
    assert extract_json(TAGGED[:-9]) == TAGGED[:-9]
    assert extract_json(f"```json\n{TAGGED[:-9]}") == TAGGED[:-9]
    assert extract_json("Well: [") == "["


@pytest.mark.parametrize("after", ["  ", "\n```", "\n```\nI hope this helps [1].", " and [no more] {of it}"])
def test_what_stands_after_the_answer_is_left_out(after: str) -> None:
    assert extract_json(ROWS + after) == ROWS
    assert extract_json(f"```json\n{TAGGED}{after}") == TAGGED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot do that.",
        f"<think>Perhaps {ROWS}",
        f"Well. <think>{ROWS}",
        f"{ROWS}</think>",
        "12",
        "a]",
    ],
)
def test_without_an_answer_there_is_nothing(text: str) -> None:
    assert extract_json(text) == ""


def test_of_several_the_longest_that_can_be_read_is_taken() -> None:
    assert extract_json("[1] [2, three, four, five] [3, 4]") == "[3, 4]"
    assert extract_json(f'[1] {{"x": 2}} {ROWS} [3]') == ROWS


@given(before=prose, part=lists_and_objects, after=prose)
def test_any_json_in_any_prose_is_found(before: str, part: str, after: str) -> None:
    found = extract_json(before + part + after)
    assert found == part or len(found) > len(part)  # prose may look like JSON too


@given(
    text=st.text()
    | st.text(alphabet='[]{}"\\ 1')
    | st.lists(
        st.sampled_from(
            TOKENS := ["<think>", "</think>", "```json", "[", "]", "{", "}", '"', "\\", " ", "a", "1", ","]
        )
    ).map("".join)
)
def test_the_answer_is_a_piece_of_the_text_and_its_own_answer(text: str) -> None:
    part = extract_json(text)
    assert part in text
    assert not part or part[0] in "[{"


@pytest.mark.parametrize(
    "piece", ["[", "{", '["', "[ ", '"', "[1]", "<think></think>", "<think>", "``` ", "[[]", '\\"[', "[a] "]
)
def test_a_long_text_takes_time_in_proportion(piece: str) -> None:
    # A quadratic reading of a million characters would take hours.
    text: Any = piece * (1_000_000 // len(piece))
    assert len(extract_json(text)) <= len(text)
