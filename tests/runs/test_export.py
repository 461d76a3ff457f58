"""A run in every layout: whatever its texts hold, they are read back as they are."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.engines.request import Completion, Request
from datacreate.errors import RunError, UsageError
from datacreate.runs.directory import RunDirectory
from datacreate.runs.export import assign_families, export
from datacreate.runs.log import first_checksum
from datacreate.runs.table_export import arrow_type
from tests.support.making import COMMONSENSE, append, exported, make
from tests.support.scripted import answering

ODD = {
    "right to left": "هل يعيش الجمل في الصحراء؟ \u202eאבג\u202c \u200f",
    "line separators": "one\u2028two\u2029three\x85four\x0bfive\x0csix\x1cseven",
    "line breaks": "tab\tand\nline\r\nbreaks\r",
    "a carriage return": "one\rtwo",
    "emoji": "👩\u200d🚀 meets 👨\u200d👩\u200d👧 😀",
    "markup": '<b>bold</b> & </script> [link](javascript:1) {"a": "b"} ``` |',
    "control characters": "\x01\x07\x1b[31m\x7f \x00 \ufeff",
    "unspaced": "水在多少度结冰？",
    "long": "x" * 50_000,
    "long and wide": "字😀" * 25_000,
    "combining": "e\u0301" * 40,
}


@pytest.fixture
def run(tmp_path: Path, model: str) -> RunDirectory:
    """A run of a row for each odd text, which is in every field.

    What a model writes may hold no control characters; what was committed is exported whatever it holds.
    """
    make(tmp_path / "run", model, count=1, example={**COMMONSENSE, "context": "It rains."})
    made = RunDirectory(tmp_path / "run")
    rows = tuple(
        {
            "question": f"{name}: {text}?",
            "context": text,
            "options": [f"not {text}", text, f"never {text}"],
            "label": text,
        }
        for name, text in ODD.items()
    )
    [commit] = made.commits()
    made.log_path.unlink()
    made.train_path.unlink()
    append(made.log_path, first_checksum(made.read_config().run_id), replace(commit, accepted=rows))
    assert tuple(made.examples()) == rows
    return made


def rows_of(path: Path) -> list[Any]:
    """The lines of a file that ends each with a line break, and none within."""
    *lines, rest = path.read_bytes().split(b"\n")
    assert rest == b""
    return [json.loads(line) for line in lines]


def test_odd_texts_are_the_same_in_conversations(tmp_path: Path, run: RunDirectory) -> None:
    made = rows_of(exported(run, "chat", tmp_path / "out"))
    for row, values in zip(made, run.examples(), strict=True):
        user, assistant = (message["content"] for message in row["messages"])
        options = "\n".join(f"- {option}" for option in values["options"])
        assert user == "\n\n".join([values["context"], values["question"], options])
        assert assistant == values["label"]


def test_odd_texts_are_the_same_in_columns(tmp_path: Path, run: RunDirectory) -> None:
    import datasets
    import pyarrow.parquet

    values = list(run.examples())
    (tmp_path / "hf.part").mkdir()  # of the user
    for _ in range(2):  # the second export replaces the first
        dataset = datasets.load_from_disk(str(exported(run, "hf", tmp_path / "hf")))
        assert dataset["train"].to_list() == values
    assert pyarrow.parquet.read_table(exported(run, "parquet", tmp_path / "parquet")).to_pylist() == values
    csv.field_size_limit(1 << 20)
    with exported(run, "csv", tmp_path / "csv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    assert [row | {"options": json.loads(row["options"])} for row in cells] == values
    assert sorted(path.name for path in tmp_path.iterdir()) == ["csv", "hf", "hf.part", "parquet", "run"]


def test_an_unfinished_run_is_exported_only_with_partial(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, count=10)
    run = RunDirectory(tmp_path)
    *lines, _ = run.log_path.read_bytes().splitlines(keepends=True)
    run.log_path.write_bytes(b"".join(lines))
    run.train_path.unlink()
    run.summary_path.unlink()
    with pytest.raises(RunError, match=r"not finished, 5 of 10 examples; finish .* or .* with --partial"):
        exported(run, "chat")
    assert len(rows_of(exported(run, "chat", partial=True))) == 5


SHAPES = {
    "question": "Where does the cat sleep?",
    "metadata": {},
    "source": None,
    "tags": [],
    "attributes": {"colour": "black"},
    "mixed": ["a", 1],
    "score": 1.5,
}


def test_values_of_every_shape_come_back_from_columns(tmp_path: Path, model: str) -> None:
    import datasets
    import pyarrow.parquet

    schema = {
        "type": "object",
        "properties": {
            "question": {"type": "string"},
            "metadata": {"const": {}},
            "source": {"type": "null"},
            "tags": {"const": []},
            "attributes": {"type": "object", "additionalProperties": {"type": "string"}},
            "mixed": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
            "score": {"type": "number"},
        },
    }
    (tmp_path / "format.json").write_text(json.dumps(schema))
    make(
        tmp_path / "run", model, example=SHAPES, format=str(tmp_path / "format.json"), count=6,
        client=answering(),
    )  # fmt: skip
    run = RunDirectory(tmp_path / "run")
    rows = list(run.examples())
    as_text = ("metadata", "attributes", "mixed")

    def restored(row: dict[str, Any]) -> dict[str, Any]:
        return row | {name: json.loads(row[name]) for name in as_text}

    notes: list[str] = []
    parquet = pyarrow.parquet.read_table(exported(run, "parquet", tmp_path / "out", notify=notes.append))
    assert list(map(restored, parquet.to_pylist())) == rows
    hf = datasets.load_from_disk(str(exported(run, "hf", tmp_path / "hf", notify=notes.append)))["train"]
    assert list(map(restored, hf.to_list())) == rows
    assert notes == 2 * ["as JSON text, since a column cannot hold their values: metadata, attributes, mixed"]
    with exported(run, "csv", tmp_path / "out").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    read = [
        {name: text if name == "question" else json.loads(text or "null") for name, text in row.items()}
        for row in cells
    ]
    assert read == rows
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train.csv", "train.parquet"]


TYPES: list[tuple[dict[str, Any], str | None]] = [
    ({"type": "string"}, "string"),
    ({"type": ["string", "null"]}, "string"),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "int64"),
    ({"type": ["integer", "number"]}, "double"),
    ({"enum": [1, 2.5]}, "double"),
    ({"enum": [True, 1]}, None),
    ({"const": []}, "list<item: null>"),
    ({"type": "array", "items": {"type": "boolean"}}, "list<item: bool>"),
    ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]}, None),
    ({"type": "object", "properties": {"stars": {"type": "integer"}}, "required": ["stars"]}, "struct<stars: int64>"),
    ({"type": "object", "properties": {"stars": {"type": "integer"}}}, None),
    ({}, None),
]


@pytest.mark.parametrize(("schema", "expected"), TYPES)
def test_the_type_of_a_column_follows_from_the_schema(schema: dict[str, Any], expected: str | None) -> None:
    found = arrow_type(schema)
    assert (None if found is None else str(found)) == expected


def test_a_number_column_holds_whole_numbers(tmp_path: Path, model: str) -> None:
    import pyarrow.parquet

    def script(request: Request) -> Completion:
        rows = [[f"What is {request.id}{i}?", 2**60 + i] for i in range(5)]
        return Completion(request.id, json.dumps(rows), "stop", 1, 1)

    make(tmp_path, model, script, example={"question": "What?", "answer": 1.5}, count=5)
    table = pyarrow.parquet.read_table(exported(RunDirectory(tmp_path), "parquet"))
    assert str(table.schema.field("answer").type) == "double"


SPLIT = {"train": 0.8, "validation": 0.1, "test": 0.1}


@pytest.mark.parametrize("strategy", ["naive", "tree", "random"])
def test_a_split_keeps_the_rows_of_one_parent_together(tmp_path: Path, model: str, strategy: str) -> None:
    make(tmp_path, model, count=200, strategy=strategy)
    run = RunDirectory(tmp_path)
    notes: list[str] = []
    paths = export(run, "jsonl", split=SPLIT, notify=notes.append)
    assert [path.name for path in paths] == ["train.jsonl", "validation.jsonl", "test.jsonl"]
    found = {path.stem: rows_of(path) for path in paths}
    of_row = {json.dumps(row): name for name, rows in found.items() for row in rows}
    assert sorted(of_row) == sorted(map(json.dumps, run.examples()))
    splits: dict[Any, set[str]] = {}
    sizes: dict[Any, int] = {}
    for commit in run.commits():
        family = commit.parent if commit.parent_depth else commit.request_number
        splits.setdefault(family, set()).update(of_row[json.dumps(row)] for row in commit.accepted)
        sizes[family] = sizes.get(family, 0) + len(commit.accepted)
    assert all(len(names) <= 1 for names in splits.values())
    for name, share in SPLIT.items():
        assert abs(len(found[name]) - share * 200) < 2 * max(sizes.values())
    counts = ", ".join(f"{name} {len(rows)}" for name, rows in found.items())
    assert notes == [f"split by family (rows of one parent), seed 42: {counts} rows, {len(sizes)} families"]


def test_a_split_depends_on_the_seed_only(tmp_path: Path, model: str) -> None:
    import datasets

    make(tmp_path, model, count=100)
    run = RunDirectory(tmp_path)
    first = [path.read_bytes() for path in export(run, "parquet", split=SPLIT)]
    assert [path.read_bytes() for path in export(run, "parquet", split=SPLIT)] == first
    assert [path.read_bytes() for path in export(run, "parquet", split=SPLIT, seed=1)] != first
    hf = datasets.load_from_disk(str(*export(run, "hf", split=SPLIT)))
    assert sum(hf.num_rows.values()) == 100
    assert list(hf.num_rows) == list(SPLIT)
    export(run, "parquet")  # nothing of the split is left
    assert [path.name for path in (tmp_path / "export" / "parquet").iterdir()] == ["train.parquet"]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_each_split_is_within_one_family_of_its_share(sizes: list[int], weights: list[int]) -> None:
    shares = {f"s{i}": weight / sum(weights) for i, weight in enumerate(weights)}
    assigned = assign_families(dict(enumerate(sizes)), shares, seed=7)
    counts = dict.fromkeys(shares, 0)
    for family, name in assigned.items():
        counts[name] += sizes[family]
    assert all(counts[name] < share * sum(sizes) + max(sizes) for name, share in shares.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": {"train": 0.9, "validation": 0.2}}, "--split: the shares add up to 1.1"),
        ({"split": {"train": 1.1, "validation": -0.1}}, "--split validation=-0.1: give a share of at least 0"),
        ({"split": {"../train": 1.0}}, r"--split ../train: a name has letters, digits and _ only"),
        ({"split": {"train": 1.0, "test": 0.0}}, "leave no row for test; give it a larger share"),
        ({"with_attributes": True}, "the run has no attributes; remove the option"),
    ],
)
def test_wrong_options_write_nothing(tmp_path: Path, model: str, options: dict[str, Any], message: str) -> None:
    make(tmp_path, model, count=10)
    with pytest.raises(UsageError, match=message):
        export(RunDirectory(tmp_path), "jsonl", **options)
    assert not (tmp_path / "export").exists()


def test_an_export_replaces_no_file_of_a_run(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, count=10)
    rows = (tmp_path / "train.jsonl").read_bytes()
    with pytest.raises(UsageError, match="that would overwrite the rows of a run; choose another --out"):
        export(RunDirectory(tmp_path), "jsonl", tmp_path, split={"train": 0.5, "validation": 0.5})
    assert (tmp_path / "train.jsonl").read_bytes() == rows
    assert not (tmp_path / "validation.jsonl").exists()
    assert export(RunDirectory(tmp_path), "csv", tmp_path) == [tmp_path / "train.csv"]
