"""Figures against scikit-learn, scipy and statsmodels, and cases worked by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, matthews_corrcoef
from statsmodels.stats.proportion import proportion_confint

from datacreate.finetuning.records import Scores
from datacreate.finetuning.statistics import (
    chance_corrected,
    compare,
    corrected,
    discordant_counts,
    minimum_detectable_effect,
    scores,
    wilson_interval,
)

unhurried = settings(max_examples=60)
seldom = settings(max_examples=15)  # statsmodels takes its time
NAMES = ("a", "b", "c")
PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=80)


def labelled(truth: Sequence[int], answers: Sequence[int], names: Sequence[str] = NAMES) -> Scores:
    return scores(truth, answers, names, balanced=True)


def chosen(truth: Sequence[int], answers: Sequence[int], options: int = 5) -> Scores:
    return scores(truth, answers, tuple(map(str, range(options))), balanced=False)


@pytest.mark.filterwarnings("ignore:A single label was found")
@unhurried
@given(PAIRS)
def test_the_figures_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    truth, answers = [one for one, _ in pairs], [two for _, two in pairs]
    found = labelled(truth, answers)
    assert found.accuracy == accuracy_score(truth, answers)
    present = sorted(set(truth))
    label_ratio = [np.mean([a == t for t, a in pairs if t == label]) for label in present]
    assert found.balanced_accuracy == pytest.approx(float(np.mean(label_ratio)))
    if set(answers) <= set(truth):
        assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, answers))
    assert found.macro_f1 == pytest.approx(
        f1_score(truth, answers, average="macro", labels=present, zero_division=0)
    )
    assert found.matthews == pytest.approx(matthews_corrcoef(truth, answers))
    assert found.constant == max(truth.count(label) for label in range(3)) / len(truth)
    assert found.score == pytest.approx(chance_corrected(found.balanced_accuracy or 0, 3))
    assert sum(found.predicted.values()) == found.rows == len(pairs)


@unhurried
@given(PAIRS)
def test_options_are_judged_by_accuracy_alone(pairs: list[tuple[int, int]]) -> None:
    truth, answers = [one for one, _ in pairs], [two for _, two in pairs]
    found = chosen(truth, answers)
    assert found.score == pytest.approx((found.accuracy - 0.2) / 0.8)
    assert found.primary_interval == tuple(chance_corrected(share, 5) for share in found.accuracy_interval)
    assert (found.balanced_accuracy, found.matthews, found.matthews_interval) == (None, None, None)


@unhurried
@given(st.integers(1, 500), st.data())
def test_the_interval_of_accuracy_is_wilsons(rows: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, rows))
    low, high = wilson_interval(correct, rows)
    z = 1.959963984540054  # the formula of 1927
    share = correct / rows
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * (share * (1 - share) / rows + z**2 / (4 * rows**2)) ** 0.5
    assert (low, high) == pytest.approx((max(0, middle - half), min(1, middle + half)), abs=1e-9)
    assert (low, high) == pytest.approx(proportion_confint(correct, rows, method="wilson_interval"))


@pytest.mark.filterwarnings("ignore:A single label was found")
@unhurried
@given(PAIRS)
def test_an_interval_holds_its_figure_or_comes_near(pairs: list[tuple[int, int]]) -> None:
    found = labelled([one for one, _ in pairs], [two for _, two in pairs])
    assert found.matthews_interval
    low, high = found.matthews_interval
    assert -1 <= low <= high <= 1
    assert found.primary_interval[0] <= found.primary_interval[1] <= 1


def test_the_interval_of_matthews_coefficient_is_the_bootstraps() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 300)
    answers = np.where(rng.random(300) < 0.8, truth, 1 - truth)
    found = labelled(truth.tolist(), answers.tolist(), ("no", "yes"))
    drawn = [rng.integers(0, 300, 300) for _ in range(500)]
    values = [matthews_corrcoef(truth[rows], answers[rows]) for rows in drawn]
    recalls = [balanced_accuracy_score(truth[rows], answers[rows]) for rows in drawn]
    assert found.matthews_interval == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.04)
    expected = [chance_corrected(share, 2) for share in np.percentile(recalls, [2.5, 97.5])]
    assert found.primary_interval == pytest.approx(expected, abs=0.05)


def test_matthews_interval_is_right_for_three_labels_and_missing_answers() -> None:
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 3, 200)
    answers = np.where(rng.random(200) < 0.6, truth, rng.integers(-1, 3, 200))
    found = labelled(truth.tolist(), answers.tolist())
    drawn = [rng.integers(0, 200, 200) for _ in range(500)]
    values = [matthews_corrcoef(truth[rows], answers[rows]) for rows in drawn]
    assert found.matthews_interval == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.04)
    assert found.matthews == pytest.approx(matthews_corrcoef(truth, answers))


@pytest.mark.parametrize(
    ("share", "classes", "expected"), [(0.5, 2, 0), (1, 2, 1), (0, 2, -1), (0.2, 5, 0), (0.6, 5, 0.5)]
)
def test_centred_is_0_at_chance_and_1_at_perfection(share: float, classes: int, expected: float) -> None:
    assert chance_corrected(share, classes) == pytest.approx(expected)


def test_rows_without_an_answer_count_as_wrong() -> None:
    found = labelled([0, 1, 0, 1], [0, 1, -1, -1], ("a", "b"))
    assert (found.accuracy, found.unanswered) == (0.5, 2)
    assert found.balanced_accuracy == 0.5
    assert found.predicted == {"a": 1, "b": 1}


def test_rows_without_a_right_answer_are_wrong_whatever_is_said() -> None:
    found = chosen([0, -1, -1, 2], [0, -1, 3, 2])
    assert found.accuracy == 0.5
    assert found.constant == 0.25
    assert found.rows == 4
    with pytest.raises(ValueError, match="no row with a right answer"):
        chosen([-1], [0])
    with pytest.raises(ValueError, match="no row with a right answer"):
        chosen([], [])


# Truth, answers, labels or options, and words of the reason; None: has not collapsed.
HALF = [0] * 100 + [1] * 100
COLLAPSED: dict[str, tuple[list[int], list[int], bool, str | None]] = {
    "one label": (HALF, [0] * 200, True, "answers 'a' to 100% of the rows"),
    "95 %": (HALF, [1] * 190 + [0] * 10, True, "answers 'b' to 95% of the rows"),
    "a coin": (HALF, [0, 1] * 100, True, "Matthews' coefficient may be 0"),
    "better than a coin": (HALF, [0] * 75 + [1] * 25 + [0] * 25 + [1] * 75, True, None),
    "one-sided and right": ([0] * 10 + [1] * 90, [0] * 8 + [1] * 92, True, None),
    "one place": ([0, 1, 2, 3, 4] * 40, [2] * 200, False, "answers the option in place 2 to 100%"),
    "chance": ([0, 1, 2, 3, 4] * 40, [0] * 100 + [1] * 100, False, r"accuracy may be chance \(15"),
    "above chance": ([0, 1, 2, 3, 4] * 40, ([0, 1, 2, 3, 4] * 20) + [0] * 100, False, None),
    "no answers": (HALF, [-1] * 200, True, "Matthews' coefficient may be 0"),
}


@pytest.mark.parametrize("name", COLLAPSED)
def test_a_model_that_has_learned_nothing_is_named(name: str) -> None:
    truth, answers, balanced, reason = COLLAPSED[name]
    found = (labelled(truth, answers, ("a", "b")) if balanced else chosen(truth, answers)).collapsed
    if reason is None:
        assert found is None
    else:
        assert found
        assert re.search(reason, found)


def test_just_below_95_percent_has_not_collapsed_if_it_is_right() -> None:
    truth = [0] * 189 + [1] * 11
    assert labelled(truth, truth, ("a", "b")).collapsed is None
    truth = [0] * 190 + [1] * 10
    assert labelled(truth, truth, ("a", "b")).collapsed


@seldom
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemars_test_is_the_binomial_one_of_the_discordant_rows(pairs: list[tuple[bool, bool]]) -> None:
    first, second = [one for one, _ in pairs], [two for _, two in pairs]
    b, c = discordant_counts(first, second)
    assert b == sum(one and not two for one, two in pairs)
    assert c == sum(two and not one for one, two in pairs)
    [comparison] = compare({"x": first, "y": second})
    expected = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert comparison.p == pytest.approx(min(1.0, expected))
    assert comparison.p_holm == comparison.p
    assert (comparison.first, comparison.second) == ("x", "y")
    assert (comparison.first_only, comparison.second_only) == (b, c)


def test_holms_correction_by_hand() -> None:
    # Sorted, the p are multiplied by 3, 2 and 1, and none is below one before it.
    made = corrected([("a", "b", 10, 1), ("a", "c", 9, 2), ("b", "c", 12, 1)])
    p = [binomtest(1, 11).pvalue, binomtest(2, 11).pvalue, binomtest(1, 13).pvalue]
    assert [one.p for one in made] == pytest.approx(p)
    assert p[2] < p[0] < p[1]
    expected = [max(2 * p[0], 3 * p[2]), max(p[1], 2 * p[0], 3 * p[2]), 3 * p[2]]
    assert [one.p_holm for one in made] == pytest.approx(expected)
    assert [one.differs for one in made] == [True, False, True] == [q < 0.05 for q in expected]


def test_nothing_to_compare_is_no_comparison() -> None:
    assert compare({}) == compare({"one": [True]}) == []


@seldom
@given(st.dictionaries(st.text(min_size=1, max_size=3), st.lists(st.booleans(), min_size=5, max_size=5)))
def test_every_pair_is_compared_once_and_correction_makes_none_smaller(
    conditions: dict[str, list[bool]],
) -> None:
    assume(len(conditions) < 7)
    made = compare(conditions)
    assert (
        len({frozenset((one.first, one.second)) for one in made})
        == len(conditions) * (len(conditions) - 1) // 2
    )
    assert all(one.p <= one.p_holm <= 1 for one in made)


def test_arms_with_other_rows_are_not_compared() -> None:
    with pytest.raises(ValueError, match="longer"):
        compare({"a": [True], "b": [True, False]})


@pytest.mark.parametrize(
    ("rows", "points"),
    [(115, 13.1), (140, 11.8), (500, 6.3), (634, 5.6), (1241, 4.0), (1635, 3.5), (2000, 3.1)],
)
def test_the_smallest_difference_is_the_published_one(rows: int, points: float) -> None:
    assert 100 * minimum_detectable_effect(rows) == pytest.approx(points, abs=0.05)


def test_scores_survive_being_written_and_read() -> None:
    found: Any = labelled([0, 1, 2] * 20, [0, 1, 1] * 20)
    assert Scores.model_validate_json(found.model_dump_json()) == found
