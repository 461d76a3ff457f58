"""The gate before the quota: whether dealt labels can be believed, and what follows if not."""

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


def rows(
    number: int, labels: int, *, knows: float, seed: int = 0, leaning: Sequence[float] = ()
) -> list[Row]:
    """Claims dealt evenly, and a verifier that knows so much of them and leans to some labels."""
    rng = random.Random(seed)
    made: list[Row] = []
    for place in range(number):
        assigned = place % labels
        label_ratio = [rng.random() for _ in range(labels)]
        label_ratio[assigned] += knows
        label_ratio = [
            share * weight for share, weight in zip(label_ratio, leaning or [1.0] * labels, strict=True)
        ]
        made.append((assigned, tuple(share / sum(label_ratio) for share in label_ratio)))
    return made


def fed(gate: LabelNoiseCheck, seen: Sequence[Row]) -> LabelNoiseCheck:
    for assigned, probabilities in seen:
        gate.add(Scored(assigned, assigned, True, probabilities))
    return gate


# Agreement


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=80).filter(
        lambda seen: len({assigned for assigned, _ in seen}) == 2
    )
)
def test_with_two_labels_agreement_is_scikit_learns_area_ties_and_all(seen: list[tuple[bool, int]]) -> None:
    from sklearn.metrics import roc_auc_score

    made = [(int(assigned), (1 - share / 20, share / 20)) for assigned, share in seen]
    expected = roc_auc_score([assigned for assigned, _ in seen], [share / 20 for _, share in seen])
    assert label_auc(made, 2) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("knows", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("labels", [3, 5])
def test_with_more_labels_it_is_the_mean_of_each_against_the_rest(labels: int, knows: float) -> None:
    from sklearn.metrics import roc_auc_score

    made = rows(200, labels, knows=knows)
    expected = roc_auc_score(
        [assigned for assigned, _ in made], np.array([p for _, p in made]), multi_class="ovr", average="macro"
    )
    assert label_auc(made, labels) == pytest.approx(expected, abs=1e-4)


def test_a_label_that_nobody_claimed_is_left_out() -> None:
    made = [(assigned, (*p, 0.0)) for assigned, p in rows(100, 2, knows=0.5)]
    assert label_auc(made, 3) == label_auc([(assigned, p[:2]) for assigned, p in made], 2)


def test_one_label_alone_gives_nothing_to_compare() -> None:
    assert label_auc([(0, (0.9, 0.1)), (0, (0.4, 0.6))], 2) is None
    gate = fed(LabelNoiseCheck(2, 2, 0.75), [(0, (0.9, 0.1)), (0, (0.4, 0.6))])
    assert gate.decided
    assert gate.auc is None
    assert gate.pseudo_labels is False
    assert "all with one label" in gate.result


# Shutting


def test_it_shuts_after_its_rows_and_looks_at_no_more() -> None:
    made = rows(100, 2, knows=0.1)
    gate = fed(LabelNoiseCheck(2, 60, 0.75), made[:59])
    assert not gate.decided
    assert (gate.auc, gate.pseudo_labels, gate.seen) == (None, False, 59)
    fed(gate, made[59:])
    assert gate.decided
    assert gate.seen == 60
    assert gate.auc == label_auc(made[:60], 2)


@pytest.mark.parametrize(("knows", "pseudo_labels"), [(0.0, True), (2.0, False)])
def test_below_the_bound_the_text_comes_first(knows: float, pseudo_labels: bool) -> None:
    gate = fed(LabelNoiseCheck(2, 100, 0.75), rows(100, 2, knows=knows))
    assert gate.pseudo_labels == pseudo_labels
    assert f"AUC {gate.auc:.2f}" in gate.result
    assert ("without a label" in gate.result) == (pseudo_labels)


def test_an_area_equal_to_the_bound_is_enough() -> None:
    made = rows(100, 2, knows=0.2)
    area = label_auc(made, 2)
    assert area
    assert fed(LabelNoiseCheck(2, 100, area), made).pseudo_labels is False
    assert fed(LabelNoiseCheck(2, 100, area + 1e-4), made).pseudo_labels is True


def test_without_a_bound_nothing_changes_but_the_area_is_told() -> None:
    gate = fed(LabelNoiseCheck(2, 100, None), rows(100, 2, knows=0.0))
    assert gate.pseudo_labels is False
    assert gate.auc is not None
    assert gate.result.endswith(f"AUC {gate.auc:.2f}")
    assert gate.calibrated((0.9, 0.1)) == (0.9, 0.1)


# Calibration


def test_nothing_is_calibrated_while_labels_are_dealt() -> None:
    gate = LabelNoiseCheck(2, 100, 0.75)
    assert gate.calibrated((0.9, 0.1)) == (0.9, 0.1)
    assert fed(gate, rows(100, 2, knows=2.0)).calibrated((0.9, 0.1)) == (0.9, 0.1)


@pytest.mark.parametrize("leaning", [(4.0, 1.0), (1.0, 2.0, 6.0)])
def test_calibration_evens_out_a_leaning_verifier(leaning: tuple[float, ...]) -> None:
    labels = len(leaning)
    made = rows(400, labels, knows=0.0, leaning=leaning)
    gate = fed(LabelNoiseCheck(labels, 300, 0.75), made)
    assert gate.pseudo_labels is True

    def likeliest(said: Sequence[Probabilities]) -> list[int]:
        places = [max(range(labels), key=p.__getitem__) for p in said]
        return [places.count(label) for label in range(labels)]

    raw = likeliest([p for _, p in made])
    even = likeliest([gate.calibrated(p) for _, p in made])
    assert max(raw) > 5 * min(raw)
    assert max(even) < 2 * min(even)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(any))
def test_what_is_calibrated_adds_up_to_one(label_ratio: list[float]) -> None:
    gate = fed(LabelNoiseCheck(3, 60, 0.75), rows(60, 3, knows=0.0, leaning=(5.0, 1.0, 1.0)))
    probabilities = tuple(round(share / sum(label_ratio), 4) for share in label_ratio)
    assert sum(gate.calibrated(probabilities)) == pytest.approx(1, abs=3e-4)
