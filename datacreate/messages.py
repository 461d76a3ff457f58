"""Messages to the user: receivers, untrusted text on terminals and in Markdown, suggestions for misspelled names."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

_MARKUP = re.compile(r"[\\`*<>\[\]|~&#!$@]|(?<![^\W_])_|_(?![^\W_])|(?<=:)//|(?<=www)\.", re.IGNORECASE)
EMPTY_PATH = "the path is empty; give a file or a folder"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

Notify = Callable[[str], None]
"""Shows a line to the user, once."""


def no_notify(message: str) -> None:
    """A `Notify` that shows nothing."""


class Progress:
    """Receives the progress of a command; this one shows nothing."""

    def notify(self, text: str) -> None:
        """Show a line once."""

    def step(self, work: str, done: int, total: int, score: float | None) -> None:
        """Show that `done` of `total` steps of `work` are done; `score` is the best validation score so far."""

    def update(self, stats: Any, count: int, ahead: int, tokens_ahead: int) -> None:
        """Show the `RunStats` of a run: at the start, and after every poll of the engines.

        `ahead`, `tokens_ahead`: examples and tokens of completions that are not committed yet.
        """


def safe_text(text: str) -> str:
    """`text` with a replacement for each character that is not printable; line ends and tabs stay.

    Such characters are controls, marks without width or for the direction of text, and lone surrogates: they could
    move a terminal's cursor, hide text or reorder the text beside them.
    """
    return "".join(c if c in "\n\t" or _is_safe(c) else _REPLACEMENT for c in text)


def safe_line(text: str) -> str:
    """`text` like `safe_text`, but line ends and tabs are replaced too."""
    return re.sub(r"[\n\t]", _REPLACEMENT, safe_text(text))


def safe_json(document: Any, indent: int | None = None) -> str:
    """A document as JSON; the characters that `safe_text` replaces are escaped, so that the value is unchanged."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    return "".join(c if c == "\n" or _is_safe(c) else json.dumps(c)[1:-1] for c in text)


def _is_safe(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean a, b?)`, or an empty text if no known name is similar."""
    from difflib import get_close_matches

    names = {known_name.lower(): known_name for known_name in known}
    similar = get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    return f" (did you mean {', '.join(names[lower] for lower in similar)}?)" if similar else ""


def markdown(text: str) -> str:
    """`text` on one line; every character that Markdown or HTML could interpret is written as an entity.

    An underscore inside a word is never markup and stays readable.
    """
    plain = " ".join(safe_text(text).split())
    return _MARKUP.sub(lambda match: "".join(f"&#{ord(mark)};" for mark in match[0]), plain)


def markdown_code(text: str) -> str:
    """A name in code style, which may have any characters."""
    plain = " ".join(safe_text(text).split())
    return f"`{plain}`" if plain and markdown(plain) == plain else f"<code>{markdown(plain)}</code>"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A pipe table; all cells are escaped."""
    from tabulate import tabulate

    cells = [[markdown(str(cell)) for cell in row] for row in rows]
    return str(tabulate(cells, list(map(markdown, columns)), tablefmt="github", disable_numparse=True))
