"""Exact duplicates, by normalised text."""

from __future__ import annotations

import hashlib


class ExactDuplicates:
    """The normalised texts seen so far, as 8-byte digests: flat in cost, small in memory.

    At a million examples the chance that any two different texts share a digest is 3e-8.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def __contains__(self, key: str) -> bool:
        return _digest(key) in self._seen

    def add(self, key: str) -> None:
        self._seen.add(_digest(key))


def _digest(key: str) -> int:
    # Not hash(): that differs from process to process.
    return int.from_bytes(
        hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )
