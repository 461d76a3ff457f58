"""`datacreate models`: list presets, show one, download models.

Results go to stdout, progress to stderr. Everything heavy is imported inside the commands, since
`datacreate --help` imports this module.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datacreate.cli.options import Command, json_option, option
from datacreate.cli.terminal import print_columns, size

if TYPE_CHECKING:
    from datacreate.checkpoints import Preset


@click.group()
def models() -> None:
    """List and download models: presets, and any model of the Hugging Face Hub."""


@models.command("list", cls=Command)
@json_option()
def list_(as_json: bool) -> None:
    """All presets, and which of them are downloaded."""
    from datacreate.checkpoints import load_presets

    rows = [(preset, _path(preset)) for preset in load_presets().values()]
    if as_json:
        keys = {"name", "kind", "description", "parameters", "license", "size_bytes", "untested", "gated"}
        shown = [preset.model_dump(mode="json", include=keys) | {"path": path} for preset, path in rows]
        click.echo(json.dumps(shown, indent=2))
        return
    lines = [("NAME", "KIND", "PARAMETERS", "SIZE", "LICENSE", "DOWNLOADED", "REMARKS")]
    for preset, path in rows:
        remarks = [word for word in ("untested", "gated") if getattr(preset, word)]
        figures = (preset.parameters or "?", size(preset.size_bytes), preset.license)
        lines.append((preset.name, preset.kind, *figures, "yes" if path else "no", ", ".join(remarks)))
    print_columns(lines)


@models.command(cls=Command)
@click.argument("name", metavar="NAME|ORG/NAME[@REVISION]")
@json_option()
def show(name: str, as_json: bool) -> None:
    """Everything a preset says, and the path of its model; of a Hub id without a preset the path only."""
    import yaml

    from datacreate.checkpoints import find_local, sources_of
    from datacreate.errors import CheckpointError

    if Path(name).expanduser().exists():
        raise CheckpointError(f"{name}: a path; `models show` shows presets and Hub ids. Use it with --model")
    preset, sources = sources_of(name)
    path = find_local(preset.name if preset else name, sources)
    found = (
        preset.model_dump(mode="json", exclude_defaults=True) if preset else {"name": name, "preset": None}
    )
    shown: dict[str, Any] = found | {"path": str(path) if path else None}
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=110).rstrip()
    click.echo(json.dumps(shown, indent=2) if as_json else text)


@models.command(cls=Command)
@click.argument("names", nargs=-1, required=True, metavar="NAME|ORG/NAME[@REVISION]...")
@option("--force", is_flag=True, help="Download again even if it is complete on this machine.")
@json_option()
def pull(names: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Download presets, or models by their Hub id; an interrupted download resumes."""
    from datacreate.checkpoints import pull as pull_one
    from datacreate.checkpoints import sources_of

    for name in names:
        sources_of(name)  # a wrong name is an error before the first download
    pulled: list[dict[str, str]] = []
    for name in names:
        path: Path = pull_one(name, lambda text: click.echo(text, err=True), force=force)
        pulled.append({"name": name, "path": str(path)})
        if not as_json:
            click.echo(f"{name}: {path}")
    if as_json:
        click.echo(json.dumps(pulled, indent=2))


def _path(preset: Preset) -> str | None:
    from datacreate.checkpoints import find_local

    path = find_local(preset.name, preset.sources)
    return str(path) if path else None
