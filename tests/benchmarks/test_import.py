"""Import from files of the paper's repository: what is imported, what is reported, and what stays."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from datacreate.benchmarks import (
    SPLITS,
    find_benchmark,
    find_benchmarks_in,
    formatting_examples,
    has_split,
    import_benchmark,
    import_state,
    load_registry,
    read_manifest,
    read_split,
    split_sha256,
)
from datacreate.errors import BenchmarkError, DatacreateError
from tests.benchmarks.conftest import choices, claims, imported, lines, passages, write_reference


def test_imported_rows_are_normalized_and_importing_again_changes_nothing(tmp_path: Path, home: Path) -> None:
    odd = [{**claims(1)[0], "question": "Cafe\u0301\u2028open?", "options": None, "label": "yes"}]
    content = b"\xef\xbb\xbf" + lines(odd).replace(b"\n", b"\r\n") + b"\n"
    creak = imported(tmp_path, "creak", {"test": content, "train": claims(9), "dev": claims(2, first=20)})
    assert read_split(creak, "test") == [
        {"question": "Café\nopen?", "context": None, "options": ["True", "False"], "label": True}
    ]
    assert read_split(creak, "train") == claims(9)
    assert import_state(creak) == "present"
    assert len({split_sha256(creak, split) for split in SPLITS}) == 3
    before = {path: path.stat().st_mtime_ns for path in (home / "benchmarks" / "creak").iterdir()}
    report = import_benchmark(creak, tmp_path, allow_count_mismatch=True)
    assert [split.state for split in report.splits] == ["kept"] * 3
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_unusual_rows_are_imported_and_reported(tmp_path: Path, home: Path) -> None:
    rows = choices(10)
    rows[2] = {**rows[2], "options": ["a", "b", "a", "c", "d"], "label": "a"}
    rows[4] = {**rows[4], "label": "nowhere"}
    csqa = imported(tmp_path, "csqa", {"train": rows})
    assert len(read_split(csqa, "train")) == 10
    manifest = read_manifest(csqa)
    assert manifest
    findings = manifest.splits["train"].findings
    assert (findings.repeated_options, findings.answer_not_an_option) == ((3,), (5,))
    assert findings.labels == {"1": 0.3, "2": 0.2, "3": 0.1, "4": 0.2, "5": 0.1}
    assert findings.constant == 0.3


def test_an_imported_split_is_kept_unless_replaced(tmp_path: Path, home: Path) -> None:
    creak = imported(tmp_path / "one", "creak", {"train": claims(9), "test": claims(4, first=9)})
    other = write_reference(tmp_path / "other", "creak", {"test": claims(5, first=20), "dev": claims(2)})
    report = import_benchmark(creak, other, allow_count_mismatch=True)
    assert [split.state for split in report.splits] == ["kept", "imported", "kept"]
    assert "--replace" in str(report.splits[2].remark)
    manifest = read_manifest(creak)
    assert manifest
    assert list(manifest.splits) == list(SPLITS)
    assert len(read_split(creak, "test")) == 4
    import_benchmark(creak, other, allow_count_mismatch=True, replace=True)
    manifest = read_manifest(creak)
    assert manifest
    assert list(manifest.splits) == ["dev", "test"]
    assert [len(read_split(creak, split)) for split in SPLITS[1:]] == [2, 5]
    assert not has_split(creak, "train"), "it may have rows of the new test split"


BAD: dict[str, tuple[bytes, str]] = {
    "not JSON": (lines(claims(2)) + b"{'question'\n", r"test\.jsonl: line 3: not JSON"),
    "options of another set": (lines(choices(1)), r"line 1: label 'shelf 0-0' is neither True nor False"),
    "not text": (b"\xff\xfe", r"test\.jsonl: UTF-16, not UTF-8"),
    "empty": (b"\n", r"test\.jsonl: no rows"),
    "nested": (b'{"question":' * 100_000, r"line 1: "),
}


@pytest.mark.parametrize("what", BAD)
def test_a_wrong_file_is_one_line_and_imported_rows_stay(tmp_path: Path, home: Path, what: str) -> None:
    content, said = BAD[what]
    creak = imported(tmp_path / "good", "creak", {"test": claims(3)})
    folder = write_reference(tmp_path / "bad", "creak", {"train": claims(4), "test": content})
    with pytest.raises(DatacreateError, match=said) as raised:
        import_benchmark(creak, folder, allow_count_mismatch=True, replace=True)
    assert "\n" not in str(raised.value)
    assert not has_split(creak, "train")
    assert read_split(creak, "test") == claims(3)


def test_missing_splits_say_how_to_import_them(tmp_path: Path, home: Path) -> None:
    boolq = find_benchmark("boolq_open")
    with pytest.raises(BenchmarkError, match="not imported: run `datacreate benchmarks import boolq_open`"):
        read_split(boolq, "train")
    assert not has_split(boolq, "train")
    imported(tmp_path, "boolq_open", {"test": passages(3)})
    with pytest.raises(BenchmarkError, match=r"no train split: run `.*boolq_open`, which downloads google/boolq"):
        read_split(boolq, "train")
    imported(tmp_path, "bioasq", {"test": passages(3)})
    with pytest.raises(BenchmarkError, match=r"no dev split: .*--from DIR`, which reads DIR/yesno_open/bioasq/dev"):
        split_sha256(find_benchmark("bioasq"), "dev")


def test_damage_is_found_and_can_be_replaced(tmp_path: Path, home: Path) -> None:
    creak = imported(tmp_path, "creak", {"train": claims(9), "test": claims(3)})
    folder = home / "benchmarks" / "creak"
    path = folder / "test.jsonl"
    path.write_bytes(path.read_bytes().replace(b"true", b"TRUE", 1))
    with pytest.raises(
        BenchmarkError, match=rf"test\.jsonl was changed after the import .*--replace --from {tmp_path}`"
    ):
        read_split(creak, "test")
    import_benchmark(creak, tmp_path, allow_count_mismatch=True, replace=True)
    assert read_split(creak, "test") == claims(3)
    (folder / "manifest.json").write_text("{}")
    assert import_state(creak) == "damaged"
    with pytest.raises(BenchmarkError, match=r"manifest\.json cannot be read; run .*--replace"):
        read_split(creak, "test")
    import_benchmark(creak, tmp_path, allow_count_mismatch=True, replace=True)
    assert read_split(creak, "test") == claims(3)


def test_the_papers_files_have_the_papers_counts(home: Path, pytestconfig: pytest.Config) -> None:
    folder = pytestconfig.rootpath.parent / "shared" / "benchmarks"
    if not folder.is_dir():
        pytest.skip("the paper's files are not beside this checkout")
    reports = {each.name: import_benchmark(each, folder) for each in find_benchmarks_in(folder)}
    assert list(reports) == list(load_registry())
    missing = {(name, s.split) for name, report in reports.items() for s in report.splits if not s.findings}
    assert missing == {("piqa", "train"), ("boolq_open", "train")}
    assert all(report.counts_agree for report in reports.values())
    found = [split.findings for split in reports["csqa"].splits]
    assert sum(len(findings.repeated_options) for findings in found if findings) == 146
    text = json.dumps(read_split(find_benchmark("riddle_sense"), "test"), ensure_ascii=False)
    assert not any("\x80" <= c <= "\x9f" for c in text)


def test_the_formatting_example_is_the_reference_implementations_choice(tmp_path: Path, home: Path) -> None:
    rows = choices(50)
    csqa = imported(tmp_path, "csqa", {"train": rows, "test": choices(3)})
    for seed in range(20):
        random.seed(seed)
        expected = random.choice(rows)
        [values], note = formatting_examples(csqa, seed)
        assert values == expected
        assert note == f"formatting example: row {rows.index(expected) + 1} of csqa's train split, seed {seed}"


def test_a_malformed_formatting_example_is_sampled_again(tmp_path: Path, home: Path) -> None:
    rows = choices(10)
    for i in range(9):
        rows[i] = {**rows[i], "options": ["a", "a", "b", "c", "d"], "label": "b" if i % 2 else "e"}
    csqa = imported(tmp_path, "csqa", {"train": rows})
    found = [formatting_examples(csqa, seed) for seed in range(12)]
    assert all(values == [rows[9]] for values, _ in found)
    assert sum("malformed row" in note for _, note in found) >= 9
    bad = [{**row, "label": "nowhere"} for row in choices(3, options=2)]
    with pytest.raises(BenchmarkError, match="none of 1000 rows sampled from train fits its format"):
        formatting_examples(imported(tmp_path, "piqa", {"train": bad}), 1)


def test_without_a_train_split_the_formatting_example_is_from_dev(tmp_path: Path, home: Path) -> None:
    boolq = imported(tmp_path, "boolq_open", {"dev": passages(5), "test": passages(4, first=9)})
    [values], note = formatting_examples(boolq, 1)
    assert values in passages(5)
    assert "of boolq_open's dev split" in note
    assert "its train split is not imported (run `datacreate benchmarks import boolq_open`" in note
    with pytest.raises(BenchmarkError, match="csqa is not imported"):
        formatting_examples(find_benchmark("csqa"), 1)
    piqa = imported(tmp_path, "piqa", {"test": choices(3, options=2)})
    with pytest.raises(BenchmarkError, match="piqa has no dev split"):
        formatting_examples(piqa, 1)
