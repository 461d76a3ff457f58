"""Markdown from untrusted text: file names, model names and generated text cannot add markup."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_MARKUP = re.compile(r"[\\`*<>\[\]|~&#!$@]|(?<![^\W_])_|_(?![^\W_])|(?<=:)//|(?<=www)\.", re.IGNORECASE)


def visible(text: str) -> str:
    """`text` with control characters, lone surrogates and direction overrides replaced.

    Such characters could move a terminal's cursor or reorder the text beside them. Line ends and tabs stay.
    """
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    reorders = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
    control = unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
    return _REPLACEMENT if reorders or control else character


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
