"""What docs/formats.md and docs/quality.md say of formats and reject reasons."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from datacreate.cli.group import datacreate
from datacreate.formats.reject import RejectReason
from datacreate.formats.schema_keywords import KEYWORDS


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
