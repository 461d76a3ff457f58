"""Markdown from untrusted text: file names, model names and generated text cannot add markup."""

from __future__ import annotations

import re
from collections.abc import Sequence

from datacreate.messages import visible

_MARKUP = re.compile(r"[\\`*<>\[\]|~&#!$@]|(?<![^\W_])_|_(?![^\W_])|(?<=:)//|(?<=www)\.", re.IGNORECASE)


def escape(text: str) -> str:
    """`text` on one line, with every character that Markdown or HTML could interpret as an entity.

    An underscore inside a word is never markup and stays readable.
    """
    plain = " ".join(visible(text).split())
    return _MARKUP.sub(lambda match: "".join(f"&#{ord(mark)};" for mark in match[0]), plain)


def code(text: str) -> str:
    """A name in code style, whatever characters it has."""
    plain = " ".join(visible(text).split())
    return f"`{plain}`" if plain and escape(plain) == plain else f"<code>{escape(plain)}</code>"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A pipe table; all cells are escaped."""
    from tabulate import tabulate

    cells = [[escape(str(cell)) for cell in row] for row in rows]
    return str(tabulate(cells, list(map(escape, columns)), tablefmt="github", disable_numparse=True))
