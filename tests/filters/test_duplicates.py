"""What all filters of duplicates have in common, and the list of filters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.filters import FILTERS, FilterOptions, filter_report, make_filters
from datacreate.filters.exact import ExactDuplicates, ExactOptions
from datacreate.filters.filter import Filter, FilterResources
from datacreate.formats.reject import RejectReason
from datacreate.formats.text_normalization import normalize_text
from tests.filters.texts import ODD, candidate, near_filter, semantic_filter

Make = Callable[[], Filter]

MAKERS: dict[str, Make] = {
    "exact": lambda: ExactDuplicates(ExactOptions(), FilterResources()),
    "near": lambda: near_filter(0.6),
    "semantic": lambda: semantic_filter(0.8),
}

words = st.lists(st.sampled_from(["red", "green", "blue", "cats", "dogs", "run"]), max_size=4).map(" ".join)
texts = words | st.text(max_size=30) | st.sampled_from([text for text in ODD if len(text) < 100])


def filled(make: Make, added: list[str]) -> Filter:
    duplicates = make()
    for number, text in enumerate(added):
        duplicates.add(candidate(text), number)
    return duplicates


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@settings(max_examples=40)
@given(added=st.lists(texts, min_size=1, max_size=10), more=st.lists(texts, max_size=5), text=texts)
def test_repeats_are_found_additions_lose_no_match_and_queries_change_nothing(
    make: Make, added: list[str], more: list[str], text: str
) -> None:
    duplicates, queried = filled(make, added), make()
    assert all(duplicates.find_problem(candidate(each)) for each in added)
    for number, each in enumerate(added):
        queried.find_problem(candidate(text))
        queried.add(candidate(each), number)
    before = duplicates.find_problem(candidate(text))
    assert queried.find_problem(candidate(text)) == before
    assert filled(make, added + more).find_problem(candidate(text)) or not before


def test_an_exact_duplicate_names_the_first_example_with_the_text() -> None:
    duplicates = filled(MAKERS["exact"], ["One?", "\ud800", "one", "three"])
    found = [duplicates.find_problem(candidate(text)) for text in ("ONE", "\ud800", "three", "two")]
    assert found == [*(f"repeats an example of request {number}" for number in (0, 1, 3)), None]


@pytest.mark.parametrize("end", ["", "a", " + a"])
def test_a_long_run_of_brackets_is_normalized_at_once(end: str) -> None:
    brackets = ")]}" * 50_000  # which took minutes when each looked for the end of the run
    assert normalize_text(f"one{brackets}{end}") == (f"one{brackets}{end}" if end else "one")


@given(st.lists(st.text(max_size=9), max_size=20), st.text(max_size=9))
def test_exactly_texts_with_an_added_normal_form_are_exact_duplicates(added: list[str], text: str) -> None:
    expected = normalize_text(text) in set(map(normalize_text, added))
    assert (filled(MAKERS["exact"], added).find_problem(candidate(text)) is not None) == expected


def test_filters_run_and_are_reported_in_the_order_of_the_registry() -> None:
    settings = FilterOptions(near=0.7, decontaminate=("creak",))
    filters = make_filters(settings, FilterResources())
    assert [one.reason for one in filters] == ["duplicate", "near_duplicate", "contaminated"]
    assert filter_report(settings, {RejectReason.NEAR_DUPLICATE: 3})[:2] == [
        {"name": "exact", "reason": "duplicate", "on": True, "settings": {}, "rejected": 0},
        {"name": "near", "reason": "near_duplicate", "on": True, "settings": {"near": 0.7}, "rejected": 3},
    ]
    off = filter_report(FilterOptions(exact=False, decontaminate=()), {})
    assert [one["on"] for one in off] == [False] * 4


def test_each_filter_has_a_reason_of_its_own_and_its_options() -> None:
    reasons = [one.reason for one in FILTERS]
    assert len({*reasons}) == len(FILTERS)
    assert [name for one in FILTERS for name in one.option_names] == list(FilterOptions.model_fields)
