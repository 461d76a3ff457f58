"""From evaluations on disk to results and comparisons; every number computed by hand."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from datacreate.finetuning.statistics import mean_share
from datacreate.reporting.build import build_report
from datacreate.reporting.render import as_markdown
from datacreate.reporting.results import ConditionResult, ResultTable
from tests.reporting.evaluations import answers, evaluated, zero_shot


def only_table(path: Path) -> ResultTable:
    (table,) = build_report([path]).tables
    return table


def result(table: ResultTable, condition: str) -> ConditionResult:
    (found,) = [one for one in table.results if one.condition == condition]
    return found


def conditions(table: ResultTable) -> list[str]:
    return [one.condition for one in table.results]


def test_one_model(tmp_path: Path) -> None:
    evaluated(tmp_path / "one", answers(60, 115), rows_of="r")
    one = result(only_table(tmp_path), "tree")
    assert astuple(one.accuracy) == pytest.approx(astuple(mean_share([60], [115])))
    assert one.score.value == pytest.approx(2 * (30 / 58 + 30 / 57) / 2 - 1)  # balanced accuracy, corrected for 1/2
    assert (one.models, one.examples, one.training_sets, one.seeds, one.count) == (1, 0, 1, 1, 100)
    assert (one.sd_seeds, one.sd_examples) == (None, None)
    assert one.sources == (str(tmp_path / "one"),)


def test_models_that_are_all_right_have_the_interval_of_one(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        evaluated(tmp_path / str(seed), answers(40, 40), seed=seed)
        evaluated(tmp_path / f"random-{seed}", answers(40, 40), condition="random", rows_of="r", seed=seed)
    table = only_table(tmp_path)
    one = result(table, "tree")
    assert astuple(one.accuracy) == pytest.approx(astuple(mean_share([40], [40])))
    low = mean_share([20, 20], [20, 20]).low
    assert astuple(one.score) == pytest.approx((1.0, 2 * low - 1, 1.0))
    (compared,) = table.comparisons
    assert (compared.difference.value, compared.p) == pytest.approx((0, 1))
    assert compared.difference.low < 0 < compared.difference.high, "other rows may differ"


def test_options_are_corrected_for_their_number(tmp_path: Path) -> None:
    for seed in (1, 2):
        evaluated(tmp_path / str(seed), answers(50 + 10 * seed, 100), options=5, benchmark="csqa", seed=seed)
    one = result(only_table(tmp_path), "tree")
    assert (one.accuracy.value, one.score.value) == pytest.approx((0.65, (0.65 - 0.2) / 0.8))
    assert one.score.low == pytest.approx((one.accuracy.low - 0.2) / 0.8)


@pytest.mark.parametrize("other", ["US", ""])
def test_labels_that_differ_in_case_or_are_empty_are_two(tmp_path: Path, other: str) -> None:
    folder = evaluated(tmp_path / "one", answers(60, 100))
    for name in ("evaluation.json", "predictions.jsonl"):
        path = folder / name
        path.write_text(path.read_text().replace('"True"', f'"{other}"').replace('"False"', '"us"'))
    assert result(only_table(tmp_path), "tree").score.value == pytest.approx(2 * (30 / 50 + 30 / 50) / 2 - 1)


def test_seeds_are_averaged_within_training_rows_and_these_within_an_example(tmp_path: Path) -> None:
    for seed, right in enumerate((60, 62, 64), 1):
        evaluated(tmp_path / f"a{seed}", answers(right, 100), example="a", rows_of="a", seed=seed)
    evaluated(tmp_path / "again", answers(70, 100), example="a", rows_of="again", seed=1)
    evaluated(tmp_path / "b", answers(80, 100), example="b", rows_of="b", seed=1)
    one = result(only_table(tmp_path), "tree")
    assert one.accuracy.value == pytest.approx(((0.62 + 0.70) / 2 + 0.80) / 2)
    assert (one.models, one.examples, one.training_sets, one.seeds) == (5, 2, 3, 3)
    assert one.sd_seeds == pytest.approx(stdev([0.20, 0.24, 0.28]))
    assert one.sd_examples == pytest.approx(stdev([(0.24 + 0.40) / 2, 0.60]))
    assert one.accuracy.low < 0.4 < 1 == one.accuracy.high  # two examples say little of others
    assert "name them with --condition of train: tree, 100 rows." in as_markdown(build_report([tmp_path]))


def test_settings_that_differ_between_sets_of_one_condition_are_named(tmp_path: Path) -> None:
    for example, settings in (("a", ["near=0.7", "shots=3"]), ("b", ["near=0.8", "shots=3", "verify=1"]), ("c", None)):
        evaluated(tmp_path / example, answers(60, 100), example=example, rows_of=example, settings=settings)
    assert result(only_table(tmp_path), "tree").differing_settings == ("near", "verify")
    text = as_markdown(build_report([tmp_path]))
    assert "- warning: tree, 100 rows: training sets that were created with different settings (near, verify) " in text
    evaluated(tmp_path / "again", answers(60, 100), example="a", rows_of="a")
    assert build_report([tmp_path]).evaluations == 3, "the same model, before settings were stored"


def test_settings_that_differ_on_any_test_set_are_named(tmp_path: Path) -> None:
    for benchmark, name, values in (("creak", "near", (0.7, 0.8)), ("strategyqa", "temperature", (0.5, 1.0))):
        for value in values:
            folder, settings = f"{benchmark} {value}", [f"{name}={value}"]
            evaluated(
                tmp_path / folder,
                answers(60, 100),
                benchmark=benchmark,
                rows_of=folder,
                example=folder,
                settings=settings,
            )
    text = as_markdown(build_report([tmp_path]))
    assert "created with different settings (near, temperature) count as one condition" in text
    for seed in (1, 2):
        evaluated(
            tmp_path / f"boolq {seed}", answers(60, 100), benchmark="boolq_closed", example="a", rows_of=f"{seed}"
        )
    assert "name them with --condition of train: tree, 100 rows." in as_markdown(build_report([tmp_path]))


def test_test_rows_without_a_label_are_wrong_but_of_no_class(tmp_path: Path) -> None:
    for seed in (1, 2):
        folder = evaluated(tmp_path / str(seed), answers(60, 100), seed=seed)
        lines = (folder / "predictions.jsonl").read_text().splitlines()
        lines[99] = lines[99].replace('"False"', '""', 1)
        (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    one = result(only_table(tmp_path), "tree")
    assert one.accuracy.value == pytest.approx(0.6)
    assert one.score.value == pytest.approx(2 * (30 / 50 + 30 / 49) / 2 - 1)


def test_scores_over_other_labels_are_those_of_an_older_version(tmp_path: Path) -> None:
    evaluated(tmp_path / "new", answers(60, 100))
    file = evaluated(tmp_path / "old", answers(50, 100), seed=2) / "predictions.jsonl"
    file.write_text(file.read_text().replace('"label": "False"', '"label": "maybe"'))
    report = build_report([tmp_path])
    assert [one.models for one in report.tables[0].results] == [1]
    assert report.skipped == {
        str(
            tmp_path / "old"
        ): "scored by an older version over other labels; remove this folder, and evaluate the model again"
    }


def test_a_test_set_with_one_label_has_a_score_of_0_and_no_comparisons(tmp_path: Path) -> None:
    for seed, condition in ((1, "human"), (2, "human"), (1, "tree")):
        evaluated(
            tmp_path / f"{seed}{condition}", answers(30 * seed, 100), ["True"] * 100, condition=condition, seed=seed
        )
    report = build_report([tmp_path])
    [table] = report.tables
    human, tree = table.results
    assert (human.accuracy.value, tree.accuracy.value) == pytest.approx((0.45, 0.3))
    assert [astuple(one.score) for one in table.results] == [(0, 0, 0)] * 2
    assert (human.models_not_above_chance, table.comparisons) == (2, ())
    assert "creak: all test rows have one label, so the score is 0 by definition." in as_markdown(report)


@pytest.mark.parametrize(
    "other", [{"encoder": "other"}, {"encoder_sha256": "0" * 64}, {"recipe": "paper"}, {"selection": "human"}]
)
def test_models_of_another_setup_have_their_own_table(tmp_path: Path, other: dict[str, Any]) -> None:
    evaluated(tmp_path / "one", answers(60, 100), condition="tree")
    evaluated(tmp_path / "two", answers(70, 100), condition="random", rows_of="other", **other)
    tables = build_report([tmp_path]).tables
    assert sorted(map(conditions, tables)) == [["random"], ["tree"]]
    assert not any(table.comparisons for table in tables)


def test_generators_have_their_own_tables_with_the_human_rows_in_each(tmp_path: Path) -> None:
    for generator in ("large", "small"):
        evaluated(tmp_path / generator, answers(60, 100), generator=generator, rows_of=generator)
        zero_shot(tmp_path / f"zero-{generator}", answers(55, 100), generator)
    evaluated(tmp_path / "human", answers(70, 100), condition="human", count=900)
    tables = build_report([tmp_path]).tables
    assert [table.generator for table in tables] == ["large", "small"]
    for table in tables:
        names = [condition.split(" (")[0] for condition in conditions(table)]
        assert names == ["zero-shot large", "zero-shot small", "human", "tree"]


def test_checkpoints_of_one_name_are_distinguished_by_their_hash(tmp_path: Path) -> None:
    for sha in ("a" * 64, "b" * 64):
        zero_shot(tmp_path / sha[:2], answers(55, 100), "mine", encoder_sha256=sha)
    table = only_table(tmp_path)
    assert table.distribution == "untrained"
    assert conditions(table) == ["zero-shot mine (aaaaaaaa)", "zero-shot mine (bbbbbbbb)"]


def test_order_of_conditions_and_test_sets(tmp_path: Path) -> None:
    names = ["zebra", "tree", "tree (soft labels)", "human+tree", "naive", "human", "random"]
    for condition in names:
        evaluated(tmp_path / condition, answers(6, 10), condition=condition, rows_of=condition)
    for name in ("zoo", "bioasq", "aviary"):
        evaluated(tmp_path / name, answers(6, 10), benchmark=name, rows_of=name)
    evaluated(tmp_path / "csqa", answers(6, 10), benchmark="csqa", options=5, rows_of="csqa")
    table, own_files = build_report([tmp_path]).tables
    order = ["human", "naive", "random", "tree", "tree (soft labels)", "human+tree", "zebra"]
    assert [one.condition for one in table.results if one.test == "creak"] == order
    assert list(dict.fromkeys(one.test for one in table.results)) == ["csqa", "bioasq", "creak"]
    assert [one.test for one in own_files.results] == ["aviary", "zoo"]


def test_test_sets_of_another_benchmark_are_out_of_distribution(tmp_path: Path) -> None:
    for train, test in (("creak", "strategyqa"), ("bioasq", "creak"), (None, "creak"), (None, "test.jsonl")):
        evaluated(tmp_path / f"{train}-{test}", answers(6, 10), train=train, benchmark=test, rows_of=str(train))
    outside, own = build_report([tmp_path]).tables
    assert (outside.distribution, own.distribution) == ("out", "own")
    assert [(one.trained_for, one.test) for one in own.results] == [("own rows", "test.jsonl")]
    trained = [(one.trained_for, one.test) for one in outside.results]
    assert trained == [("creak", "strategyqa"), ("bioasq", "creak"), ("own rows", "creak")]


def test_samples_and_whole_sets_of_one_size_are_two_results(tmp_path: Path) -> None:
    evaluated(tmp_path / "whole", answers(60, 100), count=100, rows_of="w")
    evaluated(tmp_path / "part", answers(70, 100), count=100, full=False, rows_of="p")
    found = {one.label: one.accuracy.value for one in only_table(tmp_path).results}
    assert found == {"tree, 100 rows": 0.6, "tree, 100 sampled": 0.7}


def test_the_papers_accuracy_stands_beside_its_condition(tmp_path: Path) -> None:
    for condition in ("tree (paper)", "tree", "random", "mine"):
        evaluated(tmp_path / condition, answers(6, 10), condition=condition, rows_of=condition)
    evaluated(tmp_path / "swap", answers(6, 10), train="bioasq", benchmark="pubmedqa", rows_of="swap")
    inside, outside = build_report([tmp_path]).tables
    expected = {"random": 0.6793, "tree": 0.7274, "tree (paper)": 0.7274, "mine": None}
    assert {one.condition: one.paper_accuracy for one in inside.results} == expected
    assert result(outside, "tree").paper_accuracy == 0.8142


def test_other_test_rows_of_the_same_name_are_not_compared(tmp_path: Path) -> None:
    evaluated(tmp_path / "one", answers(60, 100), condition="tree", test="old rows")
    evaluated(tmp_path / "two", answers(90, 100), condition="random", test="new rows")
    evaluated(tmp_path / "dev", answers(90, 100), condition="random", split="dev")
    table = only_table(tmp_path)
    assert len({one.test_digest for one in table.results}) == 3
    assert [one.split for one in table.results] == ["test", "test", "dev"]
    assert not table.comparisons
    assert "2 versions of the test rows" in as_markdown(build_report([tmp_path]))


def test_unanswered_and_truncated_test_rows_are_noted(tmp_path: Path) -> None:
    path = evaluated(tmp_path / "one", answers(60, 100)) / "evaluation.json"
    evaluated(tmp_path / "two", answers(60, 100), condition="random")
    record = json.loads(path.read_text())
    record["scores"] |= {"unanswered": 3, "truncated": 7}
    path.write_text(json.dumps(record))
    text = as_markdown(build_report([tmp_path]))
    assert text.count("creak: up to 3 test rows unanswered (wrong), 7 truncated.") == 1


def test_comparisons_are_corrected_over_the_whole_table(tmp_path: Path) -> None:
    tree = [index % 10 != 0 for index in range(200)]  # 180 right
    fewer = [index % 10 not in (0, 1) for index in range(200)]  # 160 of these
    for benchmark in ("creak", "boolq_open", "pubmedqa"):
        for condition, right in (("tree", tree), ("random", fewer)):
            evaluated(tmp_path / benchmark / condition, right, benchmark=benchmark, condition=condition)
    comparisons = only_table(tmp_path).comparisons
    assert {one.test_set for one in comparisons} == {"creak", "boolq_open", "pubmedqa"}
    for one in comparisons:
        assert (one.first, one.second, one.covers) == ("random, 100 rows", "tree, 100 rows", "rows")
        assert one.difference.value == pytest.approx(-0.2)  # of scores; of accuracy it is half of that
        error = 2 * (0.2 * 0.8 / 99 / 4) ** 0.5  # 20 of the 100 rows of one label differ
        interval = one.difference.low, one.difference.high
        assert interval == pytest.approx((-0.2 - 1.96 * error, -0.2 + 1.96 * error), abs=1e-4)
        assert one.p_holm == pytest.approx(3 * one.p)
        assert one.is_significant


def test_only_results_of_one_size_are_compared_except_for_references(tmp_path: Path) -> None:
    evaluated(tmp_path / "human", answers(80, 100), condition="human", count=900)
    zero_shot(tmp_path / "zero", answers(70, 100), "big")
    for count in (100, 400):
        evaluated(tmp_path / str(count), answers(60, 100), count=count, rows_of=str(count))
    pairs = {(one.first.split(" big")[0], one.second) for one in only_table(tmp_path).comparisons}
    references = {(name, f"tree, {count} rows") for name in ("zero-shot", "human, 900 rows") for count in (100, 400)}
    assert pairs == {("zero-shot", "human, 900 rows"), *references}
