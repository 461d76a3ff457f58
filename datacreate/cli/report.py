"""`datacreate report`: tables, comparisons and one page of all results."""

from __future__ import annotations

from pathlib import Path

from datacreate.cli.options import command, json_option, path_argument, path_option
from datacreate.cli.terminal import echo, say


@command()
@path_argument("paths", nargs=-1, metavar="[PATH...]")
@path_option(
    "--out", group="output", default="report", show_default=True, help="Folder; an older report is replaced."
)
@json_option("Print the report as JSON instead of Markdown.")
def report(paths: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Report all evaluations and creation runs below PATHs (default: runs).

    Writes report.md, report.html, report.json, results.csv and comparisons.csv, and prints report.md.
    """
    from datacreate.reporting.build import build_report
    from datacreate.reporting.render import write_report

    made = build_report(paths or (Path("runs"),), notify=say)
    for skipped in made.skipped:
        say(f"skipped {skipped.path}: {skipped.reason}")
    files = write_report(made, out)
    echo((out / ("report.json" if as_json else "report.md")).read_text(encoding="utf-8"), nl=False)
    say(f"wrote {', '.join(map(str, files))}")
