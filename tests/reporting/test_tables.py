"""From evaluations on disk to tables: what stands where, and every figure by hand."""

from __future__ import annotations

from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from datacreate.finetuning.statistics import wilson
from datacreate.reporting.build import build_report
from datacreate.reporting.tables import Cell, Report, Row, Table
from tests.reporting.evaluations import answers, evaluated


def reported(path: Path) -> Report:
    return build_report([path], encoder="none")


def only_table(path: Path) -> Table:
    (table,) = reported(path).tables
    return table


def cell(table: Table, condition: str, row: int = 0) -> Cell:
    (found,) = [
        one
        for column, one in zip(table.columns, table.rows[row].cells, strict=True)
        if column.title == condition
    ]
    assert found is not None
    return found


def titles(table: Table) -> list[str]:
    return [column.title for column in table.columns]


def places(table: Table) -> list[tuple[str, str, int | None]]:
    return [(row.train, row.test, row.count) for row in table.rows]


def test_a_cell_of_one_model_has_its_own_figures(tmp_path: Path) -> None:
    evaluated(tmp_path / "one", answers(60, 100), rows_of="r")
    table = only_table(tmp_path)
    one = cell(table, "tree")
    assert one.accuracy == pytest.approx(0.6)
    assert one.primary == pytest.approx(0.2)  # 30 of 50 of either label: balanced accuracy 0.6
    assert one.accuracy_interval == pytest.approx(wilson(60, 100))
    assert one.method == "one model"
    assert (one.models, one.examples, one.sets, one.seeds, one.count) == (1, 0, 1, 1, 100)
    assert (one.spread.seeds, one.spread.sets) == (None, None)
    assert one.sources == (str(tmp_path / "one"),)


def test_constant_prediction_follows_from_the_test_set(tmp_path: Path) -> None:
    truth = ["True"] * 70 + ["False"] * 30
    evaluated(tmp_path / "one", answers(60, 100), truth)
    constant = cell(only_table(tmp_path), "constant")
    assert constant.accuracy == pytest.approx(0.7)
    assert constant.primary == 0  # one-sidedness of a test set earns nothing
    assert constant.models == 0


def test_options_are_centred_on_one_in_so_many(tmp_path: Path) -> None:
    for seed in (1, 2):
        evaluated(tmp_path / str(seed), answers(50 + 10 * seed, 100), options=5, benchmark="csqa", seed=seed)
    one = cell(only_table(tmp_path), "tree")
    assert one.accuracy == pytest.approx(0.65)
    assert one.primary == pytest.approx((0.65 - 0.2) / 0.8)
    low, high = one.accuracy_interval
    assert one.primary_interval == pytest.approx(((low - 0.2) / 0.8, (high - 0.2) / 0.8))


def test_a_created_set_counts_once_however_many_seeds_it_has(tmp_path: Path) -> None:
    for seed, right in enumerate((60, 62, 64), 1):
        evaluated(tmp_path / f"a{seed}", answers(right, 100), example="a", rows_of="a", seed=seed)
    evaluated(tmp_path / "b1", answers(80, 100), example="b", rows_of="b", seed=1)
    one = cell(only_table(tmp_path), "tree")
    assert one.accuracy == pytest.approx((0.62 + 0.80) / 2)
    assert (one.models, one.examples, one.sets, one.seeds, one.method) == (4, 2, 2, 3, "bootstrap")
    assert one.spread.seeds == pytest.approx(stdev([0.20, 0.24, 0.28]))
    assert one.spread.sets == pytest.approx(stdev([0.24, 0.60]))
    assert one.accuracy_interval[0] < 0.62 < 0.8 < one.accuracy_interval[1]  # examples were drawn, too


def test_sets_from_one_example_are_several_sets_and_one_example(tmp_path: Path) -> None:
    for name in "xy":
        evaluated(tmp_path / name, answers(60, 100), example="a", rows_of=name)
    one = cell(only_table(tmp_path), "tree")
    assert (one.examples, one.sets) == (1, 2)
    assert one.spread.sets == 0


@pytest.mark.parametrize(
    "other",
    [
        {"encoder": "other"},
        {"encoder_sha256": "0" * 64},
        {"settings": "paper"},
        {"selection": "human"},
        {"selection": "none"},
    ],
)
def test_what_cannot_be_compared_has_tables_of_its_own(tmp_path: Path, other: dict[str, Any]) -> None:
    evaluated(tmp_path / "one", answers(60, 100), condition="tree")
    evaluated(tmp_path / "two", answers(70, 100), condition="random", rows_of="other", **other)
    tables = reported(tmp_path).tables
    assert [titles(table) for table in tables] == [["constant", "tree"], ["constant", "random"]] or [
        titles(table) for table in tables
    ] == [["constant", "random"], ["constant", "tree"]]
    assert tables[0].title != tables[1].title
    assert not any(table.differences for table in tables)


