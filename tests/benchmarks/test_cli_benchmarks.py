"""`datacreate benchmarks`: output and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from datacreate.benchmarks import find_benchmark, state
from datacreate.cli.benchmarks import benchmarks
from datacreate.errors import BenchmarkError
from tests.benchmarks.conftest import choices, claims, imported, write_reference
from tests.inprocess import run


def typed(*arguments: object) -> Result:
    return CliRunner().invoke(benchmarks, [str(argument) for argument in arguments])


def test_list_shows_sizes_and_what_is_imported(tmp_path: Path, home: Path) -> None:
    imported(tmp_path, "csqa", {"dev": choices(3), "test": choices(3)})
    text = typed("list").stdout
    assert "csqa          mcqa_5       5        8500   1221  1241  riddle_sense        without train" in text
    assert "boolq_open, bioasq  absent" in text
    rows = {row["name"]: row for row in json.loads(typed("list", "--json").stdout)}
    assert len(rows) == 10
    assert rows["csqa"]["state"] == "incomplete"
    assert rows["creak"]["rows"] == {"train": 10176, "dev": 685, "test": 686}
    assert rows["creak"]["head"] == "sequence_classification"


def test_show_has_the_registry_and_what_is_imported(tmp_path: Path, home: Path) -> None:
    imported(tmp_path, "csqa", {"test": [{**row, "label": "nowhere"} for row in choices(9)]})
    shown = json.loads(typed("show", "csqa", "--json").stdout)
    assert shown["source"]["hub"]["id"] == "tau/commonsense_qa"
    assert shown["imported"]["splits"]["test"]["findings"]["answer_not_an_option"] == [*range(1, 10)]
    text = typed("show", "csqa").stdout
    assert "license: MIT" in text
    assert "answer_not_an_option: '9 rows: 1, 2, 3, 4, 5, …'" in text
    assert "imported" not in typed("show", "creak").stdout


def test_import_reports_and_exits_with_1_for_another_number_of_rows(tmp_path: Path, home: Path) -> None:
    rows = choices(9)
    rows[3] = {**rows[3], "label": "nowhere"}
    folder = write_reference(tmp_path, "csqa", {"test": rows})
    refused = typed("import", "--from", folder)
    assert refused.exit_code == 1
    assert "test   9 rows, NOT the paper's 1,241; refused" in refused.stdout
    assert "not imported; --allow-count-mismatch imports it anyway" in refused.stdout
    assert state(find_benchmark("csqa")) == "absent"
    done = typed("import", "csqa", "--from", folder, "--allow-count-mismatch")
    assert done.exit_code == 0
    assert "1 row whose answer is not an option: 4" in done.stdout
    assert "right answers: #1 22.2%" in done.stdout
    assert "train  missing (the paper has 8,500 rows)" in done.stdout
    [report] = json.loads(typed("import", "--from", folder, "--allow-count-mismatch", "--json").stdout)
    train, _, test = report["splits"]
    assert (train["state"], train["findings"]) == ("missing", None)
    assert (test["state"], test["findings"]["rows"], test["counts_agree"]) == ("unchanged", 9, False)


def test_reports_before_a_wrong_file_are_printed(tmp_path: Path, home: Path) -> None:
    write_reference(tmp_path, "creak", {"test": b"{}\n"})
    write_reference(tmp_path, "csqa", {"test": choices(2)})  # comes first in the registry
    ended = typed("import", "--from", tmp_path, "--allow-count-mismatch", "--json")
    assert isinstance(ended.exception, BenchmarkError)
    assert [report["name"] for report in json.loads(ended.stdout)] == ["csqa"]


def test_wrong_usage_is_one_line(tmp_path: Path, home: Path) -> None:
    ended = typed("import")
    assert ended.exit_code == 2
    assert "name the benchmarks to download, or give a folder with --from DIR" in ended.stderr
    assert isinstance(typed("import", "creak", "cskwa", "--from", tmp_path).exception, BenchmarkError)
    failed = run("benchmarks", "import", "--from", tmp_path)
    assert (failed.code, failed.out) == (1, "")
    assert "no benchmark in the folder structure of the paper's repository" in failed.failure


def test_verify_exits_with_1_for_absent_or_changed_benchmarks(tmp_path: Path, home: Path) -> None:
    assert typed("verify").exit_code == 0
    absent = typed("verify", "csqa")
    assert (absent.exit_code, absent.stdout) == (1, "csqa: not imported\n")
    imported(tmp_path, "creak", {"test": claims(686)})
    good = typed("verify")
    assert (good.exit_code, good.stdout) == (0, "creak: ok\n")
    path = home / "benchmarks" / "creak" / "test.jsonl"
    path.write_bytes(path.read_bytes() + b"\n")
    damaged = typed("verify", "--json")
    assert damaged.exit_code == 1
    [document] = json.loads(damaged.stdout)
    assert "was changed after the import" in document["problems"][0]
