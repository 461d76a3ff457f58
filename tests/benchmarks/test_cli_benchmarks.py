"""`datacreate benchmarks`: what it prints where, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from datacreate.benchmarks import find_benchmark, state
from datacreate.cli.benchmarks import benchmarks
from datacreate.errors import BenchmarkError
from tests.benchmarks.conftest import choices, claims, imported, write_reference
from tests.inprocess import run


def said(*arguments: object) -> Result:
    return CliRunner().invoke(benchmarks, [str(argument) for argument in arguments])


def test_list_shows_sizes_pairs_and_what_is_here(tmp_path: Path, home: Path) -> None:
    imported(tmp_path, "csqa", {"dev": choices(3), "test": choices(3)})
    text = said("list").stdout
    assert "csqa          mcqa_5       5        8500   1221  1241  riddle_sense        without train" in text
    assert "boolq_open, bioasq  absent" in text
    rows = {row["name"]: row for row in json.loads(said("list", "--json").stdout)}
    assert len(rows) == 10
    assert rows["csqa"]["state"] == "incomplete"
    assert rows["creak"]["rows"] == {"train": 10176, "dev": 685, "test": 686}
    assert rows["creak"]["head"] == "sequence_classification"


def test_show_has_the_registry_and_what_was_imported(tmp_path: Path, home: Path) -> None:
    imported(tmp_path, "csqa", {"test": [{**row, "label": "nowhere"} for row in choices(9)]})
    shown = json.loads(said("show", "csqa", "--json").stdout)
    assert shown["source"]["hub"]["id"] == "tau/commonsense_qa"
    assert shown["imported"]["splits"]["test"]["findings"]["answer_not_an_option"] == [*range(1, 10)]
    assert set(shown["imported"]["missing"]) == {"train", "dev"}
    text = said("show", "csqa").stdout
    assert "license: MIT" in text
    assert "answer_not_an_option: '9 rows: 1, 2, 3, 4, 5, …'" in text
    assert "imported" not in said("show", "creak").stdout


def test_import_tells_shares_and_odd_rows_and_exits_with_1_for_another_count(
    tmp_path: Path, home: Path
) -> None:
    rows = choices(9)
    rows[3] = {**rows[3], "label": "nowhere"}
    folder = write_reference(tmp_path, "csqa", {"test": rows})
    refused = said("import", "--from", folder)
    assert refused.exit_code == 1
    assert "test   9 rows, NOT the paper's 1,241; refused" in refused.stdout
    assert "not imported; --allow-count-mismatch imports it anyway" in refused.stdout
    assert state(find_benchmark("csqa")) == "absent"
    taken = said("import", "csqa", "--from", folder, "--allow-count-mismatch")
    assert taken.exit_code == 0
    assert "1 row whose answer is not an option: 4" in taken.stdout
    assert "right answers: #1 22.2%" in taken.stdout
    assert "train  missing (the paper's has 8,500 rows)" in taken.stdout


def test_import_as_json(tmp_path: Path, home: Path) -> None:
    folder = write_reference(tmp_path, "creak", {"test": claims(6)})
    [report] = json.loads(said("import", "--from", folder, "--allow-count-mismatch", "--json").stdout)
    train, _, test = report["splits"]
    assert (train["state"], train["findings"]) == ("missing", None)
    assert test["findings"]["labels"] == {"False": 0.6667, "True": 0.3333}
    assert test["counts_agree"] is False


def test_what_was_imported_before_a_wrong_file_is_still_told(tmp_path: Path, home: Path) -> None:
    write_reference(tmp_path, "creak", {"test": b"{}\n"})
    write_reference(tmp_path, "csqa", {"test": choices(2)})
    ended = said("import", "--from", tmp_path, "--allow-count-mismatch", "--json")
    assert isinstance(ended.exception, BenchmarkError)
    assert [report["name"] for report in json.loads(ended.stdout)] == ["csqa"]


def test_wrong_usage(tmp_path: Path, home: Path) -> None:
    for arguments, words in [
        ((), "name the benchmarks to download"),
    ]:
        ended = said("import", *arguments)
        assert ended.exit_code == 2
        assert words in ended.stderr
    misspelt = said("import", "creak", "cskwa", "--from", tmp_path)
    assert isinstance(misspelt.exception, BenchmarkError)


def test_verify_exits_with_1_when_something_is_absent_or_not_what_it_was(tmp_path: Path, home: Path) -> None:
    assert said("verify").exit_code == 0
    absent = said("verify", "csqa")
    assert absent.exit_code == 1
    assert "csqa: absent: not imported" in absent.stdout
    imported(tmp_path, "creak", {"test": claims(686)})
    good = said("verify")
    assert (good.exit_code, good.stdout) == (0, "creak: good, 0.1 MB hashed, without train, dev\n")
    path = home / "benchmarks" / "creak" / "test.jsonl"
    path.write_bytes(path.read_bytes() + b"\n")
    damaged = said("verify", "--json")
    assert damaged.exit_code == 1
    assert json.loads(damaged.stdout)[0]["state"] == "damaged"


def test_every_failure_is_one_line_of_the_command(tmp_path: Path, home: Path) -> None:
    ended = run("benchmarks", "import", "--from", tmp_path)
    assert (ended.code, ended.out) == (1, "")
    assert "no benchmark in the reference's layout" in ended.failure
