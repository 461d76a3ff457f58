"""A run in the report."""

from __future__ import annotations

import json
from pathlib import Path

from datacreate.dataset_metrics import DatasetMetrics
from datacreate.reporting.build import SAMPLES, build_report, created_set
from datacreate.reporting.render import as_markdown
from datacreate.runs.directory import RunDirectory
from tests.making import COMMONSENSE, examples, make


def test_a_run_has_its_summary_metrics_and_samples(tmp_path: Path, model: str) -> None:
    summary = make(tmp_path / "run", model, count=40)
    made = created_set(tmp_path / "run", DatasetMetrics())
    assert made.summary["accepted"] == summary["accepted"] == 40
    assert made.examples == (COMMONSENSE,)
    assert len(made.samples) == SAMPLES
    assert all(sample in examples(tmp_path / "run") for sample in made.samples)
    assert made.metrics == DatasetMetrics().measure_run(RunDirectory(tmp_path / "run"))
    text = as_markdown(build_report([tmp_path]))
    assert "40 of 40" in text
    assert "longest option" in text
    assert "self-BLEU" in text
    assert "wet umbrella" in text


def test_unfinished_and_empty_runs(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, count=25)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"count": 50}))
    assert created_set(tmp_path, DatasetMetrics()).summary["finished"] is False
    (tmp_path / "log.jsonl").write_bytes(b"")
    for name in ("train.jsonl", "summary.json"):
        (tmp_path / name).unlink()
    made = created_set(tmp_path, DatasetMetrics())
    assert (made.summary["accepted"], made.metrics, made.samples) == (0, None, ())
    assert "0 of 50" in as_markdown(build_report([tmp_path]))
