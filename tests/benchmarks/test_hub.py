"""The Hub as a source of data sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datacreate.benchmarks import find_benchmark, read_manifest, read_split
from datacreate.libraries import NO_DOWNLOADS
from tests.benchmarks.conftest import claims
from tests.benchmarks.test_copy import as_creak
from tests.support.hub import COMMIT, Hub
from tests.support.inprocess import run

ROWS = claims(12)
REPO = "amydeng2000/CREAK"


@pytest.fixture(autouse=True)
def nothing_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment as it is before scripts/test, or another command, changes it."""
    for name in NO_DOWNLOADS:
        monkeypatch.delenv(name, raising=False)


def _jsonl(first: int, last: int) -> bytes:
    return "".join(json.dumps(as_creak(row)) + "\n" for row in ROWS[first:last]).encode()


FILES = {"train.jsonl": _jsonl(0, 8), "validation.jsonl": _jsonl(8, 12), "creak.py": b"boom", "README.md": b""}


def test_a_data_set_is_downloaded_without_its_code_and_its_commit_is_recorded(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with Hub(FILES, f"datasets/{REPO}") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        command = ("benchmarks", "import", "creak", "--allow-count-mismatch")
        hub.sent["train.jsonl"] = b"{}\n"
        assert "train.jsonl has a different hash from the file on the Hub" in run(*command).failure
        hub.sent.clear()
        ended = run(*command)
    assert not any("creak.py" in each for each in hub.requests)
    assert ended.code == 0, ended.err
    creak = find_benchmark("creak")
    assert read_split(creak, "train") == ROWS[:8]
    assert sorted([*read_split(creak, "dev"), *read_split(creak, "test")], key=str) == sorted(ROWS[8:], key=str)
    manifest = read_manifest(creak)
    assert manifest
    assert manifest.splits["train"].source == f"hub {REPO}@{COMMIT}"


def test_without_the_hub_the_error_says_how_to_import_a_copy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("benchmarks", "import", "piqa")
    by_hand = "hf download ybisk/piqa --repo-type dataset --revision refs/convert/parquet --local-dir DIR"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    for offline, why in [("1", "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"), ("0", "Connection refused")]:
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
        ended = run(*command)
        assert ended.code == 1
        assert why in ended.failure
        assert by_hand in ended.failure
