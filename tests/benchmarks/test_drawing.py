"""The formatting example of a benchmark."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from datacreate.benchmarks import find_benchmark, formatting_example
from datacreate.errors import BenchmarkError
from tests.benchmarks.conftest import choices, imported, passages


def test_it_is_the_references_choice_by_seed(tmp_path: Path, home: Path) -> None:
    rows = choices(50)
    csqa = imported(tmp_path, "csqa", {"train": rows, "test": choices(3)})
    for seed in range(20):
        random.seed(seed)
        expected = random.choice(rows)
        values, note = formatting_example(csqa, seed)
        assert values == expected
        row = f"row {rows.index(expected) + 1} of csqa's train split"
        assert note == f"formatting example: {row}, drawn by seed {seed}"


def test_a_malformed_row_is_drawn_again(tmp_path: Path, home: Path) -> None:
    rows = choices(10)
    for i in range(9):
        rows[i] = {**rows[i], "options": ["a", "a", "b", "c", "d"], "label": "b" if i % 2 else "e"}
    csqa = imported(tmp_path, "csqa", {"train": rows})
    drawn = [formatting_example(csqa, seed) for seed in range(12)]
    assert all(values == rows[9] for values, _ in drawn)
    assert sum("malformed row" in note for _, note in drawn) >= 9


def test_it_is_from_dev_where_train_is_not_there(tmp_path: Path, home: Path) -> None:
    boolq = imported(tmp_path, "boolq_open", {"dev": passages(5), "test": passages(4, first=9)})
    values, note = formatting_example(boolq, 1)
    assert values in passages(5)
    assert "of boolq_open's dev split" in note
    assert "its train split is not here (run `datacreate benchmarks import boolq_open`" in note


def test_without_any_good_row_or_any_split_it_is_one_line(tmp_path: Path, home: Path) -> None:
    with pytest.raises(BenchmarkError, match="csqa is not imported"):
        formatting_example(find_benchmark("csqa"), 1)
    bad = [{**row, "label": "nowhere"} for row in choices(3)]
    csqa = imported(tmp_path, "csqa", {"train": bad})
    with pytest.raises(
        BenchmarkError, match="none of 1000 rows drawn from train is an example of its format"
    ):
        formatting_example(csqa, 1)
    piqa = imported(tmp_path, "piqa", {"test": choices(3, options=2)})
    with pytest.raises(BenchmarkError, match="piqa has no dev split here"):
        formatting_example(piqa, 1)
