"""A filter is one line of the registry: options, configuration and reports follow from it."""

from __future__ import annotations

from datacreate.filters.filter import FilterInputs
from datacreate.filters.registry import filter_report, make_filters
from datacreate.filters.settings import FilterOptions
from datacreate.formats.candidate import RejectReason


def test_filters_run_and_are_reported_in_the_order_of_the_registry() -> None:
    settings = FilterOptions(near=0.7, decontaminate=("creak",))
    filters = make_filters(settings, FilterInputs())
    assert [one.reason for one in filters] == ["duplicate", "near_duplicate", "contaminated"]
    assert filter_report(settings, {RejectReason.NEAR_DUPLICATE: 3})[:2] == [
        {"name": "exact", "reason": "duplicate", "on": True, "settings": {}, "rejected": 0},
        {"name": "near", "reason": "near_duplicate", "on": True, "settings": {"near": 0.7}, "rejected": 3},
    ]
    off = filter_report(FilterOptions(exact=False, decontaminate=()), {})
    assert [one["on"] for one in off] == [False] * 4
