"""`datacreate report`: tables and one page of what the runs are worth."""

from __future__ import annotations

from pathlib import Path

import click

from datacreate.cli.terminal import say


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH...]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("report"),
    show_default=True,
    help="Folder of the report; an older one in it is replaced.",
)
@click.option(
    "--encoder",
    help="Sentence encoder that measures the distance to the formatting example, or none: words in common.  "
    "[default: the first that is here of all-minilm-l6-v2, all-mpnet-base-v2]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of Markdown.")
def report(paths: tuple[Path, ...], out: Path, encoder: str | None, as_json: bool) -> None:
    """Tables and a page of all evaluations and creation runs below PATHs (default: runs).

    Writes report.md, report.html, report.json, in_distribution.csv and out_of_distribution.csv.
    """
    from datacreate.reporting.build import build_report
    from datacreate.reporting.files import write_report

    made = build_report(paths or (Path("runs"),), encoder=encoder, note=say)
    for skipped in made.skipped:
        say(f"skipped {skipped.path}: {skipped.reason}")
    files = write_report(made, out)
    shown = "report.json" if as_json else "report.md"
    click.echo((out / shown).read_text(encoding="utf-8"), nl=False)
    say(f"wrote {', '.join(map(str, files))}")
