"""What the verbs have in common on a terminal: text that does nothing there, lines, columns."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import suppress

import click

_INSTEAD = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """A line of ours, whatever the file's name or the model's words in it: what has no shape is replaced."""
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else _INSTEAD for c in text)


def say(text: str) -> None:
    """A line for whoever reads stderr; that nobody does any more is no reason to stop working."""
    with suppress(OSError):  # a closed pipe, a terminal that has gone
        print(printable(text), file=sys.stderr, flush=True)  # click.echo would write into rich's live line


def is_live() -> bool:
    """Whether stderr is a terminal on which a line can be changed."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def print_columns(lines: Sequence[Sequence[str]]) -> None:
    """A table on stdout, its columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def size(size_bytes: float) -> str:
    """Bytes in words: `1.5 GB`, `90 MB`."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
