"""What pydantic finds wrong with settings, told as the flag or the key that a user knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

_MOST_SHOWN = 80  # characters of what was given

_ASKS = "Input should be "


@dataclass(frozen=True)
class SettingsError:
    """The first thing that is wrong. `place` is () where settings contradict each other."""

    place: tuple[int | str, ...]
    given: object
    why: str
    kind: str  # pydantic's name of it, such as `extra_forbidden`

    @classmethod
    def first(cls, error: ValidationError) -> SettingsError:
        """The first of the error's findings."""
        found = error.errors(include_url=False)[0]
        return cls(found["loc"], found["input"], found["msg"].removeprefix("Value error, "), found["type"])

    @property
    def key(self) -> str:
        """Where it is, as files name it: `train.epochs`; "" for no one place."""
        return ".".join(map(str, self.place))

    def on_command_line(self, flags: Mapping[str, str]) -> str:
        """Flag, value and what to give instead, in one line; `flags` has those not called as their field.

        Of settings that contradict each other, what they themselves say.
        """
        if not self.place:
            return self.why
        field, given = str(self.place[0]), str(self.given)
        flag = flags.get(field, f"--{field.replace('_', '-')}")
        shown = given if len(given) <= _MOST_SHOWN else given[:_MOST_SHOWN] + "…"
        return f"{flag} {shown}: {_remedy(self.why)}"


def _remedy(why: str) -> str:
    """`give a number greater than 0` for pydantic's `Input should be greater than 0`."""
    if not why.startswith(_ASKS):
        return why
    wanted = why.removeprefix(_ASKS).partition(", unable to")[0]
    return f"give {'a number ' if wanted.startswith(('greater', 'less')) else ''}{wanted}"
