"""`datacreate schema`: work out a task format from an example, or check one."""

from __future__ import annotations

import json
from pathlib import Path

import click

from datacreate.cli.fields import LABELS, RANGES, pairs
from datacreate.cli.terminal import printable, say


@click.group()
def schema() -> None:
    """Work out a task format from one example, or check a format file."""


@schema.command()
@click.argument("example", type=click.Path(path_type=Path))
@LABELS
@RANGES
def infer(example: Path, labels: tuple[str, ...], ranges: tuple[str, ...]) -> None:
    """Print the format worked out from EXAMPLE, to edit and give to --format."""
    from datacreate.formats.example import load_example
    from datacreate.formats.infer import infer_format

    inferred = infer_format(load_example(example), None, pairs(labels, "--labels"), pairs(ranges, "--range"))
    for note in inferred.notes:
        say(note)
    click.echo(json.dumps(inferred.format.document(), indent=2, ensure_ascii=False))


@schema.command()
@click.argument("file")
@click.option("--example", type=click.Path(path_type=Path), help="An example that should be valid under it.")
@click.option("--json", "as_json", is_flag=True, help="Print what was understood as JSON.")
def check(file: str, example: Path | None, as_json: bool) -> None:
    """Check FILE (a file or a shipped name): can the grammar hold it, does it fit --example?"""
    from datacreate.formats.example import load_example
    from datacreate.formats.infer import infer_format
    from datacreate.formats.task_format import load_format

    if example is not None:
        inferred = infer_format(load_example(example), file)
        format, notes = inferred.format, list(inferred.notes)
    else:
        format = load_format(file)
        notes = [f"format {format.name}: good"]
    if as_json:
        click.echo(
            json.dumps(
                {"name": format.name, "roles": format.roles.named(), "head": format.head, "notes": notes}
            )
        )
        return
    for note in notes:
        click.echo(printable(note))
