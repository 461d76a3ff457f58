"""A filter's settings are declared once: options, configuration and reports come from the registry."""

from __future__ import annotations

from datacreate.filtering import DatasetFilterSettings
from datacreate.filters.base import FilterInputs
from datacreate.filters.registry import FILTERS, FilterSettings, filter_report, make_filters
from datacreate.formats.validate import Reason
from datacreate.runs.config import CreateConfig
from datacreate.settings import option_info


def test_the_settings_of_every_filter_are_options_of_create_and_filter() -> None:
    for part in FILTERS:
        for name in part.setting_names():
            for model in (CreateConfig, DatasetFilterSettings):
                assert option_info(model, name)["group"] == "quality"
                assert model.model_fields[name].description


def test_filters_run_and_are_reported_in_the_order_of_the_registry() -> None:
    settings = FilterSettings(near=0.7, decontaminate=("creak",))
    filters = make_filters(settings, FilterInputs())
    assert [one.reason for one in filters] == ["duplicate", "near_duplicate", "contaminated"]
    assert filter_report(settings, {Reason.NEAR_DUPLICATE: 3})[:2] == [
        {"name": "exact", "reason": "duplicate", "on": True, "settings": {}, "rejected": 0},
        {"name": "near", "reason": "near_duplicate", "on": True, "settings": {"near": 0.7}, "rejected": 3},
    ]
    off = filter_report(FilterSettings(exact=False, decontaminate=()), {})
    assert [one["on"] for one in off] == [False] * 4
