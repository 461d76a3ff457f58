"""What a run writes down of its verification: verdicts, figures, warnings."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from datacreate.prompts.label_scoring import assigned_label
from datacreate.runs.directory import RunDirectory
from tests.making import examples, make
from tests.verifying import (
    DEALT,
    LABELS,
    SWITCHING,
    TWO,
    failing,
    is_true,
    labels_in,
    verified,
    writing,
)


def test_verdicts_stand_in_line_with_the_examples(tmp_path: Path, model: str) -> None:
    verified(tmp_path / "options", model, writing(0.6), verify="soft", count=40)
    verified(
        tmp_path / "labels", model, writing(0.5, ["yes", "no"]), failing, **{**SWITCHING, "verify": "soft"}
    )
    for name in ("options", "labels"):
        directory = RunDirectory(tmp_path / name)
        format = directory.read_config().format
        for values, verdict in zip(directory.examples(), directory.verdicts(), strict=True):
            assert verdict
            assert sum(verdict) == pytest.approx(1, abs=1e-3)
            likeliest = verdict.index(max(verdict))
            right = is_true(values, ["yes", "no"])
            assert (assigned_label(format, values) == likeliest) == right


def test_an_unverified_run_has_no_verdicts(tmp_path: Path, model: str) -> None:
    assert make(tmp_path, model, count=10)["verification"] is None
    assert list(RunDirectory(tmp_path).verdicts()) == [None] * 10


def test_the_summary_says_what_verification_did(tmp_path: Path, model: str) -> None:
    summary, _ = verified(
        tmp_path, model, writing(0.6, LABELS), count=60, label_noise_rows=30, label_noise_check=0.6, **DEALT
    )
    assert json.loads((tmp_path / "summary.json").read_text()) == summary == RunDirectory(tmp_path).summary()
    figures = summary["verification"]
    assert figures["mode"] == "drop"
    assert figures["model"] == "scripted-model"
    assert figures["threshold"] == 0.5
    assert figures["kept"] + figures["dropped"] == figures["scored"]
    assert figures["dropped"] == summary["rejected"]["rejected_by_verifier"]
    assert figures["kept"] == sum(figures["kept_by_label"].values()) >= 60
    assert figures["agreed"] == pytest.approx(0.6, abs=0.15)
    assert figures["tokens"] >= 2 * 30 * figures["scored"]
    assert figures["label_noise_rows"] == 30
    assert figures["warning"] is None
    assert summary["filters"]


def test_labels_kept_more_than_one_and_a_half_to_one_are_warned_of(tmp_path: Path, model: str) -> None:
    honest, labels = writing(1.0, ["yes", "no"]), ["yes", "no"]
    lying = writing(0.2, labels)

    def fails_at_no(request: Any) -> Any:
        one, other = json.loads(honest(request).text), json.loads(lying(request).text)
        items = [a if a[0] == "yes" else b for a, b in zip(one, other, strict=True)]
        return type(honest(request))(request.id, json.dumps(items), "stop", 50, 50)

    summary, _ = verified(tmp_path, model, fails_at_no, count=60, label_noise_check=None, **TWO)
    figures = summary["verification"]
    assert labels_in(tmp_path) == {"yes": 30, "no": 30}
    assert figures["kept_ratio"] > 1.5
    assert "a ratio above 1.5" in figures["warning"]
    kept, written = figures["kept_by_label"], figures["written_by_label"]
    assert kept["no"] < 0.5 * written["no"]
    assert f"yes {kept['yes']} of {written['yes']}, no {kept['no']} of {written['no']}" in figures["warning"]


def test_shares_that_were_asked_for_are_no_cause_for_a_warning(tmp_path: Path, model: str) -> None:
    told = {"yes": 0.9, "no": 0.1}
    summary, _ = verified(
        tmp_path,
        model,
        writing(0.8, ["yes", "no"]),
        label_ratio=told,
        count=100,
        label_noise_check=None,
        **TWO,
    )
    assert labels_in(tmp_path) == {"yes": 90, "no": 10}
    assert summary["verification"]["warning"] is None


def test_agreement_is_with_labels_that_somebody_wrote(tmp_path: Path, model: str) -> None:
    """Where the text comes first the label in its place is nobody's word."""
    summary, _ = verified(tmp_path, model, writing(0.5, ["yes", "no"]), **{**SWITCHING, "count": 200})
    figures = summary["verification"]
    claims = sum(figures["written_by_label"].values())
    assert claims < 0.5 * figures["scored"]
    assert figures["agreed"] == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("mode", ["off", "drop", "relabel"])
def test_the_right_options_place_is_uniform(tmp_path: Path, model: str, mode: str) -> None:
    from scipy.stats import chisquare

    verified(tmp_path, model, writing(0.7), verify=mode, count=1500, concurrency=40)
    places = Counter(example["options"].index(example["label"]) for example in examples(tmp_path))
    assert chisquare([places[place] for place in range(5)]).pvalue > 1e-3
