"""What the log and the summary hold of verification: probabilities, counts, warnings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datacreate.prompts.label_scoring import assigned_label
from datacreate.runs.directory import RunDirectory
from tests.making import make
from tests.verifying import (
    FALLBACK,
    LABELS,
    THREE_LABELS,
    TWO_LABELS,
    YES_NO,
    failing,
    is_right,
    labels_in,
    verified,
    writing,
)


def test_there_is_one_probability_vector_per_example_in_order(tmp_path: Path, model: str) -> None:
    verified(tmp_path / "options", model, writing(0.6), verify="soft", count=40)
    verified(tmp_path / "labels", model, writing(0.5, YES_NO), failing, **{**FALLBACK, "verify": "soft"})
    for name in ("options", "labels"):
        directory = RunDirectory(tmp_path / name)
        format = directory.read_config().format
        for values, probabilities in zip(
            directory.examples(), directory.verifier_probabilities(), strict=True
        ):
            assert probabilities
            assert sum(probabilities) == pytest.approx(1, abs=1e-3)
            best = probabilities.index(max(probabilities))
            assert (assigned_label(format, values) == best) == is_right(values, YES_NO)
    assert make(tmp_path / "off", model, count=10)["verification"] is None
    assert list(RunDirectory(tmp_path / "off").verifier_probabilities()) == [None] * 10


def test_the_summary_counts_what_was_scored_kept_and_dropped(tmp_path: Path, model: str) -> None:
    how = {"count": 60}
    summary, _ = verified(tmp_path, model, writing(0.6, LABELS), **how, **THREE_LABELS)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary == RunDirectory(tmp_path).summary()
    figures = summary["verification"]
    assert (figures["mode"], figures["model"]) == ("drop", "scripted-model")
    assert figures["kept"] + figures["dropped"] == figures["scored"]
    assert figures["dropped"] == summary["rejected"]["rejected_by_verifier"]
    assert figures["kept"] == sum(figures["kept_by_label"].values()) >= 60
    assert figures["agreed"] == pytest.approx(0.6, abs=0.15)
    assert figures["tokens"] >= 2 * 30 * figures["scored"]
    assert figures["label_noise_rows"] in (40, 60)
    assert figures["warning"] is None


def test_a_label_that_is_dropped_much_more_often_than_another_is_a_warning(
    tmp_path: Path, model: str
) -> None:
    honest, lying = writing(1.0, YES_NO), writing(0.2, YES_NO)

    def fails_at_no(request: Any) -> Any:
        one, other = json.loads(honest(request).text), json.loads(lying(request).text)
        items = [a if a[0] == "yes" else b for a, b in zip(one, other, strict=True)]
        return type(honest(request))(request.id, json.dumps(items), "stop", 50, 50)

    summary, _ = verified(tmp_path, model, fails_at_no, count=60, label_noise_check=None, **TWO_LABELS)
    figures = summary["verification"]
    assert labels_in(tmp_path) == {"yes": 30, "no": 30}
    assert figures["kept_ratio"] > 1.5
    kept, written = figures["kept_by_label"], figures["written_by_label"]
    assert kept["no"] < 0.5 * written["no"]
    assert f"yes {kept['yes']} of {written['yes']}, no {kept['no']} of {written['no']}" in figures["warning"]


def test_a_requested_label_ratio_is_no_reason_for_a_warning(tmp_path: Path, model: str) -> None:
    how = {"label_ratio": {"yes": 0.9, "no": 0.1}, "count": 100, "label_noise_check": None, **TWO_LABELS}
    summary, _ = verified(tmp_path, model, writing(0.8, YES_NO), **how)
    assert labels_in(tmp_path) == {"yes": 90, "no": 10}
    assert summary["verification"]["warning"] is None
