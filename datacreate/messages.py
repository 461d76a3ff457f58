"""Messages to the user: what receives them, and suggestions for misspelled names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Notify = Callable[[str], None]
"""Shows a line to the user."""


def no_notify(message: str) -> None:
    """A `Notify` that shows nothing."""


class SilentProgress:
    """The `Progress` of `create` and of `train` that shows nothing."""

    def notify(self, text: str) -> None: ...

    def update(self, *_: Any, **__: Any) -> None: ...

    def step(self, *_: Any, **__: Any) -> None: ...


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean a, b?)`, or an empty text if no known name is similar."""
    from difflib import get_close_matches

    names = {one.lower(): one for one in known}
    similar = get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    return f" (did you mean {', '.join(names[one] for one in similar)}?)" if similar else ""
