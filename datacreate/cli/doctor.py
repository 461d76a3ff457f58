"""`datacreate doctor`: checks this machine."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING

import click

from datacreate.cli.options import command, json_option, option
from datacreate.cli.terminal import echo, print_json, say

if TYPE_CHECKING:
    from datacreate.commands.doctor import Finding

_COLORS = {"ok": None, "warn": "yellow", "fail": "red"}


@command()
@option("--url", "urls", multiple=True, metavar="URL", help="Also test this server; repeat for more.")
@option("--model", metavar="NAME", help="The model to test there, if a server has several.")
@json_option("Print the findings as JSON.")
def doctor(urls: tuple[str, ...], model: str | None, *, as_json: bool) -> None:
    """Check this machine: software, GPUs, storage, models, servers.

    Prints one line per finding (ok, warn or fail) with what to do. Exits with 1 if any check fails.
    For what a job would do see `create --dry-run`, `train --dry-run` and `sweep --dry-run`.

    \b
    datacreate doctor
    datacreate doctor --url http://127.0.0.1:8000
    """
    if model and not urls:
        raise click.UsageError("--model only applies to --url; remove it, or give --url URL")
    from datacreate.commands.doctor import examine

    say("importing the installed packages; this can take a minute")
    addresses = [part for url in urls for part in url.split(",")]
    findings = examine(urls=addresses, model=model)
    if as_json:
        print_json({section: list(map(asdict, of_section)) for section, of_section in findings.items()})
    else:
        _print(findings)
    if any(finding.state == "fail" for finding in chain.from_iterable(findings.values())):
        sys.exit(1)


def _print(findings: dict[str, list[Finding]]) -> None:
    """Print a heading for each section, a line for each finding, and the number of each state."""
    for section, of_section in findings.items():
        echo(section, bold=True)
        width = max(len(finding.name) for finding in of_section)
        for finding in of_section:
            fix = f" → {finding.fix}" if finding.fix else ""
            line = f"  {finding.state:<4}  {finding.name:<{width}}  {finding.message}{fix}"
            echo(line, fg=_COLORS[finding.state])
    counts: Counter[str] = Counter(finding.state for finding in chain.from_iterable(findings.values()))
    echo(", ".join(f"{counts[state]} {state}" for state in _COLORS if counts[state]), bold=True)
