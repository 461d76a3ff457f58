"""A run in every layout: whatever its texts hold, they are read back as they are."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datacreate.errors import RunError
from datacreate.runs.directory import RunDirectory
from datacreate.runs.export import export
from datacreate.runs.log import RunWriter, first_checksum
from tests.making import COMMONSENSE, make
from tests.scripted import answering

ODD = {
    "right to left": "هل يعيش الجمل في الصحراء؟ \u202eאבג\u202c \u200f",
    "line separators": "one\u2028two\u2029three\x85four\x0bfive\x0csix\x1cseven",
    "line breaks": "tab\tand\nline\r\nbreaks\r",
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
    """A run of a row for each odd text, which stands in every field.

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
    log = RunWriter(made.log_path, made.train_path, first_checksum(made.read_config().run_id))
    log.append(replace(commit, accepted=rows))
    log.close()
    assert tuple(made.examples()) == rows
    return made


def rows_of(path: Path) -> list[Any]:
    """The lines of a file that ends each with a line break, and none within."""
    *lines, rest = path.read_bytes().split(b"\n")
    assert rest == b""
    return [json.loads(line) for line in lines]


def test_odd_texts_are_the_same_in_the_layout_of_the_reference(tmp_path: Path, run: RunDirectory) -> None:
    assert rows_of(export(run, "reference", tmp_path / "out")) == list(run.examples())


def test_odd_texts_are_the_same_in_conversations(tmp_path: Path, run: RunDirectory) -> None:
    made = rows_of(export(run, "chat", tmp_path / "out"))
    for row, values in zip(made, run.examples(), strict=True):
        user, assistant = (message["content"] for message in row["messages"])
        options = "\n".join(f"- {option}" for option in values["options"])
        assert user == "\n\n".join([values["context"], values["question"], options])
        assert assistant == values["label"]


def test_no_input_is_lost(tmp_path: Path, model: str) -> None:
    mail = {"subject": "Your order", "body": "It left today.", "topic": "shipping"}
    make(tmp_path / "run", model, example=mail, labels={"topic": "shipping,payment"}, count=4)
    run = RunDirectory(tmp_path / "run")
    expected = [f"subject: {values['subject']}\nbody: {values['body']}" for values in run.examples()]
    chat = rows_of(export(run, "chat", tmp_path / "chat"))
    assert [row["messages"][0]["content"] for row in chat] == expected
    assert [row["question"] for row in rows_of(export(run, "reference", tmp_path / "reference"))] == expected


def test_odd_texts_are_the_same_in_columns(tmp_path: Path, run: RunDirectory) -> None:
    import datasets
    import pyarrow.parquet

    values = list(run.examples())
    (tmp_path / "hf.part").mkdir()  # of the user
    for _ in range(2):  # the second export replaces the first
        dataset = datasets.load_from_disk(str(export(run, "hf", tmp_path / "hf")))
        assert dataset["train"].to_list() == values
    assert pyarrow.parquet.read_table(export(run, "parquet", tmp_path / "parquet")).to_pylist() == values
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "hf.part", "parquet", "run"]


def test_an_unfinished_run_is_exported_only_with_partial(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, count=10)
    run = RunDirectory(tmp_path)
    *lines, _ = run.log_path.read_bytes().splitlines(keepends=True)
    run.log_path.write_bytes(b"".join(lines))
    run.train_path.unlink()
    run.summary_path.unlink()
    with pytest.raises(RunError, match=r"not finished, 5 of 10 examples; finish .* or .* with --partial"):
        export(run, "chat")
    assert len(rows_of(export(run, "chat", partial=True))) == 5


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
        engine=answering(),
    )  # fmt: skip
    run = RunDirectory(tmp_path / "run")
    rows = list(run.examples())
    as_text = ("metadata", "attributes", "mixed")

    def restored(row: dict[str, Any]) -> dict[str, Any]:
        return row | {name: json.loads(row[name]) for name in as_text}

    notes: list[str] = []
    parquet = pyarrow.parquet.read_table(export(run, "parquet", tmp_path / "out", notify=notes.append))
    assert list(map(restored, parquet.to_pylist())) == rows
    hf = datasets.load_from_disk(str(export(run, "hf", tmp_path / "hf", notify=notes.append)))["train"]
    assert list(map(restored, hf.to_list())) == rows
    assert notes == 2 * ["as JSON text, since a column cannot hold their values: metadata, attributes, mixed"]
    with export(run, "csv", tmp_path / "out").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    read = [
        {name: text if name == "question" else json.loads(text or "null") for name, text in row.items()}
        for row in cells
    ]
    assert read == rows
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train.csv", "train.parquet"]
