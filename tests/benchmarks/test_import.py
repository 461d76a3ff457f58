"""Import from the reference's layout: what is taken, what is said, and what stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datacreate.benchmarks import (
    ImportOptions,
    digest,
    find_benchmark,
    from_reference,
    has_split,
    import_reference,
    load_registry,
    read_manifest,
    read_split,
    state,
    verify,
)
from datacreate.errors import BenchmarkError, StorageError
from tests.benchmarks.conftest import choices, claims, imported, lines, passages, write_reference


def test_what_was_imported_is_what_is_read(tmp_path: Path, home: Path) -> None:
    rows = {"train": choices(20), "dev": choices(6, first=20), "test": choices(7, first=30)}
    csqa = imported(tmp_path / "reference", "csqa", rows)
    assert {split: read_split(csqa, split) for split in rows} == rows
    assert state(csqa) == "present"
    assert len({digest(csqa, split) for split in rows}) == 3


def test_rows_come_in_one_spelling_whatever_the_file_has(tmp_path: Path, home: Path) -> None:
    odd = [{**claims(1)[0], "question": "Cafe\u0301\u2028open?", "options": None, "label": "yes"}]
    content = b"\xef\xbb\xbf" + lines(odd).replace(b"\n", b"\r\n") + b"\n"
    creak = imported(tmp_path, "creak", {"test": content})
    assert read_split(creak, "test") == [
        {"question": "Café\nopen?", "context": None, "options": ["True", "False"], "label": True}
    ]


def test_odd_rows_are_kept_and_told_with_their_numbers(tmp_path: Path, home: Path) -> None:
    rows = choices(10)
    rows[2] = {**rows[2], "options": ["a", "b", "a", "c", "d"], "label": "a"}
    rows[4] = {**rows[4], "label": "nowhere"}
    rows[7] = {**rows[7], "question": "WHERE does box 1 stand"}
    test = [*choices(2, first=100), rows[5]]
    csqa = imported(tmp_path, "csqa", {"train": rows, "test": test})
    assert len(read_split(csqa, "train")) == 10
    manifest = read_manifest(csqa)
    assert manifest
    findings = manifest.splits["train"].findings
    assert findings.repeated_options == (3,)
    assert findings.answer_not_an_option == (5,)
    assert findings.repeated_questions == (8,)
    assert findings.in_test == (6,)
    assert findings.malformed == {3, 5}
    assert findings.labels == {"1": 0.3, "2": 0.2, "3": 0.1, "4": 0.2, "5": 0.1}
    assert findings.constant == 0.3


def test_label_shares_and_the_best_constant_prediction(tmp_path: Path, home: Path) -> None:
    creak = imported(tmp_path, "creak", {"test": claims(9)})
    manifest = read_manifest(creak)
    assert manifest
    assert manifest.splits["test"].findings.labels == {"False": 0.6667, "True": 0.3333}
    assert manifest.splits["test"].findings.constant == 0.6667


def test_another_number_of_rows_than_the_papers_is_not_put_in_place(tmp_path: Path, home: Path) -> None:
    folder = write_reference(tmp_path, "creak", {"train": claims(9), "test": claims(4, first=9)})
    creak = find_benchmark("creak")
    report = import_reference(folder, creak)
    assert report
    assert report.refused
    assert [split.state for split in report.splits] == ["refused", "missing", "refused"]
    assert state(creak) == "absent"


def test_importing_again_changes_nothing(tmp_path: Path, home: Path) -> None:
    rows = {"train": claims(9), "test": claims(4, first=9)}
    creak = imported(tmp_path, "creak", rows)
    before = {path: path.stat().st_mtime_ns for path in (home / "benchmarks" / "creak").iterdir()}
    report = import_reference(tmp_path, creak, any_count=True)
    assert report
    assert [split.state for split in report.splits] == ["unchanged", "missing", "unchanged"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_split_that_is_here_is_kept_unless_replaced(tmp_path: Path, home: Path) -> None:
    creak = imported(tmp_path / "one", "creak", {"train": claims(9), "test": claims(4, first=9)})
    other = write_reference(tmp_path / "other", "creak", {"test": claims(5, first=20), "dev": claims(2)})
    report = import_reference(other, creak, any_count=True)
    assert report
    assert [split.state for split in report.splits] == ["kept", "imported", "kept"]
    assert "--replace" in str(report.splits[2].remark)
    assert len(read_split(creak, "test")) == 4
    import_reference(other, creak, any_count=True, replace=True)
    assert [len(read_split(creak, split)) for split in ("train", "dev", "test")] == [9, 2, 5]


BAD: dict[str, tuple[bytes, str]] = {
    "not JSON": (lines(claims(2)) + b"{'question'\n", r"test\.jsonl, line 3: not JSON"),
    "wrong columns": (b'{"text": "a"}\n', r"line 1: no column 'question'"),
    "options of another set": (lines(choices(1)), r"line 1: options are not True and False"),
    "not text": (b"\xff\xfe", r"test\.jsonl: not UTF-8 at byte 0"),
    "empty": (b"\n", r"test\.jsonl: no rows in it"),
    "nested": (b'{"question":' * 100_000, r"line 1: "),
}


@pytest.mark.parametrize("what", BAD)
def test_a_wrong_file_is_one_line_and_what_was_here_stays(tmp_path: Path, home: Path, what: str) -> None:
    content, said = BAD[what]
    creak = imported(tmp_path / "good", "creak", {"test": claims(3)})
    folder = write_reference(tmp_path / "bad", "creak", {"train": claims(4), "test": content})
    with pytest.raises(BenchmarkError, match=said) as raised:
        import_reference(folder, creak, any_count=True, replace=True)
    assert "\n" not in str(raised.value)
    assert verify(creak).missing == ("train", "dev")
    assert read_split(creak, "test") == claims(3)


def test_one_wrong_file_does_not_keep_the_other_benchmarks_out(tmp_path: Path, home: Path) -> None:
    write_reference(tmp_path, "csqa", {"test": b"[]\n"})
    write_reference(tmp_path, "piqa", {"test": b"[]\n"})
    write_reference(tmp_path, "creak", {"test": claims(3)})
    with pytest.raises(BenchmarkError, match=r"piqa/test\.jsonl, line 1: .*; csqa is wrong, too"):
        list(from_reference(tmp_path, [], ImportOptions(any_count=True)))
    assert state(find_benchmark("creak")) == "incomplete"


def test_a_folder_of_something_else_is_told_how_snapshots_come_in(tmp_path: Path, home: Path) -> None:
    with pytest.raises(
        BenchmarkError, match=r"no benchmark in the reference's layout .*import NAME --from DIR"
    ):
        list(from_reference(tmp_path, [], ImportOptions()))
    with pytest.raises(BenchmarkError, match=r"no mcqa_5/csqa/\{train,dev,test\}\.jsonl in it"):
        list(from_reference(tmp_path, [find_benchmark("csqa")], ImportOptions()))


def test_what_is_not_here_says_how_it_can_be_brought(tmp_path: Path, home: Path) -> None:
    boolq = find_benchmark("boolq_open")
    with pytest.raises(
        BenchmarkError, match="boolq_open is not imported: run `datacreate benchmarks import boolq_open"
    ):
        read_split(boolq, "train")
    assert not has_split(boolq, "train")
    imported(tmp_path, "boolq_open", {"test": passages(3)})
    with pytest.raises(BenchmarkError, match=r"no train split here: .*google/boolq.*--from DIR"):
        read_split(boolq, "train")
    imported(tmp_path, "bioasq", {"test": passages(3)})
    with pytest.raises(BenchmarkError, match=r"no dev split here: .*DIR/yesno_open/bioasq/dev\.jsonl"):
        digest(find_benchmark("bioasq"), "dev")


def test_damage_is_found_when_read_and_when_verified(tmp_path: Path, home: Path) -> None:
    creak = imported(tmp_path, "creak", {"train": claims(9), "test": claims(3)})
    path = home / "benchmarks" / "creak" / "test.jsonl"
    path.write_bytes(path.read_bytes().replace(b"true", b"TRUE", 1))
    with pytest.raises(BenchmarkError, match=r"test\.jsonl is not what was imported .*--replace"):
        read_split(creak, "test")
    assert any("not what was imported" in problem for problem in verify(creak).problems)
    assert len(read_split(creak, "train")) == 9
    import_reference(tmp_path, creak, any_count=True, replace=True)
    assert read_split(creak, "test") == claims(3)


def test_a_damaged_manifest_is_one_line_and_can_be_replaced(tmp_path: Path, home: Path) -> None:
    creak = imported(tmp_path, "creak", {"test": claims(3)})
    (home / "benchmarks" / "creak" / "manifest.json").write_text("{}")
    assert state(creak) == "damaged"
    with pytest.raises(BenchmarkError, match=r"manifest\.json cannot be read; run .*--replace"):
        read_split(creak, "test")
    import_reference(tmp_path, creak, any_count=True, replace=True)
    assert read_split(creak, "test") == claims(3)


def test_verify_counts_the_rows_and_finds_strangers(tmp_path: Path, home: Path) -> None:
    creak = imported(tmp_path, "creak", {"test": claims(3)})
    (home / "benchmarks" / "creak" / "notes.txt").write_text("x")
    problems = verify(creak).problems
    assert problems == ("test has 3 rows, the paper's has 686", "notes.txt was not imported")


def test_a_replacement_that_was_killed_is_finished_by_the_next_import(tmp_path: Path, home: Path) -> None:
    creak = imported(tmp_path, "creak", {"test": claims(3)})
    place = home / "benchmarks" / "creak"
    place.rename(place.with_name(".creak.old"))
    place.with_name(".creak.new").mkdir()
    import_reference(write_reference(tmp_path / "more", "creak", {"dev": claims(2)}), creak, any_count=True)
    assert len(read_split(creak, "test")) == 3
    assert sorted(p.name for p in place.parent.iterdir() if p.is_dir()) == ["creak"]


def test_a_home_that_cannot_be_written_is_a_storage_error(tmp_path: Path, home: Path) -> None:
    home.write_text("a file")
    with pytest.raises(StorageError, match="benchmarks"):
        imported(tmp_path, "creak", {"test": claims(3)})


def test_the_papers_files_have_the_papers_counts(home: Path, pytestconfig: pytest.Config) -> None:
    folder = pytestconfig.rootpath.parent / "shared" / "benchmarks"
    if not folder.is_dir():
        pytest.skip("the reference's files are not beside this checkout")
    reports = {report.name: report for report in from_reference(folder, [], ImportOptions())}
    assert list(reports) == list(load_registry())
    missing = {
        (name, split.split)
        for name, report in reports.items()
        for split in report.splits
        if split.state != "imported"
    }
    assert missing == {("piqa", "train"), ("boolq_open", "train")}
    assert all(report.counts_agree for report in reports.values())
    assert all(verify(benchmark).good for benchmark in load_registry().values())
    found = {(s.split): s.findings for s in reports["csqa"].splits}
    assert sum(len(findings.repeated_options) for findings in found.values() if findings) == 146
    text = json.dumps(read_split(find_benchmark("riddle_sense"), "test"), ensure_ascii=False)
    assert not any("\x80" <= c <= "\x9f" for c in text)
