"""`datacreate models`: which checkpoints there are, fetch them, bring in others, check them.

Results go to stdout, progress to stderr. Everything heavy is imported inside the commands,
since `datacreate --help` imports this module.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from datacreate.cli.progress import CheckpointProgress
from datacreate.cli.terminal import print_columns, size

if TYPE_CHECKING:
    from datacreate.checkpoints import Preset, VerifyReport


@click.group()
def models() -> None:
    """List, fetch, import and check the models and encoders (checkpoints)."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
def list_(as_json: bool) -> None:
    """All presets, and which of them are here."""
    from datacreate.checkpoints import load_presets, state

    rows = [(preset, state(preset)) for preset in load_presets().values()]
    if as_json:
        click.echo(json.dumps([_summary(preset, found) for preset, found in rows], indent=2))
        return
    lines = [("NAME", "KIND", "PARAMETERS", "SIZE", "LICENCE", "STATE")]
    for preset, found in rows:
        remarks = [found, *(["untested"] if preset.untested else []), *(["gated"] if preset.gated else [])]
        figures = (preset.parameters or "?", size(preset.size_bytes))
        lines.append((preset.name, preset.kind, *figures, preset.license, ", ".join(remarks)))
    print_columns(lines)


@models.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def show(name: str, as_json: bool) -> None:
    """Everything a preset says, and where its checkpoint is."""
    import yaml

    from datacreate.checkpoints import find_preset, places, state

    preset = find_preset(name)
    found = state(preset)
    path = None if found == "absent" else str(places.finished(preset.name))
    everything: dict[str, Any] = preset.model_dump(mode="json", exclude_defaults=True)
    everything |= {"state": found, "path": path}
    if as_json:
        click.echo(json.dumps(everything, indent=2))
    else:
        click.echo(yaml.safe_dump(everything, sort_keys=False, allow_unicode=True, width=110).rstrip())


@models.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--force", is_flag=True, help="Download again even when it is here and looks whole.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def pull(names: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Download checkpoints; a pull that was stopped resumes with what had arrived."""
    from datacreate.checkpoints import find_preset
    from datacreate.checkpoints import pull as pull_one

    presets = [find_preset(name) for name in names]  # a misspelt name is told before the first byte
    fetched = []
    for preset in presets:
        with CheckpointProgress(preset.name) as progress:
            path = pull_one(preset, progress, force=force)
        fetched.append(_place(preset, path))
        if not as_json:
            click.echo(f"{preset.name}: {path}")
    if as_json:
        click.echo(json.dumps(fetched, indent=2))


@models.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--name", help="What it is called from now on.  [default: after the file or folder]")
@click.option("--encoder", is_flag=True, help="It is an encoder, and no instruct model.")
@click.option("--license", default="unknown", show_default=True, help="Told in the cards of what it writes.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def import_(source: Path, name: str | None, encoder: bool, license: str, as_json: bool) -> None:
    """Copy a model of your own into the data directory: a .gguf file, or a checkpoint's folder.

    From then on --model takes its name. To use a file once, give its path with --model instead.
    """
    from datacreate.checkpoints import import_model
    from datacreate.checkpoints.places import finished

    with CheckpointProgress(name or source.name) as progress:
        kind: Literal["instruct", "encoder"] = "encoder" if encoder else "instruct"
        preset = import_model(source, name, kind, license, progress)
    path = finished(preset.name)
    click.echo(json.dumps(_place(preset, path), indent=2) if as_json else f"{preset.name}: {path}")


@models.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Hash every byte of checkpoints again; without names, of all that are here.

    Exits with 1 when anything is absent or not what it was.
    """
    from datacreate.checkpoints import find_preset, load_presets, state
    from datacreate.checkpoints import verify as verify_one

    presets = [find_preset(name) for name in names]
    if not names:
        presets = [preset for preset in load_presets().values() if state(preset) != "absent"]
    reports: list[VerifyReport] = []
    for preset in presets:
        with CheckpointProgress(preset.name) as progress:
            reports.append(verify_one(preset, progress))
    if as_json:
        click.echo(json.dumps([_report(report) for report in reports], indent=2))
    else:
        for report in reports:
            click.echo(_verdict(report))
        if not reports:
            click.echo("no checkpoint is here yet: run `datacreate models pull NAME`")
    if not all(report.good for report in reports):
        sys.exit(1)


def _summary(preset: Preset, found: str) -> dict[str, Any]:
    keys = {"name", "kind", "description", "parameters", "license", "size_bytes", "untested", "gated"}
    return {**preset.model_dump(mode="json", include=keys), "state": found}


def _place(preset: Preset, path: Path) -> dict[str, Any]:
    return {"name": preset.name, "path": str(path)}


def _report(report: VerifyReport) -> dict[str, Any]:
    return {
        "name": report.name,
        "state": report.state,
        "problems": list(report.problems),
        "hashed_bytes": report.hashed_bytes,
    }


def _verdict(report: VerifyReport) -> str:
    if report.good:
        return f"{report.name}: good, {size(report.hashed_bytes)} hashed"
    remedy = "" if report.state == "absent" else f": run `datacreate models pull {report.name} --force`"
    return f"{report.name}: {report.state}: {'; '.join(report.problems)}{remedy}"
