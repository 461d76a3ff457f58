"""Exact duplicates: examples with equal normalized inputs; answers and options are ignored."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from datacreate.filters.filter import Filter, FilterResources
from datacreate.formats.reject import RejectReason
from datacreate.settings import Settings, setting

if TYPE_CHECKING:
    from datacreate.formats.candidate import Candidate


class ExactOptions(Settings):
    exact: bool = setting(
        "Reject examples whose inputs (see --inputs) repeat those of an earlier one; case, spacing and the punctuation "
        "of prose are ignored.",
        "quality",
        default=True,
        flag="--exact/--no-exact",
    )


class ExactDuplicates(Filter):
    """Rejects examples whose normalized inputs were added before; it compares 8-byte digests.

    At a million examples the chance that any two different texts share a digest is 3e-8.
    """

    name = "exact"
    reason = RejectReason.DUPLICATE
    option_names = ("exact",)
    remaining_if_off = "examples with equal inputs"

    def __init__(self, _options: ExactOptions, resources: FilterResources) -> None:
        self._numbers: dict[int, int] = {}  # digest -> request or line of the first example
        self._number_prefix = resources.number_prefix

    def find_problem(self, candidate: Candidate) -> str | None:
        number = self._numbers.get(_digest(candidate.exact_key))
        return None if number is None else f"repeats {self._number_prefix} {number}"

    def add(self, candidate: Candidate, number: int) -> None:
        self._numbers.setdefault(_digest(candidate.exact_key), number)


def _digest(key: str) -> int:
    # Not hash(), which differs between processes.
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
