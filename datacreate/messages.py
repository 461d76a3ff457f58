"""Messages to the user: the callback that receives them, and suggestions for misspelled names."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Notify = Callable[[str], None]
"""Shows a line to the user."""


def no_notify(message: str) -> None:
    """A `Notify` that shows nothing."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean a, b?)`, or an empty text if no known name is similar."""
    from difflib import get_close_matches

    names = {one.lower(): one for one in known}
    similar = get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    return f" (did you mean {', '.join(names[one] for one in similar)}?)" if similar else ""
