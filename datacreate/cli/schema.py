"""`datacreate schema`: infer a task format from an example, or check one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from datacreate.cli.options import Command, path_argument, path_option, settings_options
from datacreate.cli.terminal import echo, print_json, say
from datacreate.formats.options import FormatOptions


@click.group()
def schema() -> None:
    """Infer a task format from an example, or check a format file."""


@schema.command(cls=Command)
@path_argument("example")
@settings_options(FormatOptions, "fields", without=("format",))
def infer(example: Path, fields: dict[str, Any]) -> None:
    """Print the format inferred from EXAMPLE, to edit and use with --format."""
    from datacreate.formats.infer import infer_format
    from datacreate.formats.reader import load_example

    options = FormatOptions.of(**fields)
    inferred = infer_format(load_example(example), options)
    for note in inferred.notes:
        say(note)
    print_json(inferred.format.document())


@schema.command(cls=Command)
@click.argument("file")
@path_option("--example", group="input", help="Example to validate.")
def check(file: str, example: Path | None) -> None:
    """Check whether FILE (a file or a shipped name) is a valid format, and whether --example is valid in it."""
    from datacreate.formats.infer import infer_format
    from datacreate.formats.reader import load_example
    from datacreate.formats.task_format import load_format

    if example is None:
        echo(f"format {load_format(file).name}: good")
        return
    for note in infer_format(load_example(example), FormatOptions(format=file)).notes:
        echo(note)
