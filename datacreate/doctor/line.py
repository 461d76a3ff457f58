"""One finding of the doctor's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "red"]

Work = Literal["create", "ask", "train", "evaluate"]

WORKS: tuple[Work, ...] = ("create", "ask", "train", "evaluate")
"""What jobs consist of: to `ask` is to create with models behind servers. A sweep is all of it."""

_COMMAND = re.compile(r"(?:[:;,]| \()? ?(?:run )?`(datacreate [^`]+)`")
_WHERE = re.compile(r"`, (?:where )([^`]+)$")


@dataclass(frozen=True)
class Line:
    """What was found about one thing.

    `fix` is the command that fixes it, always there if `state` is red; `needed_by` is the work that
    cannot be done while it is red.
    """

    section: str
    name: str
    state: State
    said: str
    fix: str | None = None
    needed_by: tuple[Work, ...] = ()

    def __post_init__(self) -> None:
        if self.state == "red" and not self.fix:
            raise ValueError(f"{self.name}: a red line ends with a command")


def refused(
    section: str, name: str, error: Exception, otherwise: str, needed_by: tuple[Work, ...] = ()
) -> Line:
    """A red line from an error of ours: its text, and the command in it or, if it has none, `otherwise`."""
    said, command = apart(str(error))
    return Line(section, name, "red", said, command or otherwise, needed_by)


def apart(message: str) -> tuple[str, str | None]:
    """A message and the last command in it, which is the one that needs no network."""
    commands = list(_COMMAND.finditer(message))
    if not commands:
        return message, None
    where = _WHERE.search(message)
    said = message[: commands[0].start()] + (f"; {where[1]}" if where else "")
    return said, commands[-1][1]


def gib(size_bytes: float) -> str:
    """Bytes in words: `1.5 GiB`."""
    return f"{size_bytes / 1024**3:,.1f} GiB"
