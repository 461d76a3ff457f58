"""Output on a terminal: lines, columns, sizes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from datacreate.messages import printable, visible, visible_json


def echo(text: str = "", **style: Any) -> None:
    """Print text on stdout, without characters that do something on a terminal."""
    click.secho(visible(text), file=sys.stdout, **style)  # without `file` click changes the encoding


def say(text: str) -> None:
    """Print a line on stderr."""
    print(printable(text), file=sys.stderr, flush=True)  # click.echo would garble rich's live line


def is_live() -> bool:
    """Whether stderr is a terminal that can update a line."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


class LiveText:
    """Lines at the bottom of the terminal that change; what is printed stands above them."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)

    def show(self, text: str) -> None:
        from rich.text import Text

        lines = [Text(printable(line)) for line in text.split("\n")]
        for line in lines:
            line.truncate(max(20, self._live.console.width - 1), overflow="ellipsis")
        self._live.start()
        self._live.update(Text("\n").join(lines), refresh=True)

    def close(self) -> None:
        self._live.stop()


def print_json(document: Any) -> None:
    """Print a document on stdout."""
    click.echo(visible_json(document, indent=2), file=sys.stdout)


def print_columns(lines: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print what `--dry-run` found, a line for each entry."""
    print_columns([(name.replace("_", " "), _plan_text(value)) for name, value in plan.items()])


def _plan_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plan_text(part)}" for name, part in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return "decided at the start" if value is None else str(value)


def size(size_bytes: float) -> str:
    """A size in bytes as `1.5 GB` or `90 MB`."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
