"""Means of arms: only over rows that may be compared."""

from __future__ import annotations

import dataclasses

import pytest

from datacreate.reporting.overview import finding
from tests.reporting.sample_report import sample_report


def test_means_are_taken_over_rows_that_all_arms_have() -> None:
    table = sample_report().tables[0]  # csqa has no cell of `similar`
    found = finding(table)
    assert found.tests == 5
    rows = [row for row in table.rows if row.train != "csqa"]
    tree = [row.cells[5].primary for row in rows if row.cells[5]]
    [mean] = [condition for condition in found.conditions if condition.title == "tree"]
    assert mean.primary == pytest.approx(sum(tree) / 5)
    assert (mean.cells, mean.collapsed) == (6, 1)
    assert found.best[0].title == "human"
    assert "constant" not in {condition.title for condition in found.conditions}


def test_an_arm_with_few_cells_does_not_take_the_means_away() -> None:
    report = sample_report()
    rows = tuple(
        dataclasses.replace(row, cells=(*row.cells[:5], row.cells[5] if place == 0 else None))
        for place, row in enumerate(report.tables[0].rows)
    )
    found = finding(dataclasses.replace(report.tables[0], rows=rows))
    assert found.tests == 5
    assert [condition.title for condition in found.conditions if condition.primary is None] == ["tree"]


def test_rows_of_fewer_examples_do_not_count_a_test_set_twice() -> None:
    table = sample_report().tables[0]
    smaller = [
        dataclasses.replace(row, count=100, cells=(*row.cells[:3], None, None, None)) for row in table.rows
    ]
    found = finding(dataclasses.replace(table, rows=(*smaller, *table.rows)))
    assert found.tests == 5
    assert [condition.primary for condition in found.conditions] == [
        condition.primary for condition in finding(table).conditions
    ]
