"""`datacreate filter`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datacreate.cli.options import command, json_option, path_argument, path_option, settings_options
from datacreate.cli.terminal import TerminalProgress, echo, print_columns, print_json
from datacreate.commands.filter_rows import FilterConfig


@command()
@path_argument("source", metavar="RUN|FILE")
@path_option("--out", group="output", metavar="FILE.jsonl", help="Write the kept rows here; replaces the file.")
@path_option("--rejects", group="output", metavar="FILE.jsonl", help="Write rejected rows here, with reasons.")
@settings_options(FilterConfig)
@json_option("Print the counts as JSON.")
def filter(source: Path, given_options: dict[str, Any], *, as_json: bool, **outputs: Path | None) -> None:  # noqa: A001 (the name of the command)
    """Check the rows of a run or of a file; without --out, only report.

    Of rows that repeat each other, the first is kept.

    \b
    datacreate filter runs/csqa
    datacreate filter mine.jsonl --out clean.jsonl --rejects rejects.jsonl
    datacreate filter mine.jsonl --near 0.8 --semantic 0.95 --decontaminate csqa
    datacreate filter mine.jsonl --verifier qwen3-8b --out clean.jsonl --rejects rejects.jsonl
    """
    from datacreate.commands.filter_rows import filter_rows

    with TerminalProgress("rows") as progress:
        report = filter_rows(source, FilterConfig.of(**given_options), **outputs, progress=progress)
    print_json(report) if as_json else _print(report)


def _print(report: dict[str, Any]) -> None:
    """Print a table of the filters in order, then the number of kept rows and the labels."""
    lines = [("filter", "rejected", "settings")]
    if report["invalid"]:
        lines.append(("invalid", str(report["invalid"]), f"first: {report['first_invalid']}"))
    for check in report["filters"]:
        rejected, settings = "", "off"
        if check["on"]:
            rejected = str(check["rejected"])
            settings = "; ".join(f"{name} {_text(value)}" for name, value in check["settings"].items())
        lines.append((check["name"], rejected, settings))
    print_columns(lines)
    echo(f"kept {report['kept']} of {report['rows']} rows ({report['kept'] / report['rows']:.1%})")
    label_counts, kept_counts = report["labels"]["before"], report["labels"]["after"]
    if label_counts:
        changes = (f"{label} {rows} -> {kept_counts[label]}" for label, rows in label_counts.items())
        echo(f"labels: {', '.join(changes)}")
    if report["conflicting_labels"]:
        echo(f"rows whose label is not that of the first row with these inputs: {report['conflicting_labels']}")
    for name in ("out", "rejects"):
        if report[name]:
            echo(f"{name}: {report[name]}")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return "off" if value is None else str(value)
