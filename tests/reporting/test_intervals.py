"""The bootstrap over formatting example, seed and row, in cases with a known result."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.finetuning.statistics import wilson_interval
from datacreate.reporting.intervals import ModelGroups, intervals, nested_mean
from tests.reporting.evaluations import answers, yes_no


def test_each_level_is_averaged_in_turn() -> None:
    groups: ModelGroups = [[[0, 1], [2]], [[3]]]
    assert nested_mean(groups, [0.0, 1.0, 0.1, 0.9]) == pytest.approx(((0.5 + 0.1) / 2 + 0.9) / 2)


def test_one_model_varies_by_its_rows_alone() -> None:
    accuracy, _ = intervals([[[0]]], [answers(300, 500)], yes_no(500))
    assert accuracy == pytest.approx(wilson_interval(300, 500), abs=0.01)


def test_models_that_answer_alike_are_no_more_certain_than_one() -> None:
    right = answers(60, 100)
    (one, _), (many, _) = (
        intervals(groups, [right] * 9, yes_no(100)) for groups in ([[[0]]], [[[*range(9)]]])
    )
    assert many == pytest.approx(one, abs=0.02)


@pytest.mark.parametrize("groups", [[[[0], [1]]], [[[0]], [[1]]], [[[0, 1]]]])
def test_two_that_differ_in_everything_may_be_either(groups: ModelGroups) -> None:
    right = [[True] * 40, [False] * 40]
    assert intervals(groups, right, yes_no(40))[0] == (0.0, 1.0)


def test_examples_are_drawn_as_a_whole() -> None:
    """Ten seeds of one example say nothing about other examples: the interval stays wide."""
    right = [[True] * 40] * 10 + [[False] * 40] * 10
    by_example: ModelGroups = [[[*range(10)]], [[*range(10, 20)]]]
    as_seeds: ModelGroups = [[[*range(20)]]]
    assert intervals(by_example, right, yes_no(40))[0] == (0.0, 1.0)
    low, high = intervals(as_seeds, right, yes_no(40))[0]
    assert 0.2 < low < 0.5 < high < 0.8


def test_balanced_accuracy_of_a_constant_answer_is_a_half_whatever_is_drawn() -> None:
    truth = ["True"] * 70 + ["False"] * 30
    accuracy, balanced = intervals([[[0, 1]]], [[label == "True" for label in truth]] * 2, truth)
    assert accuracy[0] < 0.7 < accuracy[1]
    assert balanced == pytest.approx((0.5, 0.5))


def test_a_rare_label_may_be_missing_from_a_resample() -> None:
    accuracy, balanced = intervals([[[0, 1]]], [[True] * 5] * 2, ["True"] * 4 + ["False"])
    assert accuracy == balanced == (1.0, 1.0)


@settings(max_examples=25)
@given(data=st.data(), models=st.integers(2, 5), rows=st.integers(1, 30))
def test_intervals_lie_in_what_is_possible_and_repeat(data: st.DataObject, models: int, rows: int) -> None:
    right = data.draw(
        st.lists(st.lists(st.booleans(), min_size=rows, max_size=rows), min_size=models, max_size=models)
    )
    truth = data.draw(st.lists(st.sampled_from("ab"), min_size=rows, max_size=rows))
    cut = data.draw(st.integers(1, models - 1))
    groups: ModelGroups = [[[*range(cut)]], [[*range(cut, models)]]]
    once = intervals(groups, right, truth)
    assert once == intervals(groups, right, truth)
    for low, high in once:
        assert 0 <= low <= high <= 1 + 1e-9
    low, high = once[0]
    mean = nested_mean(groups, [float(np.mean(one)) for one in right])
    assert low - 1e-9 <= mean <= high + 1e-9 or rows < 10
