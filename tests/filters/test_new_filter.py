"""A filter is a module and lines in two files (CONTRIBUTING.md): options, rejects and reports follow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import ROOT

MODULE = """
from datacreate.filters.filter import Filter
from datacreate.formats.reject import RejectReason
from datacreate.settings import Settings, setting


class DigitsOptions(Settings):
    max_digits: int | None = setting("Most digits of an example.", "quality", gt=0)


class Digits(Filter):
    name = "digits"
    reason = RejectReason.TOO_MANY_DIGITS
    option_names = ("max_digits",)
    needs_embedder = True
    remaining_if_off = "long numbers"

    def __init__(self, options, resources):
        self._most = options.max_digits
        assert resources.vectors.embedder

    def find_problem(self, candidate):
        digits = sum(map(str.isdigit, candidate.text_without_passage))
        return f"{digits} digits" if digits > self._most else None
"""

ADDED = [
    (
        "filters/__init__.py",
        "from datacreate.filters.exact import",
        "from datacreate.filters.digits import Digits, DigitsOptions\nfrom datacreate.filters.exact import",
    ),
    ("filters/__init__.py", "class FilterOptions(", "class FilterOptions(DigitsOptions, "),
    ("filters/__init__.py", "FILTERS: tuple[type[Filter], ...] = (", "FILTERS: tuple[type[Filter], ...] = (Digits, "),
    (
        "formats/reject.py",
        '    INVALID_JSON = "invalid_json"\n',
        '    INVALID_JSON = "invalid_json"\n    TOO_MANY_DIGITS = "too_many_digits", "try a larger --max-digits"\n',
    ),
]
"""Module, and what is replaced by what."""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of datacreate with the filter; its parent has the other files."""
    package = tmp_path / "code" / "datacreate"
    shutil.copytree(ROOT / "datacreate", package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("models", "schemas", "data"):
        (package.parent / folder).symlink_to(ROOT / folder)
    (package / "filters" / "digits.py").write_text(MODULE)
    for name, old, new in ADDED:
        text = (package / name).read_text()
        assert text.count(old) == 1
        (package / name).write_text(text.replace(old, new))
    return package


def called(package: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{package.parent}{os.pathsep}{ROOT}"}
    call = [sys.executable, *command]
    return subprocess.run(call, cwd=package.parent.parent, env=environment, text=True, capture_output=True)


CREATE = """
import json, sys
from pathlib import Path
from datacreate.errors import NoProgress
from tests.support.making import make
from tests.support.scripted import answering
run_dir, model = Path(sys.argv[1]), sys.argv[2]
print(json.dumps(make(run_dir, model, answering(200_000), max_digits=5)))
try:
    make(run_dir / "other", model, answering(), max_digits=1)
except NoProgress as error:
    print(error)
"""


def test_a_new_filter_has_an_option_a_key_a_report_and_advice(package: Path, model: str) -> None:
    run_dir = package.parents[1] / "run"
    created = called(package, "-c", CREATE, str(run_dir), model)
    line, failure = created.stdout.splitlines()
    summary: dict[str, Any] = json.loads(line)
    rejected = summary["rejected"]["too_many_digits"]
    assert rejected > 0
    assert summary["filters"][0] == {
        "name": "digits", "reason": "too_many_digits", "on": True, "settings": {"max_digits": 5}, "rejected": rejected,
    }  # fmt: skip
    assert json.loads((run_dir / "config.json").read_text())["spec"]["filters"]["max_digits"] == 5
    assert failure.endswith("try a larger --max-digits")

    config = run_dir / "create.yaml"
    config.write_text(f"example: {ROOT}/data/examples/commonsense.json\ncount: 3\nmax-digits: 4\nverify: off\n")
    command = ("-m", "tests.support.driver", "create", "--config", str(config), "--model", model)
    refused = called(package, *command, "--recipe", "paper", "--dry-run")
    assert "--max-digits: --recipe paper has no such step" in refused.stderr
    described = called(package, *command, "--strategy", "tree", "--dry-run")
    assert "--embedding-model: " in described.stderr  # it is not downloaded, and the filter needs it
    assert "--max-digits INTEGER" in called(package, "-m", "tests.support.driver", "create", "--help").stdout
