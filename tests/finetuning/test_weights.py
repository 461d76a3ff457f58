"""`train --weights`: rows whose label students do not expect count less."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from datacreate.errors import TrainingError
from datacreate.finetuning.evaluate import weighted
from datacreate.finetuning.train import encode_inputs, prepare
from tests.finetuning.sets import FOODS, claims, write_rows
from tests.finetuning.training import Recorder, config, trained


def test_mislabeled_rows_weigh_less(tmp_path: Path, encoder: str) -> None:
    rows = claims(160)
    for row in rows[:16]:
        row["label"] = not row["label"]
    source = write_rows(tmp_path / "rows.jsonl", rows)
    training = config(source, tmp_path / "out", encoder, weights=True, epochs=8, model_selection="none")
    prepared = prepare(training)
    encoded, students = encode_inputs(prepared), tmp_path / "students"
    inputs = weighted(encoded, prepared.rows, prepared.groups, students, Recorder().step)
    labels = inputs.rows.dataset["label"]
    weights = [sum(label) for label in labels]
    wrong = [
        weight
        for weight, question in zip(weights, prepared.rows, strict=True)
        if (question.answer == prepared.training.task.names.index("True"))
        == set(FOODS).isdisjoint(question.text.split())
    ]
    assert fmean(weights) == pytest.approx(1)
    assert len(wrong) == 16
    assert fmean(wrong) < 0.8
    for label, question in zip(labels, prepared.rows, strict=True):
        assert label.index(max(label)) == question.answer


def test_a_model_is_trained_with_weights_and_resumes(tmp_path: Path, encoder: str) -> None:
    source = write_rows(tmp_path / "rows.jsonl", claims(60))
    model = trained(source, tmp_path / "out", encoder, weights=True, epochs=1)
    assert model.training.condition.name == "rows (weighted)"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"training.json", "seed-1"}
    assert trained(source, tmp_path / "out", encoder, weights=True, epochs=1) == model
    few = write_rows(tmp_path / "few.jsonl", claims(20))
    with pytest.raises(TrainingError, match="--weights: 20 rows are too few"):
        trained(few, tmp_path / "few", encoder, weights=True)