def test_generators_have_tables_of_their_own_and_human_rows_stand_in_each(tmp_path: Path) -> None:
    for generator in ("large", "small"):
        evaluated(tmp_path / generator, answers(60, 100), generator=generator, rows_of=generator)
        evaluated(
            tmp_path / f"zero-{generator}",
            answers(55, 100),
            condition="zero-shot",
            train=None,
            generator=generator,
            encoder=generator,
            selection="none",
            rows_of=generator,
        )
    evaluated(tmp_path / "human", answers(70, 100), condition="human", count=900)
    tables = reported(tmp_path).tables
    assert [table.generator for table in tables] == ["large", "small"]
    for table in tables:
        assert titles(table) == ["constant", "zero-shot", "human", "tree"]
        assert cell(table, "zero-shot").sources == (str(tmp_path / f"zero-{table.generator}"),)
        assert cell(table, "zero-shot").count is None


def test_a_generator_that_wrote_nothing_answers_beside_all(tmp_path: Path) -> None:
    evaluated(tmp_path / "tree", answers(60, 100), generator="small")
    evaluated(
        tmp_path / "zero",
        answers(55, 100),
        condition="zero-shot",
        train=None,
        encoder="huge",
        selection="none",
    )
    assert titles(only_table(tmp_path)) == ["constant", "zero-shot huge", "tree"]


def test_two_checkpoints_of_one_name_do_not_answer_as_one(tmp_path: Path) -> None:
    for sha in ("a" * 64, "b" * 64):
        changes = {"encoder": "mine", "encoder_sha256": sha, "selection": "none"}
        evaluated(tmp_path / sha[:2], answers(55, 100), condition="zero-shot", train=None, **changes)
    columns = ["constant", "zero-shot mine (weights aaaaaaaa)", "zero-shot mine (weights bbbbbbbb)"]
    assert titles(only_table(tmp_path)) == columns


def test_an_arm_created_the_papers_way_stands_beside_the_papers_figure(tmp_path: Path) -> None:
    for condition in ("tree (paper)", "tree", "random", "mine"):
        evaluated(tmp_path / condition, answers(6, 10), condition=condition, rows_of=condition)
    table = only_table(tmp_path)
    assert titles(table) == ["constant", "random", "tree", "tree (paper)", "mine"]
    figures = [figure and figure.accuracy for figure in table.rows[0].paper]
    assert figures == [None, 0.6793, 0.7274, 0.7274, None]


def test_soft_and_hard_labels_and_human_rows_stand_in_one_table(tmp_path: Path) -> None:
    for condition in ("mine", "tree (paper) (soft labels)", "tree (soft labels)", "tree", "human"):
        evaluated(
            tmp_path / condition,
            answers(6, 10),
            condition=condition,
            rows_of="human" if condition == "human" else "created",
        )
    table = only_table(tmp_path)
    created = ["tree", "tree (paper) (soft labels)", "tree (soft labels)", "mine"]
    assert titles(table)[0] == "constant"
    assert titles(table)[1].startswith("human")
    assert titles(table)[2:] == created
    assert [cell(table, condition).models for condition in created] == [1, 1, 1, 1]


def test_zero_shot_alone_is_a_table(tmp_path: Path) -> None:
    evaluated(
        tmp_path / "zero",
        answers(55, 100),
        condition="zero-shot",
        train=None,
        encoder="huge",
        selection="none",
    )
    table = only_table(tmp_path)
    assert table.title == "In distribution: nothing trained"
    assert places(table) == [("creak", "creak", None)]


def test_rows_have_one_number_of_training_rows_each_and_full_human_beside(tmp_path: Path) -> None:
    evaluated(tmp_path / "tree400", answers(60, 100), count=400, rows_of="t4")
    evaluated(tmp_path / "tree100", answers(58, 100), count=100, full=False, rows_of="t1")
    evaluated(tmp_path / "random400", answers(61, 100), condition="random", count=400, rows_of="r4")
    evaluated(tmp_path / "human400", answers(75, 100), condition="human", count=400, full=False, rows_of="h4")
    evaluated(tmp_path / "human", answers(80, 100), condition="human", count=10_000, rows_of="h")
    table = only_table(tmp_path)
    assert titles(table) == ["constant", "human", "human, same N", "random", "tree"]
    assert places(table) == [("creak", "creak", 400), ("creak", "creak", 100)]
    counts = [[None if one is None else one.count for one in row.cells] for row in table.rows]
    assert counts == [[None, 10_000, 400, 400, 400], [None, 10_000, None, None, 100]]
    assert all(one is None or one.models <= 1 for row in table.rows for one in row.cells)


def test_a_sample_of_a_larger_set_is_not_mixed_with_a_whole_set_of_its_size(tmp_path: Path) -> None:
    evaluated(tmp_path / "whole", answers(60, 100), count=100, rows_of="w")
    evaluated(tmp_path / "part", answers(70, 100), count=100, full=False, rows_of="p")
    table = only_table(tmp_path)
    assert titles(table) == ["constant", "tree", "tree, sampled"]
    assert (cell(table, "tree").accuracy, cell(table, "tree, sampled").accuracy) == (0.6, 0.7)


def test_two_whole_human_sets_of_different_sizes_have_rows_of_their_own(tmp_path: Path) -> None:
    for count in (100, 900):
        evaluated(tmp_path / str(count), answers(60, 100), condition="human", count=count, rows_of=str(count))
    table = only_table(tmp_path)
    assert places(table) == [("creak", "creak", 900), ("creak", "creak", 100)]
    assert [cell(table, "human", row).count for row in (0, 1)] == [900, 100]


