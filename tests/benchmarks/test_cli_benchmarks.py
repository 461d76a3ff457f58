"""`datacreate benchmarks`: output and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datacreate.benchmarks import find_benchmark, import_state
from tests.benchmarks.conftest import choices, imported, write_reference
from tests.support.inprocess import run


def test_list_shows_sizes_and_what_is_imported(tmp_path: Path, home: Path) -> None:
    imported(tmp_path, "csqa", {"dev": choices(3), "test": choices(3)})
    text = run("benchmarks", "list").out
    assert "csqa          mcqa_5       5        8500   1221  1241  riddle_sense        without train" in text
    assert "boolq_open, bioasq  absent" in text
    rows = {row["name"]: row for row in json.loads(run("benchmarks", "list", "--json").out)}
    assert (len(rows), rows["csqa"]["state"]) == (10, "incomplete")
    assert rows["creak"]["rows"] == {"train": 10176, "dev": 685, "test": 686}
    assert (rows["creak"]["head"], rows["creak"]["imported"]) == ("sequence_classification", None)
    assert (rows["csqa"]["license"], rows["csqa"]["source"]["hub"]["id"]) == ("MIT", "tau/commonsense_qa")
    assert rows["csqa"]["imported"]["splits"]["test"]["findings"]["answer_not_an_option"] == []


def test_import_reports_and_exits_with_1_for_another_number_of_rows(tmp_path: Path, home: Path) -> None:
    rows = choices(9)
    rows[3] = {**rows[3], "label": "nowhere"}
    folder = write_reference(tmp_path, "csqa", {"test": rows})
    refused = run("benchmarks", "import", "--from", folder)
    assert refused.code == 1
    assert "test   9     1,241  refused  22.2%     1 whose answer is not an option" in refused.out
    assert "--allow-count-mismatch imports it anyway" in refused.out
    assert import_state(find_benchmark("csqa")) == "absent"
    done = run("benchmarks", "import", "csqa", "--from", folder, "--allow-count-mismatch")
    assert done.code == 0
    assert "train  -     8,500  missing" in done.out


@pytest.mark.parametrize(
    ("names", "code", "says"),
    [
        ([], 2, "name the benchmarks to download, or give a folder with --from DIR"),
        (["creak", "cskwa", "--from", "."], 2, "unknown benchmark 'cskwa' (did you mean csqa?)"),
        (["--from", "."], 1, "no benchmark in the folder structure of the paper's repository"),
    ],
)
def test_wrong_usage_is_one_line(
    names: list[str], code: int, says: str, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run("benchmarks", "import", *names)
    assert (ended.code, ended.out, says in ended.failure) == (code, "", True), ended.err
