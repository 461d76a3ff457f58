"""Text and tables in Markdown: a text is shown as it is, and means nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from datacreate.reporting.wording import harmless


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A pipe table, padded so that it also reads as text. Cells are Markdown already."""
    widths = [max(3, *(len(line[place]) for line in (head, *rows))) for place in range(len(head))]
    for line in (head, ["-" * width for width in widths], *rows):
        yield f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"


_MARKS = re.compile(r"[\\`*<>\[\]|~&#!$@]|(?<![^\W_])_|_(?![^\W_])|(?<=:)//|(?<=www)\.", re.IGNORECASE)


def escaped(text: str) -> str:
    """A text as Markdown shows it on one line: no markup, no link, no end of a cell, no control character.

    An underscore inside a word marks nothing up, and stays readable.
    """
    plain = " ".join(str(harmless(text)).split())
    return _MARKS.sub(lambda found: "".join(f"&#{ord(mark)};" for mark in found[0]), plain)
