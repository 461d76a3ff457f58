"""Scores against scikit-learn, scipy and statsmodels, and cases computed by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, matthews_corrcoef

from datacreate.finetuning.records import Scores
from datacreate.finetuning.statistics import (
    chance_corrected,
    compare,
    compute_scores,
    discordant_counts,
    minimum_detectable_effect,
    wilson_interval,
)

few = settings(max_examples=30)
NAMES = ("a", "b", "c")
PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=80)


def labels(truth: Sequence[int], answers: Sequence[int], names: Sequence[str] = NAMES) -> Scores:
    return compute_scores(truth, answers, names, balanced=True)


def options(truth: Sequence[int], answers: Sequence[int]) -> Scores:
    return compute_scores(truth, answers, tuple(map(str, range(5))), balanced=False)


@pytest.mark.filterwarnings("ignore:A single label was found")
@few
@given(PAIRS)
def test_scores_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    truth, answers = [one for one, _ in pairs], [two for _, two in pairs]
    found = labels(truth, answers)
    assert found.accuracy == accuracy_score(truth, answers)
    present = sorted(set(truth))
    recalls = [np.mean([a == t for t, a in pairs if t == label]) for label in present]
    assert found.balanced_accuracy == pytest.approx(float(np.mean(recalls)))
    assert found.macro_f1 == pytest.approx(
        f1_score(truth, answers, average="macro", labels=present, zero_division=0)
    )
    assert found.matthews == pytest.approx(matthews_corrcoef(truth, answers))
    assert found.constant == max(truth.count(label) for label in range(3)) / len(truth)
    assert found.score == pytest.approx(chance_corrected(found.balanced_accuracy or 0, 3))
    assert sum(found.predicted.values()) == found.rows == len(pairs)
    low, high = found.matthews_interval or (2, 2)
    assert -1 <= low <= high <= 1
    assert found.score_interval[0] <= found.score_interval[1] <= 1
    assert Scores.model_validate_json(found.model_dump_json()) == found


@few
@given(PAIRS)
def test_multiple_choice_is_scored_by_accuracy(pairs: list[tuple[int, int]]) -> None:
    found = options([one for one, _ in pairs], [two for _, two in pairs])
    assert found.score == pytest.approx((found.accuracy - 0.2) / 0.8)
    assert found.score_interval == tuple(chance_corrected(share, 5) for share in found.accuracy_interval)
    assert (found.balanced_accuracy, found.matthews, found.matthews_interval) == (None, None, None)


@few
@given(st.integers(1, 500), st.data())
def test_the_interval_of_accuracy_is_wilsons(rows: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, rows))
    z, share = 1.959963984540054, correct / rows
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * (share * (1 - share) / rows + z**2 / (4 * rows**2)) ** 0.5
    expected = (max(0, middle - half), min(1, middle + half))
    assert wilson_interval(correct, rows) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("classes", "low"), [(2, 0), (3, 0), (3, -1)], ids=["two", "three", "no answers"])
def test_intervals_are_those_of_resampled_rows(classes: int, low: int) -> None:
    rng = np.random.default_rng(classes)
    truth = rng.integers(0, classes, 300)
    answers = np.where(rng.random(300) < 0.7, truth, rng.integers(low, classes, 300))
    found = labels(truth.tolist(), answers.tolist(), NAMES[:classes])
    samples = [rng.integers(0, 300, 300) for _ in range(500)]
    values = [matthews_corrcoef(truth[rows], answers[rows]) for rows in samples]
    assert found.matthews_interval == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.05)
    if low == 0:
        recalls = [balanced_accuracy_score(truth[rows], answers[rows]) for rows in samples]
        expected = [chance_corrected(share, classes) for share in np.percentile(recalls, [2.5, 97.5])]
        assert found.score_interval == pytest.approx(expected, abs=0.05)


def test_rows_without_a_prediction_or_a_right_answer_are_wrong() -> None:
    found = labels([0, 1, 0, 1], [0, 1, -1, -1], ("a", "b"))
    assert (found.accuracy, found.unanswered, found.balanced_accuracy) == (0.5, 2, 0.5)
    assert found.predicted == {"a": 1, "b": 1}
    found = options([0, -1, -1, 2], [0, -1, 3, 2])
    assert (found.accuracy, found.constant, found.rows) == (0.5, 0.25, 4)
    for truth, answers in (([-1], [0]), ([], [])):
        with pytest.raises(ValueError, match="no row with a right answer"):
            options(truth, answers)


# Truth, answers, whether names are labels, degenerate, above chance.
HALF, FIFTHS = [0] * 100 + [1] * 100, [0, 1, 2, 3, 4] * 40
FLAGS: dict[str, tuple[list[int], list[int], bool, bool, bool]] = {
    "one label": (HALF, [0] * 200, True, True, False),
    "95 %": (HALF, [1] * 190 + [0] * 10, True, True, False),
    "imbalanced and right": ([0] * 190 + [1] * 10, [0] * 190 + [1] * 10, True, True, True),
    "below 95 %": ([0] * 189 + [1] * 11, [0] * 189 + [1] * 11, True, False, True),
    "random": (HALF, [0, 1] * 100, True, False, False),
    "75 %": (HALF, [0] * 75 + [1] * 25 + [0] * 25 + [1] * 75, True, False, True),
    "always wrong": (HALF, [1] * 100 + [0] * 100, True, False, False),
    "one position": (FIFTHS, [2] * 200, False, True, False),
    "chance": (FIFTHS, [0] * 100 + [1] * 100, False, False, False),
    "half right": (FIFTHS, FIFTHS[:100] + [0] * 100, False, False, True),
    "no predictions": (HALF, [-1] * 200, True, False, False),
}


@pytest.mark.parametrize("name", FLAGS)
def test_degenerate_and_above_chance_are_two_flags(name: str) -> None:
    truth, answers, labeled, degenerate, above_chance = FLAGS[name]
    found = labels(truth, answers, ("a", "b")) if labeled else options(truth, answers)
    assert (found.degenerate, found.above_chance) == (degenerate, above_chance)


@few
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemars_test_is_the_binomial_test_of_discordant_rows(pairs: list[tuple[bool, bool]]) -> None:
    b, c = discordant_counts([one for one, _ in pairs], [two for _, two in pairs])
    assert b == sum(one and not two for one, two in pairs)
    assert c == sum(two and not one for one, two in pairs)
    [(p, p_holm)] = compare([(b, c)])
    expected = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert p == p_holm == pytest.approx(min(1.0, expected))


def test_holms_correction_by_hand() -> None:
    # Sorted p-values are multiplied by 3, 2 and 1, and none is below the one before it.
    results = compare([(10, 1), (9, 2), (12, 1)])
    p = [binomtest(1, 11).pvalue, binomtest(2, 11).pvalue, binomtest(1, 13).pvalue]
    assert [uncorrected for uncorrected, _ in results] == pytest.approx(p)
    assert p[2] < p[0] < p[1]
    expected = [max(2 * p[0], 3 * p[2]), max(p[1], 2 * p[0], 3 * p[2]), 3 * p[2]]
    assert [corrected for _, corrected in results] == pytest.approx(expected)
    assert compare([]) == []


@pytest.mark.parametrize(("rows", "points"), [(115, 13.1), (500, 6.3), (1241, 4.0), (2000, 3.1)])
def test_the_minimum_detectable_effect_is_the_published_one(rows: int, points: float) -> None:
    assert 100 * minimum_detectable_effect(rows) == pytest.approx(points, abs=0.05)
