"""The label-noise check: its concordance, its decision, and the calibration that follows."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.verification import Probabilities, Scored
from datacreate.verification.label_noise import (
    LabelNoiseCheck,
    calibrated,
    concordance,
    label_means,
    max_label_noise_rows,
    numeric_values,
)

Row = tuple[int, Probabilities]
NAMES = ["yes", "no", "maybe"]


def rows(number: int, labels: int, *, knows: float, bias: Sequence[float] = (), seed: int = 0) -> list[Row]:
    """Evenly assigned labels, scored by a verifier that knows them this well and prefers some labels."""
    rng = random.Random(seed)
    scored_rows: list[Row] = []
    for place in range(number):
        weights = [rng.random() for _ in range(labels)]
        weights[place % labels] += knows
        weights = [weight * factor for weight, factor in zip(weights, bias or [1.0] * labels, strict=True)]
        scored_rows.append((place % labels, tuple(round(weight / sum(weights), 4) for weight in weights)))
    return scored_rows


def check_of(seen: Sequence[Row], least: float | None = 0.6, *, labels: int = 2, count: int = 500) -> LabelNoiseCheck:
    """A check of these rows until it has decided."""
    check = LabelNoiseCheck(NAMES[:labels], max_label_noise_rows(count), least)
    for assigned, probabilities in seen:
        check.add(Scored(assigned, assigned, True, probabilities))
    return check


# Concordance


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 19)), min_size=2, max_size=80).filter(
        lambda seen: len({assigned for assigned, _ in seen}) == 2
    )
)
def test_with_two_labels_the_concordance_is_the_auc(seen: list[tuple[bool, int]]) -> None:
    from sklearn.metrics import roc_auc_score

    scored_rows = [(int(assigned), (1 - share / 20, share / 20)) for assigned, share in seen]
    expected = roc_auc_score([assigned for assigned, _ in seen], [share / 20 for _, share in seen])
    for values in (None, [1.0, 5.0]):
        measured = concordance(scored_rows, values)
        assert measured
        assert measured.value == pytest.approx(expected, abs=1e-4)
        assert 0 <= measured.low <= measured.value <= measured.high <= 1


@pytest.mark.parametrize("numeric", [False, True])
@pytest.mark.parametrize("knows", [0.0, 0.4, 3.0])
def test_with_more_labels_0_5_is_chance_and_1_is_perfect(knows: float, numeric: bool) -> None:
    measured = concordance(rows(300, 5, knows=knows), [1.0, 2.0, 3.0, 4.0, 5.0] if numeric else None)
    assert measured
    if knows == 0:
        assert measured.low < 0.5 < measured.high
    else:
        assert measured.low > 0.5
        assert (measured.value > 0.97) == (knows == 3.0)


def test_a_verifier_that_is_off_by_one_star_is_concordant_for_ratings() -> None:
    near = [(1, 0), (0, 2), (1, 3), (2, 4), (4, 3)]  # its most probable stars, per assigned star
    scored_rows = [
        (star, tuple(0.8 if place == best else 0.05 for place in range(5)))
        for star, both in enumerate(near)
        for best in both
    ]
    as_names, as_ratings = concordance(scored_rows), concordance(scored_rows, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert as_names
    assert as_ratings
    assert as_ratings.value > 0.8 > as_names.value
    assert numeric_values(["1", 2, "3.5"]) == [1.0, 2.0, 3.5]
    assert numeric_values([0, 1, 2], is_range=True) == [0.0, 1.0, 2.0]
    assert numeric_values([2, 0, 1]) is None, "codes of classes"
    assert numeric_values(["1", "nan"]) is numeric_values([True, False]) is numeric_values(["low", "1"]) is None


def test_the_interval_holds_the_true_value_as_often_as_it_says() -> None:
    truth = concordance(rows(2000, 2, knows=0.3))
    assert truth
    measured = [concordance(rows(80, 2, knows=0.3, seed=seed)) for seed in range(1, 200)]
    assert 0.9 < sum(each.low <= truth.value <= each.high for each in measured if each) / len(measured) < 0.99


# The decision


def test_it_takes_more_rows_while_it_is_undecided_up_to_a_maximum() -> None:
    sure = check_of(rows(320, 2, knows=2.0))
    assert (sure.seen, sure.pseudo_labels) == (40, False)
    assert f"concordance {sure.concordance}" in sure.result
    assert "without a label" not in sure.result
    borderline = rows(400, 2, knows=0.15)
    check = check_of(borderline, 0.68)
    assert (check.seen, check.concordance, check.pseudo_labels) == (320, concordance(borderline[:320]), False)
    assert not check_of(borderline[:319], 0.68).decided
    assert check_of(borderline, 0.68, count=100).seen == 100
    assert check_of(borderline, 0.68, count=5).seen == 20
    assert check_of(borderline, None).seen == 40


def test_it_only_measures_without_a_minimum_and_without_a_second_label() -> None:
    measured = check_of(rows(100, 2, knows=0.0), None)
    assert measured.concordance
    assert not measured.pseudo_labels
    one_label = check_of([(0, (0.9, 0.1))] * 320)
    assert one_label.decided
    assert (one_label.concordance, one_label.pseudo_labels) == (None, False)
    assert "all with one label" in one_label.result


# Calibration


@pytest.mark.parametrize("bias", [(4.0, 1.0), (1.0, 2.0, 6.0)])
def test_calibration_removes_the_bias_of_the_verifier(bias: tuple[float, ...]) -> None:
    labels = len(bias)
    scored_rows = rows(400, labels, knows=0.5, bias=bias)
    check = check_of(scored_rows, None, labels=labels)

    def right(scores: Sequence[Probabilities]) -> float:
        return sum(p[place % labels] == max(p) for place, p in enumerate(scores)) / len(scores)

    raw = [p for _, p in scored_rows]
    assert right([check.calibrated(p) for p in raw]) > right(raw) + 0.08
    assert LabelNoiseCheck(NAMES, 40, 0.6).calibrated((0.9, 0.1, 0.0)) == (0.9, 0.1, 0.0)


def test_calibration_does_not_depend_on_the_shares_of_the_labels() -> None:
    scored_rows = rows(300, 2, knows=0.5, bias=(3.0, 1.0))
    few = [row for place, row in enumerate(scored_rows) if row[0] == 0 or place % 6 == 1]
    assert label_means(few, 2) == pytest.approx(label_means(scored_rows, 2), abs=0.03)


def test_a_label_without_rows_is_not_preferred() -> None:
    means = label_means([(0, (0.6, 0.3, 0.1)), (1, (0.4, 0.5, 0.1))], 3)
    assert means == pytest.approx([0.5, 0.4, 0.25])
    assert calibrated((0.5, 0.4, 0.1), means) == (0.4167, 0.4167, 0.1667)
    favorite = label_means([(0, (0.2, 0.1, 0.7)), (1, (0.1, 0.2, 0.7))], 3)  # the third, for every text
    assert calibrated((0.2, 0.1, 0.7), favorite) == (0.4638, 0.2319, 0.3043)
    undecided = (1 / 60,) * 60  # more labels than rows
    assert label_means([(label, undecided) for label in range(40)], 60) == pytest.approx(undecided)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda w: sum(w) > 0.01))
def test_calibrated_probabilities_add_up_to_1(weights: list[float]) -> None:
    means = label_means(rows(60, 3, knows=0.0, bias=(5.0, 1.0, 1.0)), 3)
    probabilities = tuple(round(weight / sum(weights), 4) for weight in weights)
    assert sum(calibrated(probabilities, means)) == pytest.approx(1, abs=3e-4)
