"""Rows of files are validated like what a model writes, each with its line number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datacreate.errors import UsageError
from datacreate.formats import FormatOptions
from datacreate.runs.validated_rows import InvalidRow, ValidRow, read_rows
from tests.support.making import COMMONSENSE


def found(path: Path, rows: list[Any], **how: Any) -> list[tuple[int, str]]:
    """Line number and outcome of each row: `valid`, or the reject reason."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return [
        (row.number, "valid" if isinstance(row, ValidRow) else row.reason.value)
        for row in read_rows(path, FormatOptions(**how)).read()
    ]


def test_rows_of_a_shipped_format_may_have_other_numbers_of_options(tmp_path: Path) -> None:
    rows = [COMMONSENSE, {**COMMONSENSE, "options": COMMONSENSE["options"][:3], "label": "nothing"}]
    rows += [{**COMMONSENSE, "options": [*COMMONSENSE["options"], "one more"], "context": "A text."}]
    rows += [{**COMMONSENSE, "question": text} for text in ("?!", "beep \x07")]
    rows += [{"question": "Who?"}]
    reasons = ["valid", "answer_not_in_options", "valid", "blank", "invalid_characters", "schema_violation"]
    for how in ({}, {"format": "multiple_choice"}):
        assert found(tmp_path / "rows.jsonl", rows, **how) == list(enumerate(reasons, 1))


def test_rows_of_an_inferred_format_may_have_other_fields_types_and_lengths(tmp_path: Path) -> None:
    first = {"text": "Good food", "note": "", "tags": ["a"], "meta": {"n": 1, "by": None}, "stars": 3}
    rows: list[dict[str, Any]] = [
        first,
        {**first, "note": None, "tags": [], "meta": {"n": 1.5}},
        {**first, "note": "Written later"},
        {**first, "stars": 9},
        {**first, "stars": 3.0},
        {**first, "extra": 1},
        {key: value for key, value in first.items() if key != "note"},
        {**first, "text": "", "tags": []},
    ]
    reasons = ["valid", "valid", "valid", "constraint_violation", "valid", "valid", "valid", "blank"]
    outcome = found(tmp_path / "rows.jsonl", rows, range={"stars": "1..5"})
    assert outcome == list(enumerate(reasons, 1))
    rows[3]["stars"] = 4
    assert found(tmp_path / "rows.jsonl", rows[:4], labels={"stars": "3,4"}) == [
        (number, "valid") for number in range(1, 5)
    ]


def test_lines_that_are_not_rows_are_reported_with_their_number(tmp_path: Path) -> None:
    good = json.dumps(COMMONSENSE).encode()
    bad = [b"{broken", b'"a text"', json.dumps({**COMMONSENSE, "question": "half \ud800"}).encode()]
    bad += [json.dumps({**COMMONSENSE, "x": float("nan")}).encode(), b"[" * 100_000]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join([good, b" ", *bad, good + b"\r", good]))
    rows = list(read_rows(path).read())
    assert [row.number for row in rows] == [1, *range(3, 10)]
    assert [row.number for row in rows if isinstance(row, ValidRow)] == [1, 8, 9]
    assert all(row.line == good.decode() for row in rows if isinstance(row, ValidRow))
    details = [row.detail for row in rows if isinstance(row, InvalidRow)]
    assert details[0].startswith("not JSON at column 2")
    assert details[1].startswith("not a JSON object: ")
    assert {row.reason for row in rows if isinstance(row, InvalidRow)} == {"invalid_json"}


def test_a_file_without_a_format_is_an_error_that_names_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("once upon a time\n[1]\n")
    with pytest.raises(UsageError, match=r"rows\.jsonl: line 1: not JSON"):
        read_rows(path)
    path.write_text(json.dumps({"question": None}))
    with pytest.raises(UsageError, match=r"rows\.jsonl: the example has no field that can vary"):
        read_rows(path)
    with pytest.raises(UsageError, match="--range cannot be combined with --format"):
        read_rows(path, FormatOptions(format="multiple_choice", range={"x": "1..2"}))
