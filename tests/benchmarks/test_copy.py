"""Import from a copy of a Hub data set: columns, answers, and how its splits become ours."""

from __future__ import annotations

import errno
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from datacreate.benchmarks import find_benchmark, import_benchmark, read_split
from datacreate.benchmarks.importing import ImportReport
from datacreate.errors import BenchmarkError, StorageError
from tests.benchmarks.conftest import Row, choices, claims, imported, passages


def as_piqa(row: Row, **changes: Any) -> Row:
    one, other = row["options"]
    label = row["options"].index(row["label"])
    return {"goal": row["question"], "sol1": one, "sol2": other, "label": label} | changes


def as_winogrande(row: Row) -> Row:
    one, other = row["options"]
    answer = str(row["options"].index(row["label"]) + 1)
    return {"sentence": row["question"], "option1": one, "option2": other, "answer": answer}


def as_csqa(row: Row) -> Row:
    answer = "ABCDE"[row["options"].index(row["label"])]
    listed = {"label": list("ABCDE"), "text": row["options"]}
    return {"id": "x", "question": row["question"], "choices": listed, "answerKey": answer}


def as_boolq(row: Row) -> Row:
    return {"question": row["question"], "passage": row["context"], "answer": row["label"]}


def as_pubmedqa(row: Row) -> Row:
    words = row["context"].split(" ", 1)
    decision = "yes" if row["label"] else random.Random(row["question"]).choice(["no", "maybe"])
    return {"question": row["question"], "context": {"contexts": words}, "final_decision": decision}


def as_creak(row: Row) -> Row:
    return {"sentence": row["question"], "label": str(row["label"]).lower()}


def save(path: Path, rows: Sequence[Row]) -> None:
    """A data file of the kind that its ending says."""
    import datasets

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        datasets.Dataset.from_list(list(rows)).to_csv(path, index=False)
    else:
        datasets.Dataset.from_list(list(rows)).to_parquet(path)


def read(folder: Path, name: str, **changes: Any) -> ImportReport:
    return import_benchmark(find_benchmark(name), folder, **{"allow_count_mismatch": True} | changes)


def states(report: ImportReport) -> list[str]:
    return [split.state for split in report.splits]


KINDS: dict[str, tuple[Callable[[Row], Row], list[Row], str]] = {
    "piqa": (as_piqa, choices(40, options=2), "parquet"),
    "winogrande": (as_winogrande, choices(40, options=2), "parquet"),
    "csqa": (as_csqa, choices(40), "parquet"),
    "riddle_sense": (as_csqa, choices(40), "jsonl"),
    "boolq_open": (as_boolq, passages(40), "parquet"),
    "boolq_closed": (as_boolq, claims(40), "jsonl"),
    "pubmedqa": (as_pubmedqa, passages(40), "parquet"),
    "strategyqa": (as_boolq, claims(40), "json"),
    "creak": (as_creak, claims(40), "csv"),
}


@pytest.mark.parametrize("name", KINDS)
def test_columns_and_answers_of_each_data_set_become_ours(tmp_path: Path, home: Path, name: str) -> None:
    convert, rows, ending = KINDS[name]
    benchmark = find_benchmark(name)
    hub = benchmark.source.hub
    assert hub
    parts = [rows] if len(hub.splits) == 1 else [rows[:30], rows[30:]]
    for split, part in zip(hub.splits, parts, strict=True):
        folder = tmp_path / "copy" / (hub.config or "data")
        save(folder / f"{split}-00000-of-00001.{ending}", [convert(row) for row in part])
    save(tmp_path / "copy" / "other_config" / f"train.{ending}", [{"a": 1}]) if hub.config else None
    report = read(tmp_path / "copy", name)
    ours = [split for splits in hub.splits.values() for split in splits]
    assert {s.split for s in report.splits if s.state == "imported"} == set(ours)
    found = [row for split in ours for row in read_split(benchmark, split)]
    assert sorted(found, key=str) == sorted(rows, key=str)


def test_rows_of_imported_splits_are_removed_from_the_others(tmp_path: Path, home: Path) -> None:
    rows = choices(60, options=2)
    test = rows[:20]
    piqa = imported(tmp_path / "files", "piqa", {"test": test, "dev": choices(5, options=2, first=90)})
    mixed = [as_piqa(row) for row in rows]
    random.Random(1).shuffle(mixed)
    mixed[3]["goal"] = mixed[3]["goal"].upper()  # the same row except for case
    save(tmp_path / "hub" / "plain_text" / "train" / "0000.parquet", mixed)
    save(tmp_path / "hub" / "plain_text" / "validation" / "0000.parquet", [as_piqa(row) for row in rows[:2]])
    save(tmp_path / "hub" / "plain_text" / "test" / "0000.parquet", [as_piqa(rows[0], label=-1)])
    report = read(tmp_path / "hub", "piqa")
    assert states(report) == ["imported", "kept", "kept"]
    assert report.splits[0].remark == "without 20 of the 20 rows of test"
    left = {row["options"][0] for row in read_split(piqa, "train")}
    assert left == {row["options"][0] for row in rows[20:]}
    assert read_split(piqa, "test") == test


