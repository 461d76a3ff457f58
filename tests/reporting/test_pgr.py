"""Created rows beside human rows: the performance gap recovered, its mean, and learning curves."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import pytest

from datacreate.finetuning.statistics import mean_estimate
from datacreate.intervals import IntervalEstimate
from datacreate.reporting.build import build_report
from datacreate.reporting.pgr import make_learning_curves, rows_to_match
from datacreate.reporting.render import as_markdown, as_page
from datacreate.reporting.results import ConditionResult, MeanPGR, ResultTable
from tests.reporting.evaluations import answers, evaluated, zero_shot

TRUTH = ["True", "False"] * 100
"""Of `right` right rows, half have each label: accuracy is balanced accuracy."""


def trained(path: Path, condition: str, right: int, count: int = 100, benchmark: str = "creak", **more: str) -> None:
    """A model of 200 test rows; human rows are samples."""
    name = f"{condition}-{count}-{more.get('train', benchmark)}-{benchmark}"
    full = condition != "human"
    evaluated(
        path / name, answers(right, 200), TRUTH, condition=condition, count=count, full=full, rows_of=name,
        benchmark=benchmark, **more,
    )  # fmt: skip


def tables(path: Path) -> list[ResultTable]:
    return list(build_report([path]).tables)


def result(table: ResultTable, condition: str, count: int | None = 100, test: str = "creak") -> ConditionResult:
    (found,) = [
        one for one in table.results if (one.condition.split()[0], one.count, one.test) == (condition, count, test)
    ]
    return found


def pgr(table: ResultTable, condition: str, test: str = "creak") -> IntervalEstimate:
    found = result(table, condition, test=test).pgr
    assert isinstance(found, IntervalEstimate)
    return found


def test_pgr_is_the_score_divided_by_that_of_as_many_human_rows(tmp_path: Path) -> None:
    trained(tmp_path, "human", 180)  # a score of 0.8
    trained(tmp_path, "human", 190, count=400)
    trained(tmp_path, "tree", 160)  # 0.6
    trained(tmp_path, "tree", 170, count=200)
    trained(tmp_path, "human+tree", 180)
    zero_shot(tmp_path / "zero", answers(150, 200), "big", truth=TRUTH)
    (table,) = tables(tmp_path)
    assert astuple(pgr(table, "tree")) == pytest.approx((0.75, 0.6430, 0.8539), abs=1e-4)
    assert result(table, "tree", 200).pgr == "no human rows of this number"
    for name, count in (("human", 100), ("human+tree", 100), ("zero-shot", None)):
        assert result(table, name, count).pgr == ""
    assert "| 75 (64 to 85)" in as_markdown(build_report([tmp_path]))


def test_pgr_is_undefined_where_human_rows_are_not_above_chance(tmp_path: Path) -> None:
    trained(tmp_path, "human", 106)
    trained(tmp_path, "tree", 160)
    (table,) = tables(tmp_path)
    assert result(table, "tree").pgr == "human score not significantly above chance"
    assert "| human score not significantly above chance" in as_markdown(build_report([tmp_path]))


def test_the_mean_pgr_is_over_benchmarks_that_have_one(tmp_path: Path) -> None:
    for benchmark, human, tree in (("creak", 180, 160), ("boolq_open", 160, 120), ("strategyqa", 102, 120)):
        trained(tmp_path, "human", human, benchmark=benchmark)
        trained(tmp_path, "tree", tree, benchmark=benchmark)
    (table,) = tables(tmp_path)
    estimates = [pgr(table, "tree", test) for test in ("creak", "boolq_open")]
    (mean,) = table.mean_pgrs
    assert mean == MeanPGR(condition="tree", count=100, tests=2, tests_without_pgr=("strategyqa",), pgr=mean.pgr)
    assert mean.pgr == mean_estimate(estimates)
    assert mean.pgr.value == pytest.approx((0.75 + 1 / 3) / 2)
    assert "Mean PGR over test sets" in as_markdown(build_report([tmp_path]))


def test_test_sets_of_one_training_do_not_narrow_the_interval(tmp_path: Path) -> None:
    for test in ("strategyqa", "boolq_open"):
        trained(tmp_path, "human", 180, benchmark=test, train="creak")
        trained(tmp_path, "tree", 160, benchmark=test, train="creak")
    (table,) = tables(tmp_path)
    (mean,) = table.mean_pgrs
    assert mean.tests == 2
    assert astuple(mean.pgr) == pytest.approx(astuple(pgr(table, "tree", "strategyqa")))


def test_the_mean_pgr_weighs_each_test_set_once(tmp_path: Path) -> None:
    for train, test, human, tree in (
        ("creak", "strategyqa", 180, 160),
        ("creak", "boolq_open", 160, 120),
        ("strategyqa", "creak", 180, 170),
    ):
        trained(tmp_path, "human", human, benchmark=test, train=train)
        trained(tmp_path, "tree", tree, benchmark=test, train=train)
    sample = answers(160, 200)  # of a set that was extended: the same condition and number of rows
    for seed in (1, 2):
        evaluated(
            tmp_path / f"sample-{seed}", sample, TRUTH, full=False, benchmark="strategyqa", train="creak",
            rows_of=f"sample {seed}",
        )  # fmt: skip
    (mean,) = tables(tmp_path)[0].mean_pgrs
    assert (mean.tests, mean.pgr.value) == (3, pytest.approx((0.75 + 1 / 3 + 0.875) / 3))


def test_learning_curves_and_the_rows_that_match_human_rows(tmp_path: Path) -> None:
    for count, human, tree, naive in ((50, 104, 110, 104), (100, 140, 130, 120), (200, 170, 150, 130)):
        trained(tmp_path, "human", human, count)
        trained(tmp_path, "tree", tree, count)
        trained(tmp_path, "naive", naive, count)
    (table,) = tables(tmp_path)
    (curves,) = make_learning_curves(table.results)
    assert rows_to_match(curves, "naive") == {100: None, 200: None}  # 50 human rows may be at chance
    assert rows_to_match(curves, "tree") == {100: 200, 200: None}
    text = as_markdown(build_report([tmp_path]))
    header, _, human, naive, tree = text.split("### Learning curves: creak\n\n")[1].split("\n")[:5]
    assert [part.strip() for part in header.split("|")[2:5]] == ["50 rows", "100 rows", "200 rows"]
    assert [line.split("|")[1].strip() for line in (human, naive, tree)] == ["human", "naive", "tree"]
    assert "| +10.0 (" in tree
    assert "| 100 human: 200; 200 human: none up to 200 " in tree
    page = as_page(build_report([tmp_path]))
    assert page.count("<svg") == 1
    assert page.count("<circle") == 9
    assert "<title>tree, 200 rows: +50.0 (" in page


def test_one_number_of_rows_makes_no_curve(tmp_path: Path) -> None:
    trained(tmp_path, "human", 180)
    trained(tmp_path, "tree", 160)
    assert "Learning curves" not in as_markdown(build_report([tmp_path]))
