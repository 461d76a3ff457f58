"""The label-noise check: its AUC, its decision, and the calibration that follows."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.verification.label_noise import LabelNoiseCheck, label_auc
from datacreate.verification.scoring import Probabilities, Scored

Row = tuple[int, Probabilities]


def rows(number: int, labels: int, *, knows: float, bias: Sequence[float] = ()) -> list[Row]:
    """Evenly assigned labels, scored by a verifier that knows them this well and prefers some labels."""
    rng = random.Random(0)
    made: list[Row] = []
    for place in range(number):
        weights = [rng.random() for _ in range(labels)]
        weights[place % labels] += knows
        weights = [weight * factor for weight, factor in zip(weights, bias or [1.0] * labels, strict=True)]
        made.append((place % labels, tuple(weight / sum(weights) for weight in weights)))
    return made


def check_of(seen: Sequence[Row], min_auc: float | None = 0.75, *, labels: int = 2) -> LabelNoiseCheck:
    """A decided check of all these rows."""
    check = LabelNoiseCheck(labels, len(seen), min_auc)
    for assigned, probabilities in seen:
        check.add(Scored(assigned, assigned, True, probabilities))
    assert check.decided
    return check


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=80).filter(
        lambda seen: len({assigned for assigned, _ in seen}) == 2
    )
)
def test_with_two_labels_the_auc_equals_scikit_learns(seen: list[tuple[bool, int]]) -> None:
    from sklearn.metrics import roc_auc_score

    made = [(int(assigned), (1 - share / 20, share / 20)) for assigned, share in seen]
    expected = roc_auc_score([assigned for assigned, _ in seen], [share / 20 for _, share in seen])
    assert label_auc(made, 2) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("knows", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("labels", [3, 5])
def test_with_more_labels_it_is_the_mean_of_each_against_the_rest(labels: int, knows: float) -> None:
    from sklearn.metrics import roc_auc_score

    made = rows(200, labels, knows=knows)
    assigned, scores = [label for label, _ in made], np.array([p for _, p in made])
    expected = roc_auc_score(assigned, scores, multi_class="ovr", average="macro")
    assert label_auc(made, labels) == pytest.approx(expected, abs=1e-4)


def test_a_label_that_was_never_assigned_is_ignored() -> None:
    made = [(assigned, (*p, 0.0)) for assigned, p in rows(100, 2, knows=0.5)]
    assert label_auc(made, 3) == label_auc([(assigned, p[:2]) for assigned, p in made], 2)
    one_label = [(0, (0.9, 0.1)), (0, (0.4, 0.6))]
    assert label_auc(one_label, 2) is None
    check = check_of(one_label)
    assert (check.auc, check.pseudo_labels) == (None, False)
    assert "all with one label" in check.result


def test_it_decides_after_the_required_rows_and_ignores_later_ones() -> None:
    made = rows(100, 2, knows=0.1)
    check = LabelNoiseCheck(2, 60, 0.75)
    for number, (assigned, probabilities) in enumerate(made):
        assert check.decided == (number >= 60)
        assert (check.auc is None) == (number < 60)
        check.add(Scored(assigned, assigned, True, probabilities))
    assert check.seen == 60
    assert check.auc == label_auc(made[:60], 2)


@pytest.mark.parametrize("knows", [0.0, 2.0])
def test_below_the_least_auc_it_falls_back_to_pseudo_labels(knows: float) -> None:
    check = check_of(rows(100, 2, knows=knows))
    assert check.pseudo_labels == (knows == 0.0)
    assert f"AUC {check.auc:.2f}" in check.result
    assert ("without a label" in check.result) == check.pseudo_labels


def test_an_auc_equal_to_the_least_one_is_enough_and_without_one_nothing_changes() -> None:
    made = rows(100, 2, knows=0.2)
    auc = label_auc(made, 2)
    assert auc
    assert not check_of(made, auc).pseudo_labels
    assert check_of(made, auc + 1e-4).pseudo_labels
    measured = check_of(made, None)
    assert (measured.auc, measured.pseudo_labels) == (auc, False)
    assert measured.result.endswith(f"AUC {auc:.2f}")


def test_nothing_is_calibrated_while_labels_are_assigned() -> None:
    assert LabelNoiseCheck(2, 100, 0.75).calibrated((0.9, 0.1)) == (0.9, 0.1)
    assert check_of(rows(100, 2, knows=2.0)).calibrated((0.9, 0.1)) == (0.9, 0.1)


@pytest.mark.parametrize("bias", [(4.0, 1.0), (1.0, 2.0, 6.0)])
def test_calibration_removes_the_bias_of_the_verifier(bias: tuple[float, ...]) -> None:
    labels = len(bias)
    made = rows(400, labels, knows=0.0, bias=bias)
    check = check_of(made[:300], labels=labels)

    def counts(scores: Sequence[Probabilities]) -> list[int]:
        best = [max(range(labels), key=p.__getitem__) for p in scores]
        return [best.count(label) for label in range(labels)]

    raw, calibrated = counts([p for _, p in made]), counts([check.calibrated(p) for _, p in made])
    assert max(raw) > 5 * min(raw)
    assert max(calibrated) < 2 * min(calibrated)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(any))
def test_calibrated_probabilities_add_up_to_1(weights: list[float]) -> None:
    check = check_of(rows(60, 3, knows=0.0, bias=(5.0, 1.0, 1.0)), labels=3)
    probabilities = tuple(round(weight / sum(weights), 4) for weight in weights)
    assert sum(check.calibrated(probabilities)) == pytest.approx(1, abs=3e-4)