def test_without_the_papers_files_a_seed_splits_the_rows(tmp_path: Path, home: Path) -> None:
    rows = claims(2290)
    save(tmp_path / "copy" / "strategyqa_train.json", [as_boolq(row) for row in rows])
    report = read(tmp_path / "copy", "strategyqa", allow_count_mismatch=False)
    assert states(report) == ["imported"] * 3
    assert all("split by seed 42 into the paper's sizes" in str(split.remark) for split in report.splits)
    test = read_split(find_benchmark("strategyqa"), "test")
    assert test == sorted(test, key=rows.index) != rows[: len(test)]
    assert states(read(tmp_path / "copy", "strategyqa")) == ["kept"] * 3


QUESTION = {"question": "Is it?"}
BAD: dict[str, tuple[str, dict[str, list[Row]], str]] = {
    "no data": ("piqa", {}, "cannot be read; give a complete copy of ybisk/piqa"),
    "no split": ("piqa", {"train.jsonl": [as_piqa(choices(1, 2)[0])]}, "no split 'validation'"),
    "another set": ("strategyqa", {"train.jsonl": [{"text": "a"}]}, "train, row 1: no column 'answer'"),
    "hidden answers": (
        "strategyqa",
        {"train.jsonl": [QUESTION | {"answer": ""}]},
        "the answer '' is none of true, false; it may be hidden",
    ),
    "an answer beyond the options": (
        "piqa",
        {name: [as_piqa(choices(1, 2)[0], label=2)] for name in ("train.jsonl", "validation.jsonl")},
        "the answer '2' is none of 0, 1",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_copy_of_another_data_set_is_refused_in_one_line(tmp_path: Path, home: Path, what: str) -> None:
    name, files, said = BAD[what]
    (tmp_path / "copy").mkdir()
    for file, rows in files.items():
        save(tmp_path / "copy" / file, rows)
    with pytest.raises(BenchmarkError, match=said) as raised:
        read(tmp_path / "copy", name)
    assert "\n" not in str(raised.value)


DAMAGED = {
    "train.jsonl": b'{"sentence": "a", "label": "true"}\n{]\n',
    "train.jsonl.gz": b"\x1f\x8bcut",
    "train.jsonl.zip": b"PK\x03\x04cut",
    "train.parquet": b"PAR1cut",
    "train.jsonl.xz": b"\xfd7zXZ\x00cut",
    "train.tar": b"cut",
    "README.md": b"---\nconfigs: [\n---\n",
}


def test_a_copy_with_a_loading_script_is_refused_in_one_line(tmp_path: Path, home: Path) -> None:
    (tmp_path / "piqa").mkdir()
    (tmp_path / "piqa" / "piqa.py").write_text("import datasets\n")
    with pytest.raises(BenchmarkError, match=r"cannot be read; give a complete copy of ybisk/piqa$"):
        read(tmp_path / "piqa", "piqa")


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_copy_is_refused_in_one_line(
    tmp_path: Path, home: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for split in {"train", "validation"} - {name.partition(".")[0]}:
        save(tmp_path / f"{split}{'.parquet' * ('parquet' in name) or '.jsonl'}", [as_creak(row) for row in claims(2)])
    (tmp_path / name).write_bytes(DAMAGED[name])
    capfd.readouterr()
    with pytest.raises(BenchmarkError, match=r"cannot be read; give a complete copy of amydeng2000/CREAK$"):
        read(tmp_path, "creak")
    assert capfd.readouterr() == ("", "")


def test_a_full_disk_is_not_taken_for_a_damaged_copy(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk = OSError(errno.ENOSPC, "No space left on device", "/tmp/x.lock")
    unreadable = PermissionError(errno.EACCES, "Permission denied")
    errors: list[tuple[Exception, type[Exception], str]] = [
        (full_disk, StorageError, r"^/tmp/x\.lock: the disk is full"),
        (unreadable, BenchmarkError, r"cannot be read \(Permission denied\); "),
        (MemoryError(), MemoryError, "^$"),
    ]
    for error, raised, words in errors:
        monkeypatch.setattr("datasets.load_dataset", Mock(side_effect=error))
        with pytest.raises(raised, match=words):
            read(tmp_path, "creak")


def test_a_benchmark_without_a_copy_on_the_hub_says_why(tmp_path: Path, home: Path) -> None:
    with pytest.raises(BenchmarkError, match="bioasq: the Hub has no copy that its owners allow"):
        read(tmp_path, "bioasq")
