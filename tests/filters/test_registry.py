"""A filter is one line of the registry: options, configuration and reports follow from it."""

from __future__ import annotations

from datacreate.filter_rows import FilterConfig
from datacreate.filters.filter import FilterInputs
from datacreate.filters.registry import FILTERS, filter_report, make_filters
from datacreate.filters.settings import FilterOptions
from datacreate.formats.candidate import RejectReason
from datacreate.runs.config import CreateConfig
from datacreate.settings import option_info


def test_every_setting_of_a_filter_is_an_option_of_create_and_filter() -> None:
    assert [name for filter in FILTERS for name in filter.setting_names] == list(FilterOptions.model_fields)
    for name in FilterOptions.model_fields:
        for model in (CreateConfig, FilterConfig):
            assert option_info(model, name)["group"] == "quality"


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
