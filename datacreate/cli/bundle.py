"""`datacreate bundle`: make one, check it, install from it.

Results go to stdout, progress to stderr.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import click

from datacreate.cli.progress import CheckpointProgress
from datacreate.cli.terminal import say

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_LEAST_PIECE_BYTES = 1000
_FOLDER = click.Path(file_okay=False, path_type=Path)


class _Bytes(click.ParamType[int]):
    """4GB, 700MiB."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B)", str(value), re.IGNORECASE)
        size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
        if size < _LEAST_PIECE_BYTES:
            self.fail(f"{value!r} is not a size of at least 1KB, such as 4GB or 700MB", param, ctx)
        return size


@click.group()
def bundle() -> None:
    """Carry everything to a machine without a network: make, verify, install."""


@bundle.command()
@click.argument("out", type=_FOLDER)
@click.option(
    "--model", "models", multiple=True, metavar="NAME", help="A preset that writes; may be repeated."
)
@click.option(
    "--encoder", "encoders", multiple=True, metavar="NAME", help="A preset to embed with or fine-tune."
)
@click.option("--benchmarks", default="", metavar="all|NAME,...", help="Imported benchmarks to take along.")
@click.option(
    "--platform", type=click.Choice(["cpu", "gpu"]), required=True, help="What the far side runs on."
)
@click.option(
    "--python",
    type=click.Choice(["3.11", "3.12", "3.13"]),
    default="3.11",
    show_default=True,
    help="Its Python.",
)
@click.option("--piece-size", type=_Bytes(), help="Split larger files, for media (FAT32 takes 4GB).")
@click.option("--wheels/--no-wheels", default=True, help="With or without the environment.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def make(
    out: Path,
    models: tuple[str, ...],
    encoders: tuple[str, ...],
    benchmarks: str,
    platform: str,
    python: str,
    piece_size: int | None,
    wheels: bool,
    as_json: bool,
) -> None:
    """Gather wheels, checkpoints, benchmarks and this project in OUT; a make that was stopped goes on.

    \b
    datacreate bundle make --model qwen2.5-coder-1.5b-instruct --encoder all-mpnet-base-v2 \\
                           --benchmarks all --platform gpu /media/stick/datacreate
    """
    from datacreate.bundle import RequestedSettings, Target
    from datacreate.bundle import make as make_one

    names = tuple(name.strip() for name in benchmarks.split(",") if name.strip())
    wishes = RequestedSettings(
        target=Target(platform, python),
        models=tuple(dict.fromkeys(models)),
        encoders=tuple(dict.fromkeys(encoders)),
        benchmarks=names,
        piece_bytes=piece_size,
        wheels=wheels,
    )
    with CheckpointProgress() as progress:
        made = make_one(out, wishes, progress)
    size = sum(entry.size for entry in made.entries)
    if as_json:
        click.echo(json.dumps({"path": str(out), "files": len(made.entries), "size_bytes": size}))
        return
    click.echo(f"{out}: {len(made.entries)} files, {size / 1e9:.2f} GB, for {wishes.target.words}")
    click.echo("carry it over, then there: sh install.sh --help")


@bundle.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def verify(folder: Path, as_json: bool) -> None:
    """Compare every byte of the bundle DIR with its manifest.

    Exits with 1 when a piece is missing or altered, or a file does not belong to it.
    """
    from datacreate.bundle import read
    from datacreate.bundle import verify as verify_one

    holds = read(folder)
    problems: list[str] = []
    for problem in verify_one(folder, _quiet):
        problems.append(problem)
        if not as_json:
            click.echo(problem)
    size = sum(entry.size for entry in holds.entries)
    if as_json:
        click.echo(json.dumps({"good": not problems, "problems": problems, "size_bytes": size}, indent=2))
    elif not problems:
        click.echo(f"{folder}: good, {len(holds.entries)} files, {size / 1e9:.2f} GB hashed")
    if problems:
        sys.exit(1)


@bundle.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--to", type=_FOLDER, default="datacreate", show_default=True, help="The project's files.")
@click.option("--venv", type=_FOLDER, help="The environment (default: .venv in the project).")
@click.option(
    "--home", type=_FOLDER, help="Checkpoints and benchmarks (default: $DATACREATE_HOME or the usual)."
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def install(folder: Path, to: Path, venv: Path | None, home: Path | None, as_json: bool) -> None:
    """Install from the bundle DIR, without index or network; an install that was stopped goes on.

    Where there is no datacreate yet, `sh DIR/install.sh` does the same.
    """
    from datacreate.bundle import install as install_one

    lines = install_one(folder, to, venv, home, say)
    if as_json:
        click.echo(json.dumps({"path": str(to.absolute()), "next": lines}, indent=2))
        return
    click.echo("\n  ".join(["installed; now:", *lines]))


def _quiet(line: str) -> None:
    """Hashing is silent: a line a file would bury what was found."""
