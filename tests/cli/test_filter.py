"""`datacreate filter` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datacreate.cli.filter import filter
from datacreate.errors import DatacreateError, UsageError
from datacreate.filtering import DatasetFilterSettings, filter_rows
from tests.benchmarks.conftest import imported
from tests.inprocess import run
from tests.making import COMMONSENSE, examples, make

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))


def claim(text: str, label: bool = True) -> Row:
    return {"question": text, "context": None, "options": ["True", "False"], "label": label}


def different(number: int, first: int = 0) -> list[Row]:
    """Rows that share no word."""
    return [claim(" ".join(f"w{i}q{k}" for k in range(10)), i % 3 > 0) for i in range(first, first + number)]


def write(path: Path, rows: list[Row]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(text.encode("utf-8"))
    return path


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def screened(*arguments: object) -> dict[str, Any]:
    """What `--json` prints."""
    ended = CliRunner().invoke(filter, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


def refused(*arguments: object) -> str:
    """The line that a wrong command ends with."""
    try:
        ended = CliRunner().invoke(
            filter, list(map(str, arguments)), catch_exceptions=False, standalone_mode=False
        )
    except (DatacreateError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        assert "\n" not in message
        return message
    raise AssertionError(ended.output)


def dropped(report: dict[str, Any]) -> dict[str, int]:
    return {one["name"]: one["rejected"] for one in report["filters"]}


def test_what_is_planted_is_dropped_by_the_filter_that_looks_for_it(tmp_path: Path) -> None:
    rows = different(40)
    held_out = "Every tenth lighthouse on this coast was once painted red by its keeper's daughters."
    imported(tmp_path / "files", "creak", {"test": [claim(held_out)]})
    planted = [
        claim(rows[3]["question"].upper() + "!"),
        claim(rows[5]["question"] + " more"),
        claim("It is said that " + held_out.replace("daughters", "sons")),
    ]
    file = write(tmp_path / "rows.jsonl", rows[:20] + planted + rows[20:])
    out, rejects = tmp_path / "new" / "out.jsonl", tmp_path / "rejects.jsonl"
    report = screened(file, "--out", out, "--rejects", rejects)
    assert dropped(report) == {"exact": 1, "near": 1, "semantic": 0, "contamination": 1}
    assert [one["on"] for one in report["filters"]] == [True, True, False, True]
    assert (report["rows"], report["kept"], report["invalid"]) == (43, 40, 0)
    assert read(out) == rows
    found = read(rejects)
    assert [one["reason"] for one in found] == ["duplicate", "near_duplicate", "contaminated"]
    assert [one["row"] for one in found] == planted
    assert [one["line"] for one in found] == [21, 22, 23]
    assert found[2]["detail"].startswith("creak test row 1 (Every tenth lighthouse")
    assert report["filters"][3]["settings"]["decontaminate"] == ["creak"]
    [decontaminate] = report["compared_with"]
    assert (decontaminate["benchmark"], decontaminate["split"], len(decontaminate["digest"])) == (
        "creak",
        "test",
        64,
    )
    assert report["labels"] == {"before": {"True": 29, "False": 14}, "after": {"True": 26, "False": 14}}


def test_each_filter_can_be_switched_off(tmp_path: Path) -> None:
    rows = different(5)
    imported(tmp_path / "files", "creak", {"test": [rows[4]]})
    file = write(tmp_path / "rows.jsonl", [*rows, rows[0], claim(rows[1]["question"] + " more")])
    assert dropped(screened(file)) == {"exact": 1, "near": 1, "semantic": 0, "contamination": 1}
    assert dropped(screened(file, "--near", "off")) == {
        "exact": 1,
        "near": 0,
        "semantic": 0,
        "contamination": 1,
    }
    assert dropped(screened(file, "--no-exact"))["near"] == 2
    assert dropped(screened(file, "--decontaminate", "none"))["contamination"] == 0
    off = screened(file, "--decontaminate", "none", "--no-exact", "--near", "off")
    assert off["kept"] == 7
    assert [one["on"] for one in off["filters"]] == [False] * 4
    assert (
        dropped(screened(file, "--decontaminate", "creak", "--decontaminate", "creak"))["contamination"] == 1
    )


def test_the_table_says_what_was_done_and_writes_nothing(tmp_path: Path) -> None:
    rows = different(5)
    file = write(tmp_path / "rows.jsonl", [*rows, rows[0]])
    ended = run("filter", file)
    assert ended.code == 0
    assert ended.err == ""
    checks = [line.split()[0] for line in ended.out.splitlines()]
    assert checks == ["filter", "exact", "near", "semantic", "contamination", "kept", "labels:"]
    assert "kept 5 of 6 rows (83.3%)" in ended.out
    assert "labels: True 3 -> 3, False 3 -> 2" in ended.out
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_balance_keeps_the_first_rows_of_each_label(tmp_path: Path) -> None:
    rows = different(30)
    file, out, rejects = write(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl", tmp_path / "no.jsonl"
    report = screened(file, "--balance", "--out", out, "--rejects", rejects)
    assert report["labels"] == {"before": {"True": 20, "False": 10}, "after": {"True": 10, "False": 10}}
    assert report["balance"] == {"on": True, "rejected": 10}
    expected = [row for row in rows if not row["label"]] + [row for row in rows if row["label"]][:10]
    assert read(out) == sorted(expected, key=rows.index)
    assert [one["row"] for one in read(rejects)] == [row for row in rows if row["label"]][10:]
    assert {one["reason"] for one in read(rejects)} == {"over_quota"}


def test_labels_can_be_told(tmp_path: Path) -> None:
    rows = [
        {"text": f"note{i} " + " ".join(f"n{i}q{k}" for k in range(5)), "mood": "glad" if i % 4 else "sad"}
        for i in range(12)
    ]
    file = write(tmp_path / "rows.jsonl", rows)
    report = screened(file, "--balance", "--labels", "mood=glad,sad")
    assert report["labels"]["after"] == {"glad": 3, "sad": 3}
    assert "has no fixed labels" in refused(file, "--balance")
    rows[3]["mood"] = "cross"
    report = screened(write(file, rows), "--labels", "mood=glad,sad")
    assert report["invalid"] == 1
    assert report["first_invalid"] == "line 4: mood: 'cross' is not one of ['glad', 'sad']"


def test_a_run_is_read_from_its_log(tmp_path: Path, model: str) -> None:
    folder = tmp_path / "run"
    make(folder, model, count=25, verify="off")
    out = tmp_path / "out.jsonl"
    report = screened(folder, "--near", "off", "--out", out)
    assert (report["format"], report["rows"], report["kept"]) == ("multiple_choice", 25, 25)
    assert read(out) == examples(folder)
    assert "would overwrite" in refused(folder, "--out", folder / "train.jsonl")
    assert "a run directory has a format" in refused(folder, "--format", "multiple_choice")
    assert "not a run directory" in refused(tmp_path)


def test_lines_that_are_no_rows_are_counted_and_named(tmp_path: Path) -> None:
    good = different(3)
    text = "\n".join(
        [
            json.dumps(good[0]),
            "",
            "{broken",
            '"a text"',
            json.dumps({**good[1], "label": "maybe"}),
            json.dumps({"question": "no label?"}),
            json.dumps(claim("half \ud800 of a character")),
            json.dumps({**good[1], "extra": float("nan")}),
            "[" * 100_000,
            json.dumps(good[1]) + "\r",
        ]
    )
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\n\xff\xfe\n" + json.dumps(good[2]).encode())
    out, rejects = tmp_path / "out.jsonl", tmp_path / "rejects.jsonl"
    report = screened(file, "--out", out, "--rejects", rejects)
    assert (report["rows"], report["invalid"], report["kept"]) == (3, 8, 3)
    assert report["first_invalid"].startswith("line 3: not JSON at column 2")
    assert read(out) == good
    assert [one["line"] for one in read(rejects)] == [3, 4, 5, 6, 7, 8, 9, 11]
    assert {one["reason"] for one in read(rejects)} == {"invalid_json", "schema_violation"}
    assert "first: line 3" in run("filter", file).out


def test_ranges_can_be_told(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"text": f"note{i} " + " ".join(f"n{i}q{k}" for k in range(5)), "stars": i % 5 + 1} for i in range(10)
    ]
    file = write(tmp_path / "rows.jsonl", [*rows, {**rows[0], "stars": 9}])
    report = screened(file, "--range", "stars=1..5", "--balance")
    assert (report["rows"], report["invalid"]) == (10, 1)
    assert report["labels"]["after"] == {str(stars): 2 for stars in range(1, 6)}
    weighed = [{**row, "weight": 0.1 * i} for i, row in enumerate(rows)]
    write(file, weighed)
    report = screened(file, "--range", "weight=0..0.5", "--labels", "stars=1,2,3,4,5")
    assert (report["rows"], report["first_invalid"]) == (6, "line 7: weight: maximum 0.5")
    assert "write LOW..HIGH" in refused(file, "--range", "weight=much")
    assert "--range is for inferred formats" in refused(
        file, "--range", "weight=0..1", "--format", "multiple_choice"
    )


def test_a_setting_out_of_range_is_refused_in_python_too(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", different(2))
    with pytest.raises(UsageError, match=r"--near 1\.5: give a number less than or equal to 1"):
        filter_rows(file, DatasetFilterSettings.of(near=1.5))
    assert filter_rows(file)["kept"] == 2


def test_no_field_name_reaches_the_terminal_as_it_is(tmp_path: Path) -> None:
    good = [{"text": row["question"], "label": "a"} for row in different(3)]
    bad = {**good[0], "\x1b[31mred\u202e": "a", "text\x9b": "b"}
    ended = run("filter", write(tmp_path / "rows.jsonl", [*good, bad]))
    assert ended.code == 0
    assert "[31mred" in ended.out
    refused_at_once = run("filter", write(tmp_path / "bad.jsonl", [bad]), "--labels", "\u202etext=a,b")
    assert refused_at_once.code == 2
    for said in (ended.out, ended.err, refused_at_once.err):
        assert not {"\x1b", "\x9b", "\u202e"} & set(said)


ODD = [
    "Emoji 😀👩‍👩‍👧 and more",
    "هل يعيش الجمل في الصحراء؟ ‏rtl‏",
    "one\u2028two\u2029three\x85four",
    "long " + "x" * 50_000,
    "words " + " ".join(f"k{i}" for i in range(8_000)),
    "<b>bold</b> & [link](javascript:1) </script>",
    "tab\tand\nline\r\nbreaks",
    "水在多少度结冰",
    "2 ≤ 3?",
]


def test_odd_texts_come_out_as_they_went_in(tmp_path: Path) -> None:
    rows = [{**claim(text), "context": None} for text in ODD]
    imported(tmp_path / "files", "creak", {"test": different(3)})
    imported(tmp_path / "files", "boolq_open", {"test": [{**claim("is it"), "context": "It is."}]})
    for ascii_only in (False, True):
        file, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
        lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
        file.write_bytes("\n".join(lines).encode())
        for more in ((), ("--balance", "--labels", "label=true,false")):
            if more:
                lines = [*lines, json.dumps(claim("A false one", False))]
                file.write_bytes("\n".join(lines).encode())
                assert screened(file, *more, "--out", out)["kept"] == 2
                assert out.read_bytes() == f"{lines[0]}\n{lines[-1]}\n".encode()
            else:
                assert screened(file, "--out", out)["kept"] == len(rows)
                assert out.read_bytes() == "".join(line + "\n" for line in lines).encode()


@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"])).map("a {}".format),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_out_as_it_went_in(tmp_path: Path, texts: list[str]) -> None:
    rows = [claim(text) for text in texts]
    file, out, rejects = write(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl", tmp_path / "no.jsonl"
    report = screened(file, "--out", out, "--rejects", rejects)
    assert report["invalid"] == 0
    kept = read(out)
    again = sorted([*kept, *(one["row"] for one in read(rejects))], key=lambda row: str(row["question"]))
    assert again == sorted(rows, key=lambda row: str(row["question"]))
    assert kept[0] == rows[0]


@pytest.mark.parametrize("flag", ["--near", "--semantic"])
@pytest.mark.parametrize("value", ["0", "-0.5", "1.01", "nan", "inf", "much", ""])
def test_a_threshold_out_of_range_is_refused(tmp_path: Path, flag: str, value: str) -> None:
    file = write(tmp_path / "rows.jsonl", different(2))
    said = refused(file, flag, value)
    assert f"{flag} {value}: give a " in said


def test_what_cannot_be_done_is_one_line(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", different(3))
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"\n\n")
    assert refused(tmp_path / "none.jsonl").endswith("no such file; give a run directory or a JSONL file")
    assert "no rows; give a file with one JSON object per line" in refused(empty)
    assert "line 1: not JSON" in refused(write_text(tmp_path / "prose.jsonl", "once upon a time\n"))
    assert "unknown benchmark 'craek' (did you mean creak?)" in refused(file, "--decontaminate", "craek")
    assert "creak is not imported: run `datacreate benchmarks import DIR`" in refused(
        file, "--decontaminate", "creak"
    )
    assert "all and none cannot be combined" in refused(
        file, "--decontaminate", "none", "--decontaminate", "creak"
    )
    assert "--ngram 1: give a number greater than or equal to 2" in refused(file, "--ngram", "1")
    assert "unknown" in refused(file, "--semantic", "0.9", "--embedding-model", "no-such-encoder")
    assert "is not downloaded" in refused(file, "--semantic", "0.9", "--embedding-model", "all-minilm-l6-v2")
    assert "unknown format 'nothing'" in refused(file, "--format", "nothing")
    assert "line 1: " in refused(file, "--format", "multiple_choice")
    assert "the example has no such field" in refused(file, "--labels", "mood=a,b")
    assert "write it as NAME=VALUE" in refused(file, "--labels", "mood")
    one_sided = write(tmp_path / "true.jsonl", [claim("All are true here")])
    assert "no row with the label 'False' is left" in refused(one_sided, "--balance")


def write_text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_is_written_over_or_half(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", different(3))
    before = file.read_bytes()
    link = tmp_path / "link.jsonl"
    link.hardlink_to(file)
    for out in (file, tmp_path / "." / "rows.jsonl", link):
        assert "would overwrite an input" in refused(file, "--out", out)
        assert "would overwrite an input" in refused(file, "--rejects", out)
    assert "give another file" in refused(file, "--out", tmp_path / "o", "--rejects", tmp_path / "o")
    assert "that is a folder" in refused(file, "--out", tmp_path)
    out = write(tmp_path / "out.jsonl", [COMMONSENSE])
    one_sided = write(tmp_path / "true.jsonl", [claim("All are true here")])
    refused(one_sided, "--balance", "--out", out)
    assert read(out) == [COMMONSENSE]
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "link.jsonl",
        "out.jsonl",
        "rows.jsonl",
        "true.jsonl",
    ]
    blocked = tmp_path / "out.jsonl" / "inside.jsonl"
    assert str(out) in refused(file, "--out", blocked)
