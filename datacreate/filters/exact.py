"""Exact duplicates, by normalised text."""

from __future__ import annotations

import hashlib

from datacreate.filters.base import Filter, Match
from datacreate.formats.validate import Candidate, Reason


class ExactDuplicates(Filter):
    """A `Filter` by the normalised texts seen so far, as 8-byte digests: flat in cost, small in memory.

    At a million examples the chance that any two different texts share a digest is 3e-8.
    """

    reason = Reason.DUPLICATE

    def __init__(self) -> None:
        self._number_of: dict[int, int] = {}
        self._added = 0

    def match(self, candidate: Candidate) -> Match | None:
        number = self._number_of.get(_digest(candidate.key))
        return Match(f"repeats example {number}") if number else None

    def add(self, candidate: Candidate) -> None:
        self._added += 1
        self._number_of.setdefault(_digest(candidate.key), self._added)


def _digest(key: str) -> int:
    # Not hash(): that differs from process to process.
    return int.from_bytes(
        hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )
