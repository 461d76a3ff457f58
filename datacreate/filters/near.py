"""Near-duplicates: examples each of whose inputs shares most of its words and word pairs with another's."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from datacreate.filters.filter import Filter, FilterResources, Threshold, threshold_setting
from datacreate.formats.reject import RejectReason
from datacreate.settings import Settings

if TYPE_CHECKING:
    from datacreate.formats.candidate import Candidate


class NearOptions(Settings):
    near: Threshold = threshold_setting(
        "Reject examples whose inputs each have at least this Jaccard similarity to those of an earlier one, computed "
        "on words and word pairs (try 0.7)."
    )


class NearDuplicates(Filter):
    """Rejects examples all of whose inputs are similar to an earlier one's."""

    name = "near"
    reason = RejectReason.NEAR_DUPLICATE
    option_names = ("near",)
    remaining_if_off = "examples that differ in a few words"

    def __init__(self, options: NearOptions, resources: FilterResources) -> None:
        from datacreate.filters.near_index import NearIndex

        assert options.near is not None, "the filter is on"
        self._index = NearIndex(options.near)
        self._numbers = array("q")  # of the request or line of each added example
        self._number_prefix = resources.number_prefix

    def find_problem(self, candidate: Candidate) -> str | None:
        match = self._index.match(_compared_inputs(candidate), candidate.passage_id)
        if match is None:
            return None
        number = self._numbers[match.number]
        return f"similar to {self._number_prefix} {number}, Jaccard {match.similarity:.2f}"

    def add(self, candidate: Candidate, number: int) -> None:
        self._index.add(_compared_inputs(candidate), candidate.passage_id)
        self._numbers.append(number)


def _compared_inputs(candidate: Candidate) -> Sequence[str]:
    """The inputs without a given passage: only examples about the same passage are compared."""
    if not candidate.passage_id:
        return candidate.inputs
    return tuple(text for text in candidate.inputs if text != candidate.passage)
