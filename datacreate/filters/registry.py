"""All filters, in the order in which they run: the cheapest first. CONTRIBUTING.md says how to add one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datacreate.filters.base import Filter, FilterInputs, FilterSettings
from datacreate.filters.contamination import Contamination
from datacreate.filters.exact import ExactDuplicates
from datacreate.filters.near import NearDuplicates
from datacreate.filters.semantic import SemanticDuplicates
from datacreate.formats.validate import Reason


@dataclass(frozen=True)
class FilterEntry:
    """A line of the registry. `settings` are fields of `FilterSettings`; the first is None, False or () if off."""

    name: str
    type: type[Filter]
    settings: tuple[str, ...]

    def is_on(self, settings: FilterSettings) -> bool:
        return bool(getattr(settings, self.settings[0]))


FILTERS = (
    FilterEntry("exact", ExactDuplicates, ("exact",)),
    FilterEntry("near", NearDuplicates, ("near",)),
    FilterEntry("semantic", SemanticDuplicates, ("semantic",)),
    FilterEntry("contamination", Contamination, ("decontaminate", "ngram", "decontaminate_near")),
)


def make_filters(settings: FilterSettings, inputs: FilterInputs) -> list[Filter]:
    """The filters that are switched on, in order."""
    return [entry.type(settings, inputs) for entry in FILTERS if entry.is_on(settings)]


def filter_report(settings: FilterSettings, rejected: Mapping[Reason, int]) -> list[dict[str, Any]]:
    """All filters in order, with their settings and how many examples each rejected."""
    values = settings.model_dump(mode="json")
    return [
        {
            "name": entry.name,
            "reason": (reason := entry.type.reason).value,
            "on": entry.is_on(settings),
            "settings": {name: values[name] for name in entry.settings if not isinstance(values[name], bool)},
            "rejected": rejected.get(reason, 0),
        }
        for entry in FILTERS
    ]
