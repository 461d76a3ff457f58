"""Scores against scikit-learn and scipy, cases computed by hand, and simulated comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t, ttest_rel
from sklearn.metrics import accuracy_score, f1_score

from datacreate.finetuning.records import Scores
from datacreate.finetuning.statistics import (
    ConditionModels,
    ScoreEstimate,
    TrainingOrigin,
    chance_corrected,
    compute_scores,
    difference,
    holm,
    mean_score,
    mean_share,
    ratio,
)
from scripts.perf.significance import Pair, coverage, mean_coverage, significant

few = settings(max_examples=30)
NAMES = ("a", "b", "c")
PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=80)


def labels(truth: Sequence[int], answers: Sequence[int], names: Sequence[str] = NAMES) -> Scores:
    return compute_scores(truth, answers, names, balanced=True)


def options(truth: Sequence[int], answers: Sequence[int]) -> Scores:
    return compute_scores(truth, answers, tuple(map(str, range(5))), balanced=False)


@few
@given(PAIRS)
def test_scores_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    truth, answers = [one for one, _ in pairs], [two for _, two in pairs]
    found = labels(truth, answers)
    assert found.accuracy == accuracy_score(truth, answers)
    present = sorted(set(truth))
    recalls = [np.mean([a == t for t, a in pairs if t == label]) for label in present]
    assert found.balanced_accuracy == pytest.approx(float(np.mean(recalls)))
    assert found.macro_f1 == pytest.approx(f1_score(truth, answers, average="macro", labels=present, zero_division=0))
    assert found.constant == max(truth.count(label) for label in range(3)) / len(truth)
    assert found.score == pytest.approx(chance_corrected(found.balanced_accuracy or 0, len(present)))
    assert sum(found.predicted.values()) == found.rows == len(pairs)
    assert found.score_interval[0] <= found.score <= found.score_interval[1] <= 1
    assert Scores.model_validate_json(found.model_dump_json()) == found
    assert Scores.model_validate({**found.model_dump(), "matthews": 0.1}) == found, "of an older version"


@few
@given(PAIRS)
def test_multiple_choice_is_scored_by_accuracy(pairs: list[tuple[int, int]]) -> None:
    found = options([one for one, _ in pairs], [two for _, two in pairs])
    assert found.score == pytest.approx((found.accuracy - 0.2) / 0.8)
    assert found.score_interval == tuple(chance_corrected(share, 5) for share in found.accuracy_interval)
    assert found.balanced_accuracy is None


@pytest.mark.parametrize(("right", "rows"), [(0, 1), (14, 20), (500, 500)])
def test_the_interval_of_accuracy_is_wilsons(right: int, rows: int) -> None:
    share, z2 = right / rows, 1.959964**2
    half = (z2 * (share * (1 - share) + z2 / 4 / rows) / rows) ** 0.5
    low, high = ((share + z2 / 2 / rows + sign * half) / (1 + z2 / rows) for sign in (-1, 1))
    assert astuple(mean_share([right], [rows])) == pytest.approx((share, low, high), abs=1e-6)


@pytest.mark.parametrize(("shares", "rows"), [((0.6, 0.9), (30, 100)), ((0.5, 0.5, 0.97), (60, 60, 60))])
def test_the_interval_of_balanced_accuracy_covers_it_in_95_percent(
    shares: tuple[float, ...], rows: tuple[int, ...]
) -> None:
    correct = np.random.default_rng(0).binomial(rows, shares, size=(2000, len(rows)))
    estimates = [mean_share(sample, rows) for sample in correct.tolist()]
    covered = np.mean([estimate.low <= np.mean(shares) <= estimate.high for estimate in estimates])
    assert 0.935 < covered < 0.97


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


def test_chance_is_one_of_the_labels_that_occur() -> None:
    found = labels([0, 1] * 20, [0] * 40)  # of three that the model knows
    assert (found.score, found.classes, found.above_chance, found.degenerate) == (0, 2, False, True)


@pytest.mark.parametrize("answer", [0, 1])
def test_the_score_is_0_if_all_rows_have_one_label(answer: int) -> None:
    found = labels([0] * 40, [answer] * 40)
    assert (found.score, found.score_interval, found.classes, found.above_chance) == (0, (0, 0), 1, False)
    assert (found.accuracy, found.balanced_accuracy) == (1 - answer, 1 - answer)


def models(
    right: Sequence[Sequence[bool]], origins: str, trained: bool = True, truth: Sequence[int] | None = None
) -> ConditionModels:
    """Models from words like `a-x-1`: formatting example (may be empty), training rows, seed.

    With `truth` the score is balanced over two labels, else it is the accuracy.
    """
    found = [TrainingOrigin(*word.split("-")) for word in origins.split()]
    labels, classes = np.array(truth or [0] * len(right[0])), None if truth is None else 2
    return ConditionModels(np.array(right, dtype=bool), found, labels, classes, trained)


def shares(correct: Sequence[int], rows: int = 100) -> list[list[bool]]:
    """The first rows right, the others wrong."""
    return [[row < number for row in range(rows)] for number in correct]


def test_the_error_of_independent_models_is_that_of_a_t_test() -> None:
    """Models that err on rows of their own have nothing in common: scores are a sample of size three."""
    rng = np.random.default_rng(3)
    right = rng.random((6, 4000)) < np.array([[0.5], [0.6], [0.7], [0.52], [0.65], [0.71]])
    words = "a-x-1 b-y-1 c-z-1"
    scores = right.mean(axis=1)
    found = mean_score(models(right[:3].tolist(), words))
    half = t.ppf(0.975, 2) * scores[:3].std(ddof=1) / 3**0.5
    assert astuple(found.interval)[1:] == pytest.approx((found.value - half, found.value + half), rel=0.02)
    paired = difference(models(right[:3].tolist(), words), models(right[3:].tolist(), words))
    assert paired.p == pytest.approx(ttest_rel(scores[:3], scores[3:]).pvalue, abs=0.02)


def test_models_that_answer_alike_are_no_more_certain_than_one() -> None:
    one = mean_score(models(shares([60]), "a-x-1"))
    nine = mean_score(models(shares([60] * 9), " ".join(f"a-x-{seed}" for seed in range(9))))
    assert (nine.value, nine.error) == pytest.approx((one.value, one.error))
    assert one.error == pytest.approx((0.6 * 0.4 / 99) ** 0.5)
    assert (one.covers, nine.covers) == ("rows", "seeds, rows")


def test_seeds_that_agree_by_chance_are_no_more_certain_than_their_rows() -> None:
    """Two seeds with 60 right answers each, on different rows: their scores are equal."""
    right = [[row < 60 for row in range(100)], [row >= 40 for row in range(100)]]
    found = mean_score(models(right, "a-x-1 a-x-2"))
    by_rows = np.mean(right, axis=0).std(ddof=1) / 100**0.5  # the row means are 0.5, or 1 in the middle
    assert (found.value, found.error, found.degrees_of_freedom) == pytest.approx((0.6, by_rows, np.inf))


@pytest.mark.parametrize("rows_sd", [0.0, 1.0])
def test_the_interval_of_a_mean_of_two_seeds_has_the_true_one(rows_sd: float) -> None:
    assert 0.93 < mean_coverage(Pair((1, 2), (1, 2), level=0.9, rows_sd=rows_sd), 400) < 0.985


def test_seeds_of_one_example_say_nothing_of_other_examples() -> None:
    right = shares([80] * 4 + [40] * 4)
    as_seeds = mean_score(models(right, " ".join(f"a-x-{seed}" for seed in range(8))))
    by_example = mean_score(models(right, " ".join(f"{e}-{e}-{seed}" for e in "ab" for seed in "1234")))
    assert by_example.error > 1.5 * as_seeds.error
    assert by_example.degrees_of_freedom < 2 < as_seeds.degrees_of_freedom


def test_the_same_examples_are_compared_example_by_example() -> None:
    """Both conditions suffer from the same examples: their difference is certain."""
    words = "a-x-1 b-y-1 c-z-1"
    ours, theirs = shares([90, 60, 30]), shares([80, 50, 20])
    paired = difference(models(ours, words), models(theirs, words))
    others = difference(models(ours, words), models(theirs, words.upper()))
    assert paired.value == others.value == pytest.approx(0.1)
    assert paired.p < 0.01 < 0.7 < others.p
    reverse = difference(models(theirs, words), models(ours, words))
    assert (reverse.value, reverse.p) == pytest.approx((-paired.value, paired.p))


@pytest.mark.parametrize(
    ("first", "second", "trained", "covers"),
    [
        ("a-x-1 b-y-1 c-z-1", "d-v-1 d-v-2 d-v-3", True, "examples, seeds, rows"),
        ("a-x-1 a-x-2 a-x-3", "d-v-1 d-v-2 d-v-3", True, "seeds, rows"),
        ("a-x-1 a-x-2 a-x-3", "d-v-1", True, "seeds, rows"),
        ("a-x-1 a-x-2 a-x-3", "-v-1", False, "seeds, rows"),
        ("-h-1 -h-2 -h-3", "d-v-1 e-w-1", True, "examples, seeds, rows"),
        ("-h-1 -i-1", "-v-1", False, "training sets, seeds, rows"),
        ("a-x-1", "d-v-1", True, "rows"),
    ],
)
def test_what_a_comparison_covers_is_said(first: str, second: str, trained: bool, covers: str) -> None:
    ours, theirs = shares([70, 50, 60][: len(first.split())]), shares([62, 48, 55][: len(second.split())])
    assert difference(models(ours, first), models(theirs, second, trained)).covers == covers


def test_a_single_seed_is_assumed_to_vary_like_the_others() -> None:
    several, one = models(shares([70, 50, 60]), "a-x-1 a-x-2 a-x-3"), models(shares([60]), "b-y-1")
    trained = difference(several, one)
    fixed = difference(several, models(shares([60]), "-y-1", trained=False))
    assert trained.error > 1.5 * fixed.error


def test_balanced_accuracy_is_compared_corrected_for_chance() -> None:
    truth = [0] * 70 + [1] * 30 + [-1] * 5
    constant = models([[True] * 70 + [False] * 35], "-x-1", truth=truth)
    right = models([[True] * 60 + [False] * 10 + [True] * 27 + [False] * 8], "-y-1", truth=truth)
    assert mean_score(constant) == ScoreEstimate(0.0, 0.0, np.inf, "rows")
    found = difference(right, constant)
    recalls = 60 / 70, 27 / 30
    assert found.value == pytest.approx(sum(recalls) - 1)
    variance = sum(p * (1 - p) / (n - 1) for p, n in zip(recalls, (70, 30), strict=True))
    assert found.error == pytest.approx(variance**0.5)
    assert found.minimum_detectable == pytest.approx((1.95996 + 0.84162) * found.error, rel=1e-4)
    assert difference(constant, constant).p == 1


@pytest.mark.parametrize(
    "pair",
    [
        Pair((3, 3), (3, 1)),
        Pair((3, 3), (3, 1), examples_sd=0.15, condition_sd=0.15),
        Pair((3, 3), (3, 3), examples_sd=0.15, condition_sd=0.15),
        Pair((3, 3), (3, 1), same_examples=False, examples_sd=0.15),
        Pair((3, 3), (1, 3), same_examples=False, examples_sd=0.15),
        Pair((1, 9), (1, 3), rows_sd=0),
        Pair((1, 3), (1, 1), seeds_sd=0.2),
    ],
    ids=str,
)
def test_identical_conditions_differ_in_5_percent(pair: Pair) -> None:
    assert 0.02 <= significant(pair, 400) <= 0.08


def test_a_difference_that_no_row_changes_is_as_uncertain_as_few_rows_are() -> None:
    for rows, is_significant in ((2, False), (50, True)):
        truth = [0, 1] * rows
        right = models([[True, True] * rows], "-x-1", truth=truth)
        found = difference(right, models([[True, False] * rows], "-y-1", truth=truth))
        assert found.value == 1
        assert (found.p < 0.05) == is_significant
        assert found.minimum_detectable > 0
        share = ratio(models([[True, True] * rows], "a-z-1", truth=truth), right)
        assert share
        assert share.low < share.value == 1 < share.high


def test_a_true_difference_is_found() -> None:
    pair = Pair((3, 3), (3, 3), rows=1000, examples_sd=0.1, seeds_sd=0.05, effect=0.3)
    assert significant(pair, 100) > 0.8


def test_the_interval_of_a_ratio_is_fiellers() -> None:
    """The roots of his quadratic equation, for two models that err on 20 same rows."""
    found = ratio(models(shares([60]), "a-x-1"), models(shares([80]), "-y-1"))
    assert found is not None
    first, second, both = 0.6 * 0.4 / 99, 0.8 * 0.2 / 99, 0.6 * 0.2 / 99  # variances and covariance
    z = 1.959964**2
    ends = np.roots([0.8**2 - z * second, -2 * (0.6 * 0.8 - z * both), 0.6**2 - z * first])
    assert found.value == pytest.approx(0.75)
    assert [found.low, found.high] == pytest.approx(sorted(ends), abs=1e-5)


@few
@given(st.lists(st.integers(40, 95), min_size=6, max_size=6), st.booleans())
def test_a_ratio_differs_from_1_where_the_difference_is_significant(right: list[int], alone: bool) -> None:
    first, second = (models(shares(right[:3]), "a-x-1 b-y-1 c-z-1"), models(shares(right[3:]), "-u-1 -v-1 -w-1"))
    if alone:
        second = models(shares(right[3:4]), "-u-1")
    found, compared = ratio(first, second), difference(first, second)
    if found is not None and abs(compared.p - 0.05) > 1e-3:
        assert found.low <= found.value <= found.high
        assert (found.low - 1e-9 <= 1 <= found.high + 1e-9) == (compared.p > 0.05)


def test_there_is_no_ratio_to_a_score_that_may_be_0() -> None:
    truth = [0, 1] * 50
    guesses = models([[True] * 52 + [False] * 48], "-x-1", truth=truth)
    good = models(shares([80]), "a-y-1", truth=truth)
    assert ratio(good, guesses) is None
    assert ratio(guesses, good) is not None
    # Its mean may be 0: the samples differ too much.
    unlike = models(shares([95, 60, 20]), "-x-1 -y-1 -z-1", truth=truth)
    assert ratio(good, unlike) is None


@pytest.mark.parametrize("sd", [0.0, 0.15])
def test_the_interval_of_a_ratio_has_the_true_one_in_95_percent(sd: float) -> None:
    pair = Pair((3, 2), (3, 2), False, level=0.9, effect=-0.4, examples_sd=sd, condition_sd=sd)
    missing, _, one, three = coverage(pair, 150)
    assert missing < 0.1
    assert 0.9 <= one <= 0.99
    assert three >= 0.93


def test_holms_correction_by_hand() -> None:
    # Sorted p-values are multiplied by 3, 2 and 1, and none is below the one before it.
    assert holm([0.02, 0.03, 0.005]) == pytest.approx([0.04, 0.04, 0.015])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
