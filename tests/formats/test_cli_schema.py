"""The commands `datacreate schema infer` and `schema check`, and docs/formats.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from datacreate.cli.commands import datacreate
from datacreate.formats.candidate import RejectReason
from datacreate.formats.example import Example
from datacreate.formats.infer import infer_format
from datacreate.formats.options import FormatOptions
from datacreate.formats.schema_keywords import KEYWORDS
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
    assert (
        infer_format(Example(values), FormatOptions(format=str(format))).format == infer_format(Example(values)).format
    )
    assert run("check", format, "--example", example).exit_code == 0


def docs(name: str) -> str:
    return (Path(__file__).parents[2] / "docs" / name).read_text(encoding="utf-8")


DOCS = docs("formats.md")


def test_the_documented_commands_print_the_documented_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [format_file] = re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL)
    Path("tickets.json").write_text(format_file)
    for block in re.findall(r"```console\n\$ (.*?)```", DOCS, re.DOTALL):
        for command, _, output in (part.partition("\n") for part in block.split("\n$ ")):
            verb, *words = command.partition(" > ")[0].split()
            if verb == "cat":
                Path(words[0]).write_text(output)
            else:
                result = CliRunner().invoke(datacreate, words)
                assert output.strip() in result.output


def test_all_keywords_and_reasons_are_documented() -> None:
    assert set(KEYWORDS) - {"x-datacreate"} <= set(re.findall(r"`([$\w]+)`", DOCS))
    assert {reason.value for reason in RejectReason} <= set(re.findall(r"`(\w+)`", docs("quality.md")))
