"""Commands in README.md, CONTRIBUTING.md and docs/ have options that exist; links lead to files that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from datacreate.cli.group import datacreate

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BASH_BLOCK = re.compile(r"^```bash[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def commands(page: Path) -> Iterator[str]:
    """The `datacreate` commands of a page's bash blocks, continued lines joined."""
    for block in BASH_BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip().startswith("datacreate "):
                yield line.strip()


COMMANDS = [pytest.param(line, id=f"{page.name}: {line[:60]}") for page in PAGES for line in commands(page)]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_documented_command_has_options_that_exist(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for word in shlex.split(line, comments=True) if word not in ("...", "&")]
    for at, word in enumerate(words):
        if word[0] in "><|&":
            words = words[:at]
            break
    if "--config" in words:
        Path(words[words.index("--config") + 1]).write_text("{}", encoding="utf-8")
    command: click.Command = datacreate
    context = click.Context(datacreate, info_name="datacreate")
    rest = words[1:]
    while isinstance(command, click.Group) and rest:
        found = command.get_command(context, rest[0])
        assert found is not None, rest[0]
        command, rest = found, rest[1:]
    with command.make_context(command.name, rest, parent=context):
        pass


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert not missing


def test_a_package_describes_modules_that_exist() -> None:
    packages = list((ROOT / "datacreate").glob("*/__init__.py"))
    missing = [
        f"{page.parent.name}/{name}"
        for page in packages
        for name in re.findall(r"\w+\.py\b", page.read_text(encoding="utf-8"))
        if not (page.parent / name).exists() and not (page.parents[1] / name).exists()
    ]
    assert packages
    assert not missing
