"""Many rows decide the format of a file; `filter` and `train` read the same rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from datacreate.errors import DatacreateError
from datacreate.finetuning.training_rows import make_training_set, read_source
from datacreate.formats import FormatOptions
from datacreate.formats.task_format import TaskFormat
from datacreate.runs.validated_rows import InvalidRow, ValidRow, read_rows
from tests.cases.test_row_file import KINDS, Row, read
from tests.support.inprocess import run

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


def kept(path: Path, **options: Any) -> tuple[Counter[str], list[Row], TaskFormat]:
    """The details of the invalid rows, the valid rows, and the format."""
    rows = read_rows(path, FormatOptions.of(**options))
    read_back = list(rows.read())
    assert rows.total == len(read_back)
    return (
        Counter(row.detail for row in read_back if isinstance(row, InvalidRow)),
        [json.loads(row.line) for row in read_back if isinstance(row, ValidRow)],
        rows.format,
    )


def tickets(number: int) -> list[Row]:
    return [{"text": f"Ticket {i} about door {7 * i}.", "label": "lift" if i % 3 else "door"} for i in range(number)]


PLUMBING = {"title": "Leaky tap", "body": "Water drips all night.", "label": "plumbing"}
CORK = {"question": "Which of these floats?", "options": ["cork", "iron", "lead"], "label": "cork"}


def texts(*labels: Any) -> list[Row]:
    return [{"text": f"t{i}", "label": label} for i, label in enumerate(labels)]


NOTE = {"text": "Stuck.", "label": "lift", "note": None}
CORK_FLOATS = {"question": "Does cork float?", "options": ["True", "False"], "label": "True"}
TAGGED = {"text": "t", "tags": ["x"]}
NEON = {"question": "Which is a gas?", "options": ["neon", "iron"], "label": "neon"}
REVIEW = {"review": {"text": "t", "mood": "good"}, "by": None}

WHOLE: dict[str, tuple[list[Row], tuple[Any, ...] | None]] = {
    "null first": ([NOTE, *({**row, "note": "n"} for row in tickets(9))], ("door", "lift")),
    "null text": ([PLUMBING, {**PLUMBING, "body": None}, {**PLUMBING, "title": None}], None),
    "optional key first": ([NOTE, *tickets(9)], ("door", "lift")),
    "optional key last": ([*tickets(9), {**NOTE, "note": "n"}], ("door", "lift")),
    "no context": ([CORK, NEON], None),
    "some contexts": ([CORK, {**CORK, "context": None}, {**CORK, "context": "Wood floats."}], None),
    "yes or no": ([CORK_FLOATS] * 2, ("True", "False")),
    "digits": (texts(*"010010"), ("0", "1")),
    "numbers": (texts(0.0, 1, 0.0, 1.0, 1.0), (0, 1)),
    "yes, no and more": (texts("yes", "no", "maybe", "no", "no", "yes"), ("maybe", "no", "yes")),
    "words of their own": (texts(*(f"word{i}" for i in range(9))), None),
    "one answer is no": (texts("no", *(f"word{i}" for i in range(9))), None),
    "keys of their own": ([{"name": f"n{i}", "attrs": {f"k{i}": "v"}} for i in range(9)], None),
    "nested": ([*[REVIEW] * 4, {"review": {"text": "u", "mood": "bad"}, "by": {"name": "x"}}], None),
    "lists": ([{"text": f"t{i}", "tags": ["x"] * i, "n": i / 2} for i in range(9)], None),
    "empty lists": ([*({"text": f"t{i}", "tags": [""] * (i % 2)} for i in range(1000)), TAGGED], None),
    "label after the first thousand": (texts(*("ab"[i > 1050] for i in range(1100))), ("a", "b")),
}
"""Rows that are all valid, and their labels."""


@pytest.mark.parametrize("name", WHOLE)
def test_the_format_comes_from_many_rows(tmp_path: Path, name: str) -> None:
    rows, labels = WHOLE[name]
    KINDS["rows.jsonl"](rows, tmp_path / "rows.jsonl")
    invalid, valid, task_format = kept(tmp_path / "rows.jsonl")
    assert (invalid, valid, task_format.labels) == (Counter(), rows, labels)


ODD_ROWS: list[Row] = [
    {},
    {"text": None, "label": "lift"},
    {"text": "", "label": "door"},
    {"header": "exported on Monday"},
    {"text": ["a", "list"], "label": 5},
    {"text": "No label."},
]


def test_odd_first_rows_do_not_decide_the_format(tmp_path: Path) -> None:
    KINDS["rows.jsonl"](ODD_ROWS + tickets(30), tmp_path / "rows.jsonl")
    invalid, valid, task_format = kept(tmp_path / "rows.jsonl")
    assert (valid, task_format.labels) == (tickets(30), ("door", "lift"))
    assert invalid == {
        "no text in the input text": 2,
        "the example: 'text' is a required property": 2,
        "the example: 'label' is a required property": 1,
        'text: ["a","list"] (list), expected text or null': 1,
    }


def test_rows_after_the_first_thousand_have_the_types_of_these(tmp_path: Path) -> None:
    KINDS["rows.jsonl"]([*tickets(1000), {"text": 5, "label": "lift"}], tmp_path / "rows.jsonl")
    invalid, _, _ = kept(tmp_path / "rows.jsonl")
    assert invalid == {"text: 5 (integer), expected text": 1}


def test_messages_show_json_types(tmp_path: Path) -> None:
    labels: list[Any] = ["True", False, True, "False", "true", None]
    rows = [{"claim": f"Claim {i} is right.", "label": label} for i, label in enumerate(labels)]
    KINDS["rows.jsonl"](rows, tmp_path / "rows.jsonl")
    ended = run("filter", tmp_path / "rows.jsonl")
    assert ended.code == 2
    assert (
        "4 of 6 rows are not valid in the format inferred, the first is line 2: label: false (boolean), "
        in ended.failure
    )
    assert 'expected "True", "False" (text); name another --format' in ended.failure


def test_texts_of_a_table_become_what_the_format_says(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [{"text": f"Stars {i}", "stars": str(i % 5 + 1), "label": "True"} for i in range(12)]
    KINDS["table.csv"]([*rows, {"text": "Many", "stars": "9", "label": "True"}], path)
    invalid, valid, task_format = kept(path, range=["stars=1..5"])
    assert invalid == {"stars: maximum 5": 1}
    assert (valid[1]["stars"], task_format.labels) == (2, (1, 2, 3, 4, 5))
    assert kept(path, labels=["stars=1,2,3,4,5,9"])[1][1]["stars"] == "2"
    types = {"text": "string", "stars": "integer", "label": "boolean"}
    document = {"properties": {name: {"type": kind} for name, kind in types.items()}}
    (tmp_path / "format.json").write_text(json.dumps(document))
    invalid, valid, _ = kept(path, format=str(tmp_path / "format.json"))
    assert (invalid, valid[0]) == (Counter(), {"text": "Stars 0", "stars": 1, "label": True})


# `filter` and `train`


@pytest.mark.parametrize("name", ["array.json", "table.csv", "rows.parquet", "folder"])
def test_filter_and_train_read_the_same_rows(tmp_path: Path, name: str) -> None:
    KINDS[name](tickets(30), tmp_path / name)
    ended = run("filter", tmp_path / name, "--near", "off", "--out", tmp_path / "new" / "out.jsonl")
    assert ended.code == 0, ended.err
    assert read(tmp_path / "new" / "out.jsonl") == tickets(30)
    training = make_training_set([read_source(str(tmp_path / name))])
    assert (len(training.examples), training.head.names) == (30, ("door", "lift"))


@pytest.mark.skipif(not CASES.is_dir(), reason="the collected cases are not here")
def test_every_collected_case_is_read_or_one_line() -> None:
    refused = set()
    for path in sorted(CASES.glob("*.*")):
        try:
            for row in read_rows(path).read():
                assert row.values
        except DatacreateError as error:
            refused.add(path.name)
            if len(str(error).splitlines()) != 1:
                raise AssertionError(str(error)) from error
    assert {"latin1.jsonl", "utf16.jsonl", "wrapped_array.json"} <= refused
