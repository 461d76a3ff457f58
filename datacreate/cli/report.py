"""`datacreate report`: the tables of all results."""

from __future__ import annotations

import json
from pathlib import Path

from datacreate.cli.options import command, json_option, path_argument, path_option
from datacreate.cli.terminal import echo, print_json, say


@command()
@path_argument("paths", nargs=-1, metavar="[PATH...]")
@path_option("--out", group="output", default="report", help="Folder; replaces an older report.  [default: report]")
@json_option("Print the report as JSON instead of Markdown.")
def report(paths: tuple[Path, ...], out: Path, *, as_json: bool) -> None:
    """Report all evaluations and runs below PATHs (default: runs).

    Writes report.md, report.html and report.json, and prints report.md.
    """
    from datacreate.reporting.build import build_report
    from datacreate.reporting.render import write_report

    document = build_report(paths or (Path("runs"),), notify=say)
    for path, reason in document.skipped.items():
        say(f"skipped {path}: {reason}")
    files = write_report(document, out)
    if as_json:
        print_json(json.loads((out / "report.json").read_text(encoding="utf-8")))
    else:
        echo((out / "report.md").read_text(encoding="utf-8"), nl=False)
    say(f"wrote {', '.join(map(str, files))}")
