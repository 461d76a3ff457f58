"""`datacreate review`: decisions of a person about the rows of a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from datacreate.cli.options import command, file_option, json_option, option, path_argument, path_option
from datacreate.cli.terminal import echo, is_live, print_json, say
from datacreate.errors import UsageError
from datacreate.review.session import FLAGS, select_rows


@command()
@path_argument("run")
@option("--label", metavar="LABEL", help="Only rows with this label.", group="input")
@option("--flag", type=click.Choice(list(FLAGS)), help="Only rows with this flag.", group="input")
@option(
    "--sample",
    type=click.IntRange(1),
    metavar="N",
    group="input",
    help="Show N rows drawn at random, and estimate how many labels are right.",
)
@option("--seed", type=int, help="Seed of --sample.  [default: 0]", group="input")
@file_option("--export", ".csv", "Write the rows for a spreadsheet, into a new file.")
@path_option("--import", "import_", metavar="FILE.csv", help="Read decisions from that file.", group="input")
@json_option("Print the counts of all decisions as JSON.")
def review(
    run: Path,
    label: str | None,
    flag: str | None,
    sample: int | None,
    seed: int | None,
    export: Path | None,
    import_: Path | None,
    *,
    as_json: bool,
) -> None:
    """Accept, reject and edit RUN's rows; the most uncertain come first.

    Each decision is saved at once. Rejected rows leave train.jsonl, and the next `create` with the same command
    writes others in their place.

    \b
    datacreate review runs/mine-best
    datacreate review runs/mine-best --sample 100
    datacreate review runs/mine-best --export rows.csv
    datacreate review runs/mine-best --import rows.csv
    """
    from datacreate.creation.run_metrics import measure_run
    from datacreate.review.session import reviewing
    from datacreate.review.spreadsheet import read_spreadsheet, write_spreadsheet
    from datacreate.runs.decisions import review_fields
    from datacreate.runs.directory import RunDirectory

    if import_ and (export or sample or label or flag):
        raise click.UsageError("--import takes the rows of its file; remove --export, --sample, --label and --flag")
    if sample and (label or flag):
        raise click.UsageError("--sample takes rows whatever their label and flag; remove --label and --flag")
    if seed is not None and not sample:
        raise UsageError("--seed draws the rows of --sample; give --sample, or remove --seed")
    if not (export or import_ or (sys.stdin.isatty() and is_live())):
        raise UsageError("review needs a terminal; without one use --export FILE.csv, edit and --import it")
    with reviewing(RunDirectory(run), measure_run, say) as session:
        selected = select_rows(session.rows, session.format, label, flag)
        rows = session.sample(sample, seed or 0) if sample else selected
        if export:
            write_spreadsheet(session, rows, export, say)
        elif import_:
            say(f"{read_spreadsheet(session, import_, say)} new decisions")
        else:
            from datacreate.review.app import review_in_terminal

            review_in_terminal(session, rows)
    counts: dict[str, Any] | None = session.stats.review.summary()
    if as_json:
        print_json(counts)
        return
    if export:
        echo(str(export))
        return
    for name, text in review_fields(counts).items():
        echo(f"{name}: {text}")
    missing = session.config.count - session.stats.accepted
    if missing:
        echo(f"missing rows: {missing}; the same `create` command writes them")
