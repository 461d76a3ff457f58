"""Arms against each other: votes, McNemar's test and its correction."""

from __future__ import annotations

from pathlib import Path

import pytest

from datacreate.reporting.build import build_report
from datacreate.reporting.collect import collect
from datacreate.reporting.comparisons import voted
from datacreate.reporting.tables import Table
from tests.reporting.evaluations import answers, evaluated


def table_of(path: Path) -> Table:
    return build_report([path], encoder="none").tables[0]


def test_the_majority_of_the_models_answers_for_an_arm(tmp_path: Path) -> None:
    says = {1: [True, True, False, False], 2: [True, False, False, True], 3: [True, True, True, False]}
    for seed, right in says.items():
        evaluated(tmp_path / str(seed), right, seed=seed)
    assert voted(collect([tmp_path]).measured) == [True, True, False, False]


def test_the_lowest_seed_settles_a_tie(tmp_path: Path) -> None:
    for seed, right in {10: [False, True], 9: [True, False]}.items():
        evaluated(tmp_path / str(seed), right, seed=seed)
    assert voted(collect([tmp_path]).measured) == [True, False]


def test_comparisons_are_corrected_over_the_whole_table(tmp_path: Path) -> None:
    only_tree = [place % 10 != 0 for place in range(200)]  # 180 right
    only_random = [place % 10 not in (0, 1) for place in range(200)]  # 160 of these
    for benchmark in ("creak", "boolq_open", "pubmedqa"):
        for condition, right in (("tree", only_tree), ("random", only_random)):
            evaluated(tmp_path / benchmark / condition, right, benchmark=benchmark, condition=condition)
    table = table_of(tmp_path)
    assert len(table.differences) == 3
    for place, one in enumerate(table.differences):
        assert (one.row, table.columns[one.first].condition, table.columns[one.second].condition) == (
            place,
            "random",
            "tree",
        )
        assert (one.first_only, one.second_only, one.difference) == (0, 20, -0.1)
        assert one.p == pytest.approx(2 * 0.5**20)
        assert one.p_holm == pytest.approx(3 * one.p)  # the smallest of three equal ones, and so all of them
        assert one.significant


def test_arms_that_stand_in_several_rows_are_compared_once(tmp_path: Path) -> None:
    evaluated(tmp_path / "human", answers(80, 100), condition="human", count=900)
    evaluated(
        tmp_path / "zero",
        answers(70, 100),
        condition="zero-shot",
        train=None,
        encoder="big",
        selection="none",
    )
    for count in (100, 400):
        evaluated(tmp_path / str(count), answers(60, 100), count=count, rows_of=str(count))
    table = table_of(tmp_path)
    pairs = [
        (one.row, table.columns[one.first].condition, table.columns[one.second].condition)
        for one in table.differences
    ]
    assert sorted(pairs) == [
        (0, "human", "tree"),
        (0, "zero-shot", "human"),
        (0, "zero-shot", "tree"),
        (1, "human", "tree"),
        (1, "zero-shot", "tree"),
    ]


def test_the_constant_prediction_is_compared_with_nobody(tmp_path: Path) -> None:
    evaluated(tmp_path / "tree", answers(60, 100))
    evaluated(
        tmp_path / "constant",
        answers(50, 100),
        condition="constant",
        train=None,
        encoder="-",
        selection="none",
    )
    table = table_of(tmp_path)
    assert [column.condition for column in table.columns] == ["constant", "tree"]
    assert not table.differences
