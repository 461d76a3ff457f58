"""The three steps as they are: only the generator is scripted."""

from __future__ import annotations

import sys
from pathlib import Path

from datacreate.finetuning.record import read_evaluation
from tests.finetuning.conftest import save_encoder
from tests.sweep.conftest import Bench


def test_a_cell_creates_fine_tunes_and_measures(bench: Bench) -> None:
    save_encoder(bench.folder / "models" / "tiny")
    told = {"arms": ["tree"], "encoders": ["./models/tiny"], "count": 12, "test": ["creak"]}
    sweep = bench.sweep((sys.executable, "-m", "tests.driver"), **told, train={"epochs": 1})
    [cell] = sweep.run()
    assert (cell.state, cell.said) == ("finished", None)
    model = bench.out / "trained" / "creak-writer-tree-42" / "tree-tiny-12" / "seed-1"
    evaluation = read_evaluation(model / "evaluations" / "creak-test")
    assert (evaluation.arm.name, evaluation.arm.count, evaluation.scores.rows) == ("tree", 12, 20)
    assert evaluation.arm.generator == "writer"
    assert not list(Path(model).glob("*.safetensors"))
    assert (model / "model.json").is_file()
    assert [one.state for one in sweep.standing()] == ["finished"]
