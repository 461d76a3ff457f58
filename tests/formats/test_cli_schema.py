"""`datacreate schema infer` and `schema check`, as typed."""

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
from tests.formats import kinds


def run(*arguments: object) -> Result:
    return CliRunner().invoke(datacreate, ["schema", *map(str, arguments)])


def saved(folder: Path, values: Any, name: str = "example.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.mark.parametrize("values", kinds.ALL.values(), ids=kinds.ALL)
def test_what_infer_prints_is_taken_back_by_format(tmp_path: Path, values: dict[str, Any]) -> None:
    example = saved(tmp_path, values)
    result = run("infer", example)
    assert result.exit_code == 0
    format = saved(tmp_path, json.loads(result.stdout), "format.json")
    assert infer_format(Example(values), str(format)).format == kinds.inferred(values).format
    assert run("check", format, "--example", example).exit_code == 0


def test_infer_says_what_it_understood_beside_the_schema(tmp_path: Path) -> None:
    result = run("infer", saved(tmp_path, kinds.NLI), "--labels", "label=entailment,neutral,contradiction")
    assert json.loads(result.stdout)["properties"]["label"]["enum"] == [
        "entailment",
        "neutral",
        "contradiction",
    ]
    assert result.stderr == (
        "format inferred: question = hypothesis; context = premise; answer = label; "
        "labels entailment, neutral, contradiction\n"
    )


def test_infer_takes_a_range(tmp_path: Path) -> None:
    result = run("infer", saved(tmp_path, kinds.REVIEW), "--range", "stars=1..5")
    assert json.loads(result.stdout)["properties"]["stars"] == {"type": "integer", "minimum": 1, "maximum": 5}


def test_check_takes_a_shipped_name() -> None:
    assert run("check", "multiple_choice").stdout == "format multiple_choice: good\n"


def test_check_prints_roles_for_machines(tmp_path: Path) -> None:
    result = run("check", "multiple_choice", "--example", saved(tmp_path, kinds.UMBRELLA), "--json")
    assert json.loads(result.stdout)["head"] == "multiple_choice"


def test_check_refuses_a_format_that_contradicts_the_example(tmp_path: Path) -> None:
    result = run("check", "yes_no_open_book", "--example", saved(tmp_path, kinds.UMBRELLA))
    assert isinstance(result.exception, DatacreateError)
    assert result.exception.exit_code == 2
