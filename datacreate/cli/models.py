"""`datacreate models`: lists and downloads models."""

from __future__ import annotations

from pathlib import Path

import click

from datacreate.cli.options import Command, json_option, option
from datacreate.cli.terminal import echo, print_columns, print_json, say


@click.group()
def models() -> None:
    """List and download models: presets, and any model of the Hugging Face Hub."""


@models.command("list", cls=Command)
@json_option("Print all settings of the presets, and the paths, as JSON.")
def list_(*, as_json: bool) -> None:
    """All presets, and which of them are downloaded."""
    from rich.filesize import decimal

    from datacreate.checkpoints.folder import find_empty_weights
    from datacreate.checkpoints.presets import load_presets
    from datacreate.checkpoints.pull import find_local

    presets = load_presets().values()
    rows = [(preset, str(find_local(preset.name, preset.sources) or "")) for preset in presets]
    if as_json:
        print_json(
            [preset.model_dump(mode="json", exclude_defaults=True) | {"path": path or None} for preset, path in rows]
        )
        return
    lines = [("NAME", "KIND", "PARAMETERS", "SIZE", "LICENSE", "DOWNLOADED", "REMARKS")]
    for preset, path in rows:
        remarks = [word for word in ("untested", "gated") if getattr(preset, word)]
        remarks += ["thinks"] if preset.thinking else []
        figures = (preset.parameters or "?", decimal(preset.size_bytes), preset.license)
        downloaded = "yes" if path else "no"
        if path and find_empty_weights(Path(path)):
            downloaded = "damaged"
        lines.append((preset.name, preset.kind, *figures, downloaded, ", ".join(remarks)))
    print_columns(lines)


@models.command(cls=Command, downloads=True)
@click.argument("names", nargs=-1, required=True, metavar="NAME|ORG/NAME[@REVISION]...")
@option("--force", is_flag=True, help="Download again even if it is complete on this machine.")
def pull(names: tuple[str, ...], *, force: bool) -> None:
    """Download presets, or models by their Hub id; an interrupted download resumes."""
    from datacreate.checkpoints.presets import find_sources
    from datacreate.checkpoints.pull import pull as pull_one

    for name in names:
        find_sources(name)  # a wrong name is an error before the first download
    for name in names:
        echo(f"{name}: {pull_one(name, say, force=force)}")
