"""Files with rows of every kind are read alike, and many rows decide the format; what cannot be read is one line."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datacreate.creation.decontamination_sets import find_decontamination_sets
from datacreate.errors import DatacreateError, ExampleError, UsageError
from datacreate.formats.row_file import RowFile
from datacreate.formats.task_format import load_format
from datacreate.runs.formatting_examples import examples_in_file
from datacreate.runs.validated_rows import read_rows
from tests.support.inprocess import run

Row = dict[str, Any]

ROWS: list[Row] = [
    {"text": "Água fria, não ferve.", "label": "x", "note": None},
    {"text": 'Ein "Satz"\nüber Käse\u2028.', "label": "y", "note": "später"},
    {"text": " spaces ", "label": "x", "note": None},
]


def as_lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_objects(rows: list[Row]) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False, indent=1) for row in rows)


def as_table(rows: list[Row], path: Path, **how: Any) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, **how)
        writer.writerow(rows[0])
        writer.writerows([row[name] for name in rows[0]] for row in rows)


def as_parquet(rows: list[Row], path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)


def as_folder(rows: list[Row], path: Path) -> None:
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(str(path))


def text(writer: Callable[[list[Row]], str], encoding: str = "utf-8") -> Callable[[list[Row], Path], None]:
    return lambda rows, path: path.write_text(writer(rows), encoding=encoding) and None


KINDS: dict[str, Callable[[list[Row], Path], None]] = {
    "rows.jsonl": text(as_lines),
    "bom.jsonl": text(as_lines, "utf-8-sig"),
    "crlf.jsonl": lambda rows, path: path.write_bytes(as_lines(rows).replace("\n", "\r\n").encode()) and None,
    "array.json": text(lambda rows: json.dumps(rows, ensure_ascii=False)),
    "pretty_array.json": text(lambda rows: "\n" + json.dumps(rows, indent=2)),
    "bom.json": text(lambda rows: json.dumps(rows), "utf-8-sig"),
    "objects.json": text(as_objects),
    "rows": text(as_lines),
    "table.csv": as_table,
    "semicolons.csv": lambda rows, path: as_table(rows, path, delimiter=";"),
    "crlf.CSV": lambda rows, path: as_table(rows, path, lineterminator="\r\n"),
    "table.tsv": lambda rows, path: as_table(rows, path, delimiter="\t"),
    "table.txt": as_table,
    "rows.parquet": as_parquet,
    "folder": as_folder,
}
"""Name of a file -> how it is written."""


def read(path: Path) -> list[Row]:
    return list(RowFile(path).read_objects())


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_every_kind_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    KINDS[name](ROWS, tmp_path / name)
    file = RowFile(tmp_path / name)
    assert [row.values for row in file.read()] == ROWS
    assert [json.loads(row.line) for row in file.read()] == ROWS  # a second time; each in one line


@pytest.mark.parametrize("name", [name for name in KINDS if name != "folder"])
def test_gzip_and_pipes_are_read_whatever_is_in_them(tmp_path: Path, name: str) -> None:
    KINDS[name](ROWS, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    packed, pipe = tmp_path / f"{name}.gz", tmp_path / "pipe"
    packed.write_bytes(gzip.compress(content))
    assert read(packed) == ROWS
    os.mkfifo(pipe)
    writer = Thread(target=pipe.write_bytes, args=[packed.read_bytes()])
    writer.start()
    file = RowFile(pipe)
    writer.join()
    assert list(file.read_objects()) == list(file.read_objects()) == ROWS


def test_line_numbers_are_where_rows_start(tmp_path: Path) -> None:
    (tmp_path / "objects.json").write_text("\n\n" + as_objects(ROWS))
    assert [row.number for row in RowFile(tmp_path / "objects.json").read()] == [3, 8, 13]
    as_table([*ROWS], tmp_path / "table.csv")
    assert [row.number for row in RowFile(tmp_path / "table.csv").read()] == [2, 3, 5]


def test_cells_of_tables_become_values_that_json_can_hold(tmp_path: Path) -> None:
    cells = ['["a", "b"]', "4", "NaN", '["half \\ud800"]', "not JSON"]
    as_table([{"text": "a", "list": cell} for cell in cells], tmp_path / "table.csv")
    schema = {"properties": {"list": {"type": ["array", "number"]}}}
    found = [row.values["list"] for row in RowFile(tmp_path / "table.csv").read(schema)]
    assert found == [["a", "b"], 4, *cells[2:]]


def test_dates_in_tables_become_text(tmp_path: Path) -> None:
    import datetime as dt

    as_parquet([{"day": dt.date(2024, 3, 5), "at": dt.datetime(2024, 3, 5, 9)}], tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [{"day": "2024-03-05", "at": "2024-03-05T09:00:00"}]


BAD: dict[str, tuple[bytes, str]] = {
    "wrapped.json": (b'{"data": [{"text": "a"}, {"text": "b"}]}', r"unwrap them with `jq -c '.data\[\]'`"),
    "pretty.json": (b'{"version": "1",\n "rows": [{"text": "a"}]}', r"unwrap them with `jq -c '.rows\[\]'`"),
    "latin1.jsonl": (
        '{"text": "a"}\n{"text": "Água"}'.encode("latin-1"),
        "line 2: not UTF-8, probably Latin-1 .* `iconv -f WINDOWS-1252 -t UTF-8`",
    ),
    "latin1.json": ('[\n{"text": "Água"}]'.encode("latin-1"), "line 2: not UTF-8, probably Latin-1"),
    "latin1.csv": ("text\nÁgua".encode("latin-1"), "line 2: not UTF-8, probably Latin-1"),
    "cyrillic.jsonl": ("да нет да нет да".encode("cp1251"), "`iconv -f ENCODING -t UTF-8`"),
    "utf16.jsonl": ('{"text": "a"}'.encode("utf-16"), "UTF-16, not UTF-8; .* `iconv -f UTF-16 -t UTF-8`"),
    "utf16-without-bom.csv": ("text,label\na,b\n".encode("utf-16-le"), "UTF-16, not UTF-8"),
    "rows.xlsx": (b"PK\x03\x04" + bytes(range(256)) * 2, "a binary file of an unknown kind; give JSONL"),
    "keys.jsonl": (b'{"a": 1}\n{"text": "a", "text": "b"}\n', "line 2: the key 'text' appears twice"),
    "keys.json": (b'[{"a": 1},\n{"text": "a", "text": "b"}]', "line 2: the key 'text' appears twice"),
    "header.csv": (b"text,text\na,b\n", "line 1: a column has no name, or the name of another"),
    "index.csv": (b",text\n0,b\n", "line 1: a column has no name"),
    "ragged.csv": (b'text,label\n"a\nb",x\na, b,x\n', "line 4: 3 cells, but 2 columns"),
    "short.csv": (b"text,label\na\n", "line 2: 1 cells, but 2 columns"),
    "quotes.csv": (b'text,label\n"a" b,x\n', "line 2: .*; repair the line"),
    "open.csv": (b'text,label\n"a,x\n', "line 2: unexpected end of data"),
    "cut.json": (b'[{"a": 1},\n{"a": ', "line 2: not JSON at the end of the file"),
    "open.json": (b'[{"a": 1},\n{"a": 2},', "the array does not end"),
    "last.json": (b'[{"a": 1},\n{"a": 2,}]', "line 2: not JSON at .*; repair the file"),
    "more.json": (b'[{"a": 1}]\n{"a": 2}', "not JSON: the array .* is not all of the file"),
    "items.json": (b'[{"a": 1},\n2]', "line 2: not a JSON object: 2"),
    "key.json": (b'{\n "a": 1,\n b: 2}', "line 3: not JSON at 'b: 2}'"),
    "empty.json": (b" [\n] ", "no rows; give JSONL, JSON, CSV"),
    "empty.csv": (b"text,label\n", "no rows"),
    "text.txt": (b"once upon a time", "line 1: not JSON"),
    "digits.jsonl": (b'{"a": ' + b"1" * 5001 + b"}", "line 1: Exceeds the limit .4300 digits"),
    "digits.json": (b'[{"a": ' + b"1" * 5001 + b"}]", "line 1: Exceeds the limit .4300 digits"),
    "deep.json": (b"[" * 100_000, "line 1: nested deeper than 20 levels"),
    "cut.gz": (gzip.compress(b'{"a": 1}\n' * 99)[:-9], "cannot be read .damaged"),
    "cut.parquet": (b"PAR1 and no more", "damaged Parquet"),
}
"""Name of a file -> its content, the message."""


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_one_line_with_the_remedy(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('// c\n{"text": "a"}', "line 1: not JSON"),
        ('["a", "b"]', 'line 1: not a JSON object: "a"'),
        ("null", "not a JSON object: null"),
        ("{}", "has no fields"),
        ('{"score": NaN}', "score: JSON has no nan"),
        ('{"score": 1e999}', "score: JSON has no inf"),
        ('{"number": 99999999999999999999}', "number: an integer of more than 64 bits"),
        ('{"text": "\\ud800"}', "lone surrogate"),
        ('{"a": ' + "[" * 50 + "]" * 50 + "}", "nested deeper than 20 levels"),
    ],
)
def test_an_example_that_cannot_be_used_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(ExampleError, match=message) as caught:
        examples_in_file(tmp_path / "mine.json")
    assert str(caught.value).startswith(f"{tmp_path / 'mine.json'}: ")


def test_a_column_of_bytes_is_named(tmp_path: Path) -> None:
    as_parquet([{"text": "a", "image": b"1"}], tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="the column 'image': bytes is not a JSON type; remove the column"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["schema", "infer", ""], "the path is empty"),
        (["filter", "-"], "standard input is /dev/stdin"),
        (
            ["schema", "infer", "mine.json", *["--label", "tone=sad"] * 2],
            "--labels tone=sad,sad: give two or more different values",
        ),
    ],
)
def test_a_wrong_argument_is_named_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.json").write_text('{"text": "Rain again.", "tone": "sad"}')
    ended = run(*words)
    assert ended.code == 2
    assert message in ended.failure


def test_the_path_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text('text\tlabel\na\tx\n"b\ty\n')
    with pytest.raises(UsageError, match="unexpected end of data") as caught:
        read_rows(tmp_path / "rows.tsv")
    assert str(caught.value).count("rows.tsv") == 1


def test_a_folder_of_several_splits_names_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a folder without a data set"):
        read(tmp_path)
    as_folder(ROWS, tmp_path / "train")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(UsageError, match=r"give the folder of one \(train\)"):
        read(tmp_path)
    assert read(tmp_path / "train") == ROWS


@pytest.mark.parametrize("name", ["crlf.jsonl", "array.json", "objects.json", "table.csv", "rows.parquet"])
def test_create_and_decontaminate_read_the_same_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    KINDS[name](ROWS[:1], path)
    assert [example.values for example in examples_in_file(path)] == ROWS[:1]
    [test_set] = find_decontamination_sets([str(path)], load_format("multiple_choice"))
    assert [row.inputs for row in test_set.read()] == [("Água fria, não ferve.\nx",)]
    KINDS[name](ROWS, path)
    assert [example.values for example in examples_in_file(path)] == ROWS
    assert [example.values for example in examples_in_file(path, limit=1)] == ROWS[:1]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=20)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS
TABLES = st.lists(st.fixed_dictionaries({"text": TEXTS, "note": st.none() | TEXTS}), min_size=1, max_size=5)
unhurried = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@unhurried
@given(TABLES, st.sampled_from([name for name in KINDS if name != "folder"]), st.booleans())
def test_written_rows_are_read_back(tmp_path: Path, rows: list[Row], name: str, packed: bool) -> None:
    path = tmp_path / name
    KINDS[name](rows, path)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert read(path) == rows


@unhurried
@given(
    st.lists(st.dictionaries(TEXTS, SCALARS | st.lists(SCALARS, max_size=2), min_size=1, max_size=3), min_size=1),
    st.sampled_from(["rows.jsonl", "array.json", "pretty_array.json", "objects.json"]),
)
def test_rows_of_any_shape_are_read_back_from_json(tmp_path: Path, rows: list[Row], name: str) -> None:
    KINDS[name](rows, tmp_path / name)
    assert read(tmp_path / name) == rows


STARTS = [
    b"", b"[", b"{", b'[{"a": 1}', b"PAR1", b"\x1f\x8b\x08\x00", b"a,b\n1,", b"\xef\xbb\xbf", b'{"a":\n',
]  # fmt: skip


@unhurried
@given(st.sampled_from(STARTS), st.binary(max_size=60), st.sampled_from(["x.json", "x.csv", "x.tsv", "x"]))
def test_random_bytes_are_rows_or_one_line(tmp_path: Path, start: bytes, end: bytes, name: str) -> None:
    path = tmp_path / name
    for content in (start + end, gzip.compress(start + end)):
        path.write_bytes(content)
        try:
            read(path)
        except DatacreateError as error:
            if len(str(error).splitlines()) != 1:
                raise AssertionError(str(error)) from error
