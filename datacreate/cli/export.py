"""`datacreate export`: a run's examples in another layout."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--layout",
    type=click.Choice(["reference", "hf", "parquet", "chat"]),
    required=True,
    help="reference: train_STRATEGY.jsonl; hf: a datasets folder; parquet; chat: conversations for an LLM.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to write into.  [default: RUN/export/LAYOUT]"
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export(run: Path, layout: str, out: Path | None, as_json: bool) -> None:
    """Write RUN's examples in another layout."""
    from datacreate.runs.directory import RunDirectory
    from datacreate.runs.export import LAYOUTS

    written = LAYOUTS[layout](RunDirectory(run), out or run / "export" / layout)
    click.echo(json.dumps({"layout": layout, "written": str(written)}) if as_json else str(written))
