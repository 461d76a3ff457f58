"""What a filter is: a reason against an example in view of what is accepted, or of a test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from datacreate.formats.validate import Candidate, Reason


@dataclass(frozen=True)
class Match:
    """What a candidate repeats; `what` is for people: the row, where it stands, how alike they are."""

    what: str


Say = Callable[[str], None]
"""Is given a line for the user."""


def silently(line: str) -> None:
    """A `Say` that says nothing."""


class Filter(Protocol):
    """One check. `match` changes nothing; what is accepted is then given to `add`, in order.

    What `match` once objects to it always objects to: filters only ever see more.
    """

    reason: Reason

    def prepare(self, say: Say = silently) -> None:
        """Do what takes long or may fail before the first question; without it, that comes with it."""
        return

    def ahead(self, candidates: Sequence[Candidate]) -> None:
        """Take note of what is about to be asked: many at once may be cheaper than one by one."""
        return

    def match(self, candidate: Candidate) -> Match | None:
        """What speaks against a valid example; None if nothing does."""

    def add(self, candidate: Candidate) -> None:
        """Take in an accepted example."""
