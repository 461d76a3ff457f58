"""`datacreate export`: writes the rows of a run for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from datacreate.cli.options import command, option, path_argument, path_option, settings_options
from datacreate.cli.terminal import echo, say
from datacreate.errors import UsageError
from datacreate.runs.export import LAYOUTS
from datacreate.runs.export import export as export_run
from datacreate.settings import Settings, Shares, setting


class _SplitOptions(Settings):
    split: Shares | None = setting(
        "Share of each file, such as train=0.9,validation=0.1; rows of one parent or passage stay together.",
        "output",
        metavar="NAME=0.9,...",
    )


@command()
@path_argument("run")
@option(
    "--layout",
    type=click.Choice(list(LAYOUTS)),
    default="jsonl",
    show_default=True,
    group="output",
    help="jsonl: as train.jsonl; hf: a datasets folder; parquet; csv; chat: conversations; alpaca: instruction, input, "
    "output; preference: prompt, chosen, rejected.",
)
@path_option("--out", group="output", help="Folder; older files are replaced.  [default: RUN/export/LAYOUT]")
@settings_options(_SplitOptions, "split_options")
@option("--with-attributes", is_flag=True, group="output", help="Add a column attributes.NAME per dimension.")
@option("--seed", type=int, help="Seed that draws the splits.  [default: 42]", group="output")
@option("--partial", is_flag=True, help="Export what an unfinished run has so far.")
def export(
    run: Path, layout: str, out: Path | None, split_options: dict[str, Any], seed: int | None, **options: Any
) -> None:
    """Write RUN's examples in another layout, as one file or split."""
    from datacreate.runs.directory import RunDirectory

    split = _SplitOptions.of(**split_options).split
    if seed is not None:
        if split is None:
            raise UsageError("--seed draws the splits; give --split, or remove --seed")
        options["seed"] = seed
    for path in export_run(RunDirectory(run), layout, out, split=split, notify=say, **options):
        echo(str(path))
