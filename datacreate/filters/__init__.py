"""Filters: reject examples that repeat earlier examples or test rows.

This module has the list of filters (how to add one: CONTRIBUTING.md), and their options.

filter.py           the interface of a filter
exact.py            equal inputs; near.py: similar words; semantic.py: similar embeddings
near_index.py       the index of near.py, which other packages use, too
decontamination.py  rows of `--decontaminate`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datacreate.filters.decontamination import Decontamination, DecontaminationOptions
from datacreate.filters.exact import ExactDuplicates, ExactOptions
from datacreate.filters.filter import Filter, FilterResources
from datacreate.filters.near import NearDuplicates, NearOptions
from datacreate.filters.semantic import SemanticDuplicates, SemanticOptions
from datacreate.formats.reject import RejectReason

FILTERS: tuple[type[Filter], ...] = (ExactDuplicates, NearDuplicates, SemanticDuplicates, Decontamination)
"""All filters, in the order in which they run: the cheapest first."""


class FilterOptions(DecontaminationOptions, SemanticOptions, NearOptions, ExactOptions):
    """Which filters run, and how strict they are. The options of the last base come first in `--help`."""


def filters_need_embedder(options: FilterOptions) -> bool:
    """Whether one of the filters that are on compares embeddings."""
    return any(filter_class.needs_embedder for filter_class in FILTERS if filter_class.is_on(options))


def make_filters(options: FilterOptions, resources: FilterResources) -> list[Filter]:
    """The filters that are on."""
    return [filter_class(options, resources) for filter_class in FILTERS if filter_class.is_on(options)]


def filter_report(options: FilterOptions, rejected: Mapping[RejectReason, int]) -> list[dict[str, Any]]:
    """All filters in order, with their options and how many examples each rejected."""
    return [filter_class.report(options, rejected) for filter_class in FILTERS]
