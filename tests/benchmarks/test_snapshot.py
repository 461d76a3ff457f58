"""Import from a copy of a Hub data set: files, columns, answers, and how its splits become ours."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from datacreate.benchmarks import (
    ImportOptions,
    ImportReport,
    find_benchmark,
    from_snapshot,
    import_reference,
    read_split,
    state,
    verify,
)
from datacreate.errors import BenchmarkError
from tests.benchmarks.conftest import Row, choices, claims, imported, passages, write_reference

ANY = ImportOptions(any_count=True)


def as_piqa(row: Row, **changes: Any) -> Row:
    one, other = row["options"]
    return {
        "goal": row["question"],
        "sol1": one,
        "sol2": other,
        "label": row["options"].index(row["label"]),
    } | changes


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
    """One data file, of the kind that its ending says."""
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


def states(report: ImportReport) -> list[str]:
    return [split.state for split in report.splits]


Made = Callable[[Row], Row]
KINDS: dict[str, tuple[Made, list[Row]]] = {
    "piqa": (as_piqa, choices(40, options=2)),
    "winogrande": (as_winogrande, choices(40, options=2)),
    "csqa": (as_csqa, choices(40)),
    "riddle_sense": (as_csqa, choices(40)),
    "boolq_open": (as_boolq, passages(40)),
    "boolq_closed": (as_boolq, claims(40)),
    "pubmedqa": (as_pubmedqa, passages(40)),
    "strategyqa": (as_boolq, claims(40)),
    "creak": (as_creak, claims(40)),
}


@pytest.mark.parametrize("name", KINDS)
def test_columns_and_answers_of_each_data_set_become_the_references(
    tmp_path: Path, home: Path, name: str
) -> None:
    made, rows = KINDS[name]
    hub = find_benchmark(name).source.hub
    assert hub
    parts = [rows] if len(hub.splits) == 1 else [rows[:30], rows[30:]]
    for split, part in zip(hub.splits, parts, strict=True):
        place = tmp_path / "copy" / (hub.config or "data")
        save(place / f"{split}-00000-of-00001.parquet", [made(row) for row in part])
    benchmark = find_benchmark(name)
    report = from_snapshot(tmp_path / "copy", benchmark, ANY)
    brought = [split for ours in hub.splits.values() for split in ours]
    assert [s.split for s in report.splits if s.state == "imported"] == sorted(
        brought, key=["train", "dev", "test"].index
    )
    found = [row for split in brought for row in read_split(benchmark, split)]
    assert sorted(found, key=str) == sorted(rows, key=str)


def test_what_is_not_the_splits_own_is_left_out_of_them(tmp_path: Path, home: Path) -> None:
    rows = choices(60, options=2)
    test = rows[:20]
    piqa = imported(tmp_path / "reference", "piqa", {"test": test, "dev": choices(5, options=2, first=90)})
    mixed = [as_piqa(row) for row in rows]
    random.Random(1).shuffle(mixed)
    mixed[3]["goal"] = mixed[3]["goal"].upper()  # the same row but for case
    save(tmp_path / "hub" / "plain_text" / "train" / "0000.parquet", mixed)
    save(tmp_path / "hub" / "plain_text" / "validation" / "0000.parquet", [as_piqa(row) for row in rows[:2]])
    save(tmp_path / "hub" / "plain_text" / "test" / "0000.parquet", [as_piqa(rows[0], label=-1)])
    report = from_snapshot(tmp_path / "hub", piqa, ANY)
    assert states(report) == ["imported", "kept", "kept"]
    assert report.splits[0].remark == "without the 20 rows of test"
    assert {row["options"][0] for row in read_split(piqa, "train")} == {
        row["options"][0] for row in rows[20:]
    }
    assert read_split(piqa, "test") == test


def test_rows_that_were_changed_take_out_what_asks_their_question(tmp_path: Path, home: Path) -> None:
    rows = choices(30, options=2)
    changed = {**rows[0], "options": ["quite", "other"], "label": "quite"}
    piqa = imported(tmp_path / "reference", "piqa", {"test": [changed, *rows[1:10]]})
    save(tmp_path / "hub" / "train.jsonl", [as_piqa(row) for row in rows])
    save(tmp_path / "hub" / "validation.jsonl", [as_piqa(row) for row in rows[:3]])
    report = from_snapshot(tmp_path / "hub", piqa, ANY)
    assert len(read_split(piqa, "train")) == 20
    assert "the 9 rows of test (of 10; 1 more that ask the questions" in str(report.splits[0].remark)


def test_without_the_references_files_a_seed_deals_and_it_is_said(tmp_path: Path, home: Path) -> None:
    rows = claims(2290)
    save(tmp_path / "copy" / "strategyqa_train.json", [as_boolq(row) for row in rows])
    strategyqa = find_benchmark("strategyqa")
    report = from_snapshot(tmp_path / "copy", strategyqa, ImportOptions(seed=7))
    assert states(report) == ["imported"] * 3
    assert all("dealt by seed 7 into the paper's sizes" in str(split.remark) for split in report.splits)
    assert verify(strategyqa).good
    test = read_split(strategyqa, "test")
    assert test == sorted(test, key=rows.index)
    assert states(from_snapshot(tmp_path / "copy", strategyqa, ImportOptions(seed=8))) == ["kept"] * 3
    assert read_split(strategyqa, "test") == test
    assert (
        states(from_snapshot(tmp_path / "copy", strategyqa, ImportOptions(seed=7, replace=True)))
        == ["unchanged"] * 3
    )
    from_snapshot(tmp_path / "copy", strategyqa, ImportOptions(seed=8, replace=True))
    assert read_split(strategyqa, "test") != test


def test_a_train_split_made_beside_another_test_split_does_not_outlive_it(tmp_path: Path, home: Path) -> None:
    rows = choices(30, options=2)
    save(tmp_path / "hub" / "train.csv", [as_piqa(row) for row in rows])
    save(tmp_path / "hub" / "validation.csv", [as_piqa(row) for row in rows[:3]])
    piqa = find_benchmark("piqa")
    from_snapshot(tmp_path / "hub", piqa, ANY)
    folder = write_reference(tmp_path / "reference", "piqa", {"test": rows[:10]})
    report = import_reference(folder, piqa, any_count=True, replace=True)
    assert report
    assert states(report) == ["missing", "kept", "imported"]
    assert "removed, since it was made beside other splits" in str(report.splits[0].remark)
    assert state(piqa) == "incomplete"


def test_other_configurations_and_kinds_of_files_are_not_mixed_in(tmp_path: Path, home: Path) -> None:
    rows = choices(12, options=2)
    for config, share in [("winogrande_xs", rows[:4]), ("winogrande_xl", rows)]:
        for split in ("train", "validation", "test"):
            save(tmp_path / config / f"{split}.parquet", [as_winogrande(row) for row in share])
    save(tmp_path / "train.csv", [{"a": 1}])
    save(tmp_path / ".cache" / "train.parquet", [{"a": 1}])
    save(tmp_path / "dataset_infos.json", [{"a": 1}])
    winogrande = find_benchmark("winogrande")
    from_snapshot(tmp_path, winogrande, ANY)
    assert read_split(winogrande, "train") == rows[:4]


def test_what_datasets_saved_to_disk(tmp_path: Path, home: Path) -> None:
    import datasets

    rows = passages(20)
    train, dev = ([as_boolq(row) for row in share] for share in (rows[:12], rows[12:]))
    saved = {"train": datasets.Dataset.from_list(train), "validation": datasets.Dataset.from_list(dev)}
    datasets.DatasetDict(saved).save_to_disk(str(tmp_path / "boolq"))
    boolq = find_benchmark("boolq_open")
    from_snapshot(tmp_path / "boolq", boolq, ANY)
    assert read_split(boolq, "train") == rows[:12]


def test_another_number_of_rows_is_refused(tmp_path: Path, home: Path) -> None:
    for split in ("train", "validation"):
        save(tmp_path / f"{split}.jsonl", [as_boolq(row) for row in passages(9)])
    report = from_snapshot(tmp_path, find_benchmark("boolq_open"), ImportOptions())
    assert report.refused
    assert state(find_benchmark("boolq_open")) == "absent"


BAD: dict[str, tuple[str, dict[str, list[Row]], str]] = {
    "no data": ("piqa", {}, r"no \.parquet, .* file in it; give the folder of a copy of ybisk/piqa"),
    "no split": ("piqa", {"train.jsonl": [as_piqa(choices(1, 2)[0])]}, "no files of the split 'validation'"),
    "another set": (
        "strategyqa",
        {"train.jsonl": [{"text": "a"}]},
        "train, row 1: no column 'answer'; there are text",
    ),
    "hidden answers": (
        "strategyqa",
        {"train.jsonl": [{"question": "Is it?", "answer": ""}]},
        "train, row 1: its answer is hidden",
    ),
    "odd answers": (
        "strategyqa",
        {"train.jsonl": [{"question": "Is it?", "answer": "perhaps"}]},
        "'perhaps' is none of true, yes, 1, false",
    ),
    "an answer beyond the options": (
        "piqa",
        {name: [as_piqa(choices(1, 2)[0], label=2)] for name in ("train.jsonl", "validation.jsonl")},
        "the answer '2' names none of the 2 options",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_copy_of_something_else_is_one_line(tmp_path: Path, home: Path, what: str) -> None:
    name, files, said = BAD[what]
    (tmp_path / "copy").mkdir()
    for file, rows in files.items():
        save(tmp_path / "copy" / file, rows)
    with pytest.raises(BenchmarkError, match=said) as raised:
        from_snapshot(tmp_path / "copy", find_benchmark(name), ANY)
    assert "\n" not in str(raised.value)


def test_a_damaged_file_and_an_absent_folder_are_one_line(tmp_path: Path, home: Path) -> None:
    creak = find_benchmark("creak")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "validation.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(BenchmarkError, match=r"train\.parquet: cannot be read \(.*\); copy it again"):
        from_snapshot(tmp_path, creak, ANY)
    with pytest.raises(
        BenchmarkError, match="no such folder; give the folder of a copy of amydeng2000/CREAK"
    ):
        from_snapshot(tmp_path / "nowhere", creak, ANY)
    with pytest.raises(BenchmarkError, match="bioasq: the Hub has no copy that its owners allow"):
        from_snapshot(tmp_path, find_benchmark("bioasq"), ANY)