def test_columns_and_rows_stand_in_the_order_of_the_paper(tmp_path: Path) -> None:
    conditions = ["zebra", "tree", "human+tree", "naive", "similar", "human", "random", "diverse"]
    for condition in conditions:
        evaluated(tmp_path / condition, answers(6, 10), condition=condition, rows_of=condition)
    for name in ("zoo", "creak", "bioasq", "aviary"):
        evaluated(tmp_path / name, answers(6, 10), benchmark=name, rows_of=name)
    evaluated(tmp_path / "csqa", answers(6, 10), benchmark="csqa", options=5, rows_of="csqa")
    table = only_table(tmp_path)
    order = ["constant", "human", "naive", "random", "diverse", "similar", "tree", "human+tree", "zebra"]
    assert titles(table) == order
    assert [row.test for row in table.rows] == ["csqa", "bioasq", "creak", "aviary", "zoo"]
    assert ("piqa", "piqa") in table.missing
    assert ("creak", "creak") not in table.missing


def test_pairs_out_of_distribution_have_a_table_of_their_own(tmp_path: Path) -> None:
    pairs = [("creak", "strategyqa"), ("bioasq", "creak"), ("pubmedqa", "bioasq"), ("bioasq", "pubmedqa")]
    for train, test in pairs:
        evaluated(tmp_path / f"{train}-{test}", answers(6, 10), train=train, benchmark=test, rows_of=train)
    table = only_table(tmp_path)
    assert table.place == "out"
    assert [(row.train, row.test) for row in table.rows] == [pairs[3], pairs[2], pairs[0], pairs[1]]


def test_rows_for_no_benchmark_are_out_of_distribution_everywhere(tmp_path: Path) -> None:
    evaluated(tmp_path / "mine", answers(6, 10), condition="mine.jsonl", train=None)
    assert places(only_table(tmp_path)) == [("own rows", "creak", 100)]


def test_the_papers_figure_stands_beside_the_first_row_of_its_pair(tmp_path: Path) -> None:
    for count in (100, 400):
        for condition in ("tree", "naive"):
            evaluated(
                tmp_path / f"{condition}{count}",
                answers(6, 10),
                condition=condition,
                count=count,
                rows_of=f"{condition}{count}",
            )
    evaluated(tmp_path / "swap", answers(6, 10), train="bioasq", benchmark="pubmedqa", rows_of="swap")
    inside, outside = reported(tmp_path).tables
    first, second = inside.rows
    assert [figure and figure.accuracy for figure in first.paper] == [None, None, pytest.approx(0.7274)]
    assert first.paper[2] is not None
    assert first.paper[2].train_rows == 10_176
    assert not first.paper[2].printed_swapped
    assert set(second.paper) == {None}
    assert outside.rows[0].paper[1] is not None
    assert outside.rows[0].paper[1].printed_swapped


def test_other_test_rows_of_the_same_name_are_not_compared(tmp_path: Path) -> None:
    evaluated(tmp_path / "one", answers(60, 100), condition="tree", test="old rows")
    evaluated(tmp_path / "two", answers(90, 100), condition="random", test="new rows")
    evaluated(tmp_path / "dev", answers(90, 100), condition="random", split="dev")
    table = only_table(tmp_path)
    assert len({row.digest for row in table.rows}) == 3
    assert [row.split for row in table.rows] == ["test", "test", "dev"]
    assert not table.differences


def test_collapsed_models_are_counted_with_their_reasons(tmp_path: Path) -> None:
    truth = ["True"] * 50 + ["False"] * 50
    evaluated(tmp_path / "1", answers(50, 100), truth, seed=1)  # True to every row
    evaluated(tmp_path / "2", answers(90, 100), truth, seed=2)
    one = cell(only_table(tmp_path), "tree")
    assert (one.collapsed, one.models) == (1, 2)
    assert one.collapse_reasons == ("answers 'True' to 100% of the rows",)


def row_of(table: Table) -> Row:
    (row,) = table.rows
    return row


def test_every_test_set_says_what_difference_it_can_show(tmp_path: Path) -> None:
    evaluated(tmp_path / "one", answers(60, 115))
    assert row_of(only_table(tmp_path)).smallest_difference == pytest.approx(0.131, abs=0.001)


def test_curves_have_a_point_per_number_of_rows(tmp_path: Path) -> None:
    for count in (100, 400, 200):
        evaluated(tmp_path / str(count), answers(50 + count // 10, 100), count=count, rows_of=str(count))
    evaluated(tmp_path / "ood", answers(60, 100), train="bioasq", rows_of="ood")
    (curve,) = reported(tmp_path).curves
    assert (curve.condition, curve.benchmark, curve.encoder) == ("tree", "creak", "tiny")
    assert [(point.count, point.accuracy) for point in curve.points] == [(100, 0.6), (200, 0.7), (400, 0.9)]
    assert all(point.low <= point.primary <= point.high for point in curve.points)
