"""The commands `datacreate schema infer` and `schema check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from datacreate.cli.main import datacreate
from datacreate.errors import DatacreateError
from datacreate.formats.example import Example
from datacreate.formats.infer import infer_format
from tests.formats import examples


def run(*arguments: object) -> Result:
    return CliRunner().invoke(datacreate, ["schema", *map(str, arguments)])


def save(folder: Path, values: Any, name: str = "example.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.mark.parametrize("values", examples.ALL.values(), ids=examples.ALL)
def test_format_reads_what_infer_prints(tmp_path: Path, values: dict[str, Any]) -> None:
    example = save(tmp_path, values)
    result = run("infer", example)
    assert result.exit_code == 0
    format = save(tmp_path, json.loads(result.stdout), "format.json")
    assert infer_format(Example(values), str(format)).format == examples.inferred(values).format
    assert run("check", format, "--example", example).exit_code == 0


def test_infer_prints_a_summary_and_takes_labels_and_ranges(tmp_path: Path) -> None:
    result = run("infer", save(tmp_path, examples.NLI), "--labels", "label=entailment,neutral,contradiction")
    assert json.loads(result.stdout)["properties"]["label"]["enum"][1:] == ["neutral", "contradiction"]
    assert result.stderr == (
        "format inferred: question = hypothesis; context = premise; answer = label; "
        "labels entailment, neutral, contradiction\n"
    )
    result = run("infer", save(tmp_path, examples.REVIEW), "--range", "stars=1..5")
    assert json.loads(result.stdout)["properties"]["stars"] == {"type": "integer", "minimum": 1, "maximum": 5}


def test_check_takes_a_shipped_name_and_an_example(tmp_path: Path) -> None:
    example = save(tmp_path, examples.UMBRELLA)
    result = run("check", "multiple_choice", "--example", example, "--json")
    assert json.loads(result.stdout)["head"] == "multiple_choice"
    error = run("check", "yes_no_open_book", "--example", example).exception
    assert isinstance(error, DatacreateError)
    assert error.exit_code == 2
