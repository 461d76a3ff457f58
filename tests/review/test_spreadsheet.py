"""`datacreate review --export` and `--import`: decisions in a spreadsheet; the command without a terminal."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datacreate.locking import locked
from datacreate.review.session import Change
from datacreate.review.spreadsheet import editable_text, edited_value
from tests.review.reviews import LABELED, reject, review
from tests.support.faults import at, contents, forked, killed
from tests.support.inprocess import typed
from tests.support.making import COMMONSENSE, examples, make
from tests.support.process import Ended
from tests.support.verifying import LABELS, THREE_LABELS, guessing, verified, writing

Table = list[dict[str, str]]


@pytest.fixture
def run(tmp_path: Path, model: str) -> Path:
    make(tmp_path / "run", model, **LABELED)
    return tmp_path / "run"


def command(run: Path, *words: object) -> Ended:
    return typed("review", str(run), *map(str, words))


def exported(run: Path, *words: object) -> Table:
    path = run.parent / "rows.csv"
    path.unlink(missing_ok=True)
    assert command(run, "--export", path, *words).code == 0
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))


def text_of(rows: Table, delimiter: str = ",", ending: str = "\r\n") -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator=ending)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def imported(run: Path, rows: Table, *words: object) -> Ended:
    path = run.parent / "filled.csv"
    path.write_bytes(text_of(rows).encode())
    return command(run, "--import", path, *words)


SAVED_AS: dict[str, Callable[[Table], bytes]] = {
    "UTF-8": lambda rows: text_of(rows).encode(),
    "UTF-8 with a byte order mark": lambda rows: text_of(rows).encode("utf-8-sig"),
    "semicolons": lambda rows: text_of(rows, ";").encode("utf-8-sig"),
    "tabs": lambda rows: text_of(rows, "\t").encode(),
    "LF": lambda rows: text_of(rows, ending="\n").encode(),
    "CRLF in cells": lambda rows: text_of(rows).replace("\r\n", "\n").replace("\n", "\r\n").encode(),
    "Excel's sep= line": lambda rows: ("sep=;\r\n" + text_of(rows, ";")).encode("utf-8-sig"),
}


@pytest.mark.parametrize("name", SAVED_AS)
def test_decisions_come_back_from_a_spreadsheet(tmp_path: Path, model: str, name: str) -> None:
    run = tmp_path / "run"
    make(run, model, count=10)  # options are several lines in a cell
    before = examples(run)
    rows = exported(run)
    assert [int(row["id"]) for row in rows] == list(range(1, 11))
    rows[0]["decision"] = "ACCEPT "
    rows[1] |= {"decision": "reject", "reason": "unclear;  a, b"}
    rows[2] |= {"decision": "edit", "field:question": "Wofür? Für Ärger; „hier“, dort"}
    path = tmp_path / "filled.csv"
    path.write_bytes(SAVED_AS[name](rows))
    ended = command(run, "--import", path)
    assert (ended.code, ended.err) == (0, "3 new decisions\n")
    assert ended.out == (
        "reviewed: 3 rows: 1 accepted, 1 edited, 1 rejected\nmissing rows: 1; the same `create` command writes them\n"
    )
    edited = {**before[2], "question": "Wofür? Für Ärger; „hier“, dort"}
    assert examples(run) == [before[0], edited, *before[3:]]
    again = command(run, "--import", path, "--json")  # changes nothing
    assert (again.code, again.err) == (0, "0 new decisions\n")
    assert json.loads(again.out)["reasons"] == {"unclear; a, b": 1}
    decided = exported(run)
    assert [row["decision"] for row in decided[:4]] == ["accept", "reject", "edit", ""]
    make(run, model, count=10)
    assert len(examples(run)) == 10


EDIT = {"decision": "edit"}
FAULTS: dict[str, tuple[dict[str, str], str]] = {
    "unknown id": ({"id": "31"}, "id '31': no row of this run"),
    "no number": ({"id": "=1+1"}, "id '=1+1': no row of this run"),
    "an id twice": ({"id": "1"}, "id 1: a line above also has this id; keep one"),
    "a changed row": ({"field:premise": "Another text."}, "field:premise differs from row 2; write `edit` in the"),
    "another word": ({"decision": "ok"}, "decision 'ok'; write accept, reject or edit, or leave it empty"),
    "no reason": ({"decision": "reject"}, "a rejected row needs a reason"),
    "nothing edited": (EDIT, "row 2: nothing is edited; change a field, or accept the row"),
    "not valid": (EDIT | {"field:label": "maybe"}, "row 2: schema violation (label: "),
    "a duplicate": (EDIT | {"field:premise": "P", "field:hypothesis": "H"}, "row 2: duplicate (repeats row 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_a_line_and_nothing_is_imported(run: Path, name: str) -> None:
    cells, message = FAULTS[name]
    rows = exported(run)[:3]
    rows[0] |= {"decision": "edit", "field:premise": "P", "field:hypothesis": "H"}
    rows[1] |= cells
    rows[2] |= {"decision": "perhaps"}
    before = contents(run)
    ended = imported(run, rows)
    path = run.parent / "filled.csv"
    assert ended.code == 2
    assert ended.lines[0].startswith(f"{path}: line 3: {message}")
    assert ended.lines[1].startswith(f"{path}: line 4: decision 'perhaps'")
    assert ended.failure.startswith(f"datacreate: {path}: nothing was imported; correct 2 lines")
    assert contents(run) == before


def test_a_file_that_is_no_export_is_one_line(run: Path, tmp_path: Path) -> None:
    needed = "no column 'field:premise'; give a file of --export with all its columns"
    for name, content, message in (
        ("a.csv", "id,decision\n1,accept\n", needed),
        ("a.jsonl", '{"id": 1}\n', "not a CSV file; give one of --export"),
        ("a.csv", "", "no rows"),
    ):
        (tmp_path / name).write_text(content)
        ended = command(run, "--import", tmp_path / name)
        assert (ended.code, len(ended.lines)) == (2, 1)
        assert message in ended.failure
    assert "no such file" in command(run, "--import", tmp_path / "none.csv").failure


def test_a_file_is_not_overwritten(run: Path) -> None:
    path = run.parent / "rows.csv"
    path.write_text("name,price\nnut,3\n")
    ended = command(run, "--export", path)
    assert (ended.code, path.read_text()) == (2, "name,price\nnut,3\n")
    assert f"--export {path}: it exists" in ended.failure


def test_an_old_file_does_not_revert_a_later_edit(run: Path) -> None:
    old = exported(run)
    old[0] |= {"decision": "edit", "field:premise": "A first text."}
    assert imported(run, old).lines[0] == "1 new decisions"
    assert imported(run, old).lines[0] == "0 new decisions"
    new = exported(run)
    new[0]["field:premise"] = "A second text."
    assert imported(run, new).lines[0] == "1 new decisions"
    before = contents(run)
    ended = imported(run, old)
    assert ended.code == 2
    assert "line 2: row 1 has changed since the export; export it again" in ended.lines[0]
    assert contents(run) == before
    old[0]["decision"] = ""
    assert "line 2: row 1 has changed since the export; export it again" in imported(run, old).lines[0]
    assert imported(run, new).lines[0] == "0 new decisions"


def test_labels_can_be_exchanged_in_one_import(run: Path) -> None:
    rows = exported(run)
    one, other = (next(row for row in rows if row["label"] == label) for label in ("neutral", "entailment"))
    one |= {"decision": "edit", "field:label": "entailment"}
    ended = imported(run, rows)
    assert "as many rows with the label entailment as it may have" in ended.lines[0]
    other |= {"decision": "edit", "field:label": "neutral"}
    assert imported(run, rows).code == 0
    labels = [row["label"] for row in examples(run)]
    assert {labels.count(label) for label in labels} == {10}


def test_selections_are_exported(tmp_path: Path, model: str) -> None:
    run = tmp_path / "run"
    verified(run, model, writing(1.0, LABELS), guessing, **THREE_LABELS, count=30, verify="keep")
    log = run / "log.jsonl"
    log.write_bytes(log.read_bytes() + b"{")
    rows = exported(run, "--label", "neutral", "--flag", "disagreement")
    assert log.read_bytes().endswith(b"\n{")  # an export changes nothing
    assert {(row["label"], row["flags"]) for row in rows} == {("neutral", "disagreement")}
    assert rows[0]["probabilities"].startswith("entailment 0.")
    assert len(exported(run, "--sample", "7")) == 7
    assert command(run, "--sample", "7", "--label", "neutral").code == 2
    assert "unknown label 'maybe'" in command(run, "--export", tmp_path / "x.csv", "--label", "maybe").failure


def test_a_cell_is_never_a_formula(tmp_path: Path, model: str) -> None:
    run = tmp_path / "run"
    make(run, model, example=COMMONSENSE, count=5)
    with review(run) as session:
        row = session.rows[0]
        session.decide(Change(row, "edit", values={**row.values, "question": "=SUM(1)+cmd|' /C calc'!A0"}))
        row = session.rows[1]
        session.decide(Change(row, "edit", values={**row.values, "question": "'quoted' words"}))
        reject(session, 3, "@me")
    rows = exported(run)
    cells = [cell for row in rows for cell in row.values()]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert imported(run, rows).lines == ["0 new decisions"]


def test_values_as_texts() -> None:
    lists: list[Any] = [["a", "b"], ["a\nb"], [], ["", "a"]]
    for value in ("a", "", "a\nb", None, *lists, 4, 0.5, True, {"a": [1]}, "x\u202ey", "a\rb"):
        text = editable_text(value)
        assert edited_value(text, value) == value
        assert not {"\u202e", "\r"} & set(text)
    assert edited_value("TRUE", False) is True
    assert edited_value("a\nc\n", ["a", "b"]) == ["a", "c"]
    with pytest.raises(ValueError, match="not JSON; write it like 4"):
        edited_value("four", 4)


def test_a_killed_import_is_repeated_without_doubles(run: Path, tmp_path: Path) -> None:
    rows = exported(run)
    for row in rows[:5]:
        row |= {"decision": "reject", "reason": "no"}
    rows[5] |= {"decision": "edit", "field:premise": "A new text."}
    whole = Path(shutil.copytree(run, tmp_path / "whole" / "run"))
    assert imported(whole, rows).code == 0
    for change in range(99):
        copy = Path(shutil.copytree(run, tmp_path / str(change) / "run"))
        code = forked(lambda c=copy: imported(c, rows).code, at(change, killed))  # type: ignore[misc]
        assert imported(copy, rows).code == 0
        assert examples(copy) == examples(whole)
        assert (copy / "log.jsonl").read_bytes().count(b'{"decision"') == 6
        if code == 0:
            break
    assert change > 5


# The command


def test_without_a_terminal_the_error_names_the_export(run: Path) -> None:
    ended = command(run)
    assert ended.code == 2
    assert "review needs a terminal; without one use --export FILE.csv" in ended.failure


def test_wrong_uses_are_one_line(run: Path, tmp_path: Path) -> None:
    for words in (
        ["--export", "a.csv", "--import", "b.csv"],
        ["--import", "a.csv", "--sample", "3"],
        ["--flag", "x"],
        ["--export", run / "log.jsonl"],
    ):
        assert command(run, *words).code == 2
    assert "not a run directory" in command(tmp_path / "none", "--export", tmp_path / "a.csv").failure
    assert not (tmp_path / "none").exists()
    with locked(run):
        assert "is locked by process" in command(run, "--export", tmp_path / "a.csv").failure


def test_show_prints_the_review(run: Path) -> None:
    rows = exported(run, "--sample", "4")
    for row in rows:
        row["decision"] = "accept"
    assert "sample: 4 of 4 labels right (100%, 95 % interval 51% to 100%)" in imported(run, rows).out
    shown: dict[str, Any] = json.loads(typed("show", str(run), "--json").out)["summary"]["review"]
    assert shown["sample"]["decided"] == 4
    assert "4 rows: 4 accepted" in typed("show", str(run), "--samples", "0").out
