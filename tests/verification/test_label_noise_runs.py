"""Runs with fixed labels: assigned labels, the fallback to pseudo-labels, label ratios, the summary."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datacreate.engines.request import Completion, Request
from datacreate.runs.directory import RunDirectory
from datacreate.runs.stats import RunStats
from tests.support.making import commits, examples, make
from tests.support.scripted import ScriptedClient, answering
from tests.support.verifying import (
    FALLBACK,
    LABELS,
    THREE_LABELS,
    TWO_LABELS,
    YES_NO,
    biased,
    failing,
    guessing,
    is_right,
    knowing,
    labels_in,
    verified,
    writing,
)


def assigned_in(client: ScriptedClient) -> list[bool]:
    """Of each request for examples, whether it assigns labels."""
    return ['"const"' in (request.schema or "") for request in client.history]


def test_noisy_labels_lead_to_pseudo_labels_for_waiting_examples_too(tmp_path: Path, model: str) -> None:
    client = ScriptedClient(writing(0.5, YES_NO), scorer=knowing)
    summary, messages = verified(tmp_path, model, client, **FALLBACK)
    figures = summary["verification"]
    [result] = [line for line in messages if line.startswith("label-noise check:")]
    assert "from now on texts are written without a label" in result
    low, high = figures["concordance_interval"]
    assert f"{figures['concordance']:.2f} ({low:.2f} to {high:.2f})" in result
    assert low < figures["concordance"] < figures["min_concordance"] == 0.9
    assert figures["pseudo_labels"] is True
    assigned = assigned_in(client)
    assert assigned == sorted(assigned, reverse=True)  # first all requests with labels, then none
    assert set(assigned) == {True, False}
    late = [request for request, has in zip(client.history, assigned, strict=True) if not has]
    assert not any("yes" in (request.schema or "") for request in late)
    assert all(is_right(example, YES_NO) for example in examples(tmp_path))
    assert labels_in(tmp_path) == {"yes": 40, "no": 40}
    assert "rejected_by_verifier" not in summary["rejected"]  # nothing written is wasted
    assert {scored.assigned for scored in commits(tmp_path)[-1].scored} == {None}


@pytest.mark.parametrize("check", [0.6, None])
@pytest.mark.parametrize("knows", [0.02, 0.0])
def test_a_biased_verifier_that_knows_little_or_nothing_does_not_stop_a_run(
    tmp_path: Path, model: str, check: float | None, knows: float
) -> None:
    """It prefers entailment for every row. Judged before calibration it contradicts all other labels."""
    changes = {"count": 60, "label_noise_check": check, **THREE_LABELS}
    summary, _ = verified(tmp_path, model, writing(0.9, LABELS), biased(knows), **changes)
    figures = summary["verification"]
    assert labels_in(tmp_path) == dict.fromkeys(LABELS, 20)
    assert figures["pseudo_labels"] == (check is not None and not knows)
    if knows:
        assert figures["concordance"] > 0.8
        assert all(map(is_right, examples(tmp_path)))
        assert summary["rejected"]["rejected_by_verifier"] < 0.3 * figures["scored"]
    else:
        assert figures["concordance"] == 0.5


@pytest.mark.parametrize("check", [0.6, None])
def test_labels_stay_assigned_if_the_verifier_confirms_them_or_the_check_is_off(
    tmp_path: Path, model: str, check: float | None
) -> None:
    client = ScriptedClient(writing(0.95 if check else 0.5, LABELS), scorer=knowing if check else guessing)
    summary, messages = verified(tmp_path, model, client, count=90, label_noise_check=check, **THREE_LABELS)
    assert summary["verification"]["pseudo_labels"] is False
    assert summary["verification"]["min_concordance"] == check
    assert (summary["verification"]["concordance"] > 0.9) == bool(check)
    assert any(line.startswith("label-noise check:") for line in messages)
    assert all(assigned_in(client))


@pytest.mark.parametrize("strategy", ["tree", "random", "coverage"])
def test_waiting_examples_are_parents_and_no_text_waits_twice(tmp_path: Path, model: str, strategy: str) -> None:
    """A small vocabulary: many texts repeat each other."""
    verified(tmp_path, model, answering(200), guessing, count=60, strategy=strategy, **TWO_LABELS)
    made = commits(tmp_path)
    waiting = [commit for commit in made if commit.waiting]
    texts = [(values["premise"], values["hypothesis"]) for commit in waiting for values in commit.waiting]
    assert len(set(texts)) == len(texts) >= 60
    assert any(commit.parent_depth for commit in waiting)
    assert not any(commit.accepted for commit in made[: len(waiting)])
    assert [commit.request_number for commit in made if commit.released] == [
        commit.request_number for commit in waiting
    ]


def test_a_short_run_checks_20_rows(tmp_path: Path, model: str) -> None:
    client = ScriptedClient(writing(0.95, YES_NO), scorer=knowing)
    summary, _ = verified(tmp_path, model, client, count=3, **TWO_LABELS)
    figures = summary["verification"]
    assert summary["accepted"] == 3
    assert figures["label_noise_rows"] == 20
    assert summary["rejected"]["not_needed"] > 0
    assert figures["dropped"] == summary["rejected"].get("rejected_by_verifier", 0), "they are not dropped"
    assert 4 <= len(client.history) <= 5  # sent together


def test_the_thoughts_of_a_request_with_waiting_examples_count_once(tmp_path: Path, model: str) -> None:
    def thinking(request: Request) -> Completion:
        return replace(writing(0.9, YES_NO)(request), thoughts="Hm.", thinking_tokens=2)

    summary, _ = verified(tmp_path, model, thinking, count=30, **TWO_LABELS)
    assert any(commit.released for commit in commits(tmp_path))
    assert summary["thinking_tokens"] == 2 * summary["requests"]
    config = RunDirectory(tmp_path).read_config()
    stats = RunStats(config.spec, config.format)
    for commit in commits(tmp_path):  # released commits of older logs repeat what the model thought
        stats.add_record(replace(commit, thinking_tokens=2))
    assert stats.thinking_tokens == summary["thinking_tokens"]


def test_few_more_requests_are_made_than_needed_after_many_rows_are_released(tmp_path: Path, model: str) -> None:
    client = ScriptedClient(writing(0.5, LABELS), scorer=knowing, slots=64)
    more: dict[str, Any] = {"num_examples": 1, "concurrency": None, "strategy": "tree", **THREE_LABELS}
    summary, _ = verified(tmp_path, model, client, count=140, **more)
    assert summary["verification"]["label_noise_rows"] == 140
    assert len(client.history) <= 1.05 * summary["requests"]


# Label ratios


@pytest.mark.parametrize("verify", ["off", "drop", "relabel"])
@pytest.mark.parametrize("label_ratio", [(0.7, 0.2, 0.1), (0.5, 0.5, 0.0)])
def test_label_ratios_are_met_to_one_example(
    tmp_path: Path, model: str, verify: str, label_ratio: tuple[float, ...]
) -> None:
    ratio = dict(zip(LABELS, label_ratio, strict=True))
    changes: dict[str, Any] = {"verify": verify, "label_ratio": ratio, "count": 53, **THREE_LABELS}
    verified(tmp_path, model, writing(0.8, LABELS), **changes)
    counted = labels_in(tmp_path)
    assert sum(counted.values()) == 53
    for label, share in ratio.items():
        assert abs(counted[label] - share * 53) < 1
        assert share or not counted[label]


def test_label_ratios_are_met_with_pseudo_labels(tmp_path: Path, model: str) -> None:
    changes = {"label_ratio": {"yes": 0.75, "no": 0.25}, **FALLBACK}
    summary, _ = verified(tmp_path, model, writing(0.5, YES_NO), **changes)
    assert summary["verification"]["pseudo_labels"] is True
    assert labels_in(tmp_path) == {"yes": 60, "no": 20}


# The log and the summary


def test_there_is_one_probability_vector_per_example_in_order(tmp_path: Path, model: str) -> None:
    verified(tmp_path / "options", model, writing(0.6), verify="soft", count=40)
    verified(tmp_path / "labels", model, writing(0.5, YES_NO), failing, **{**FALLBACK, "verify": "soft"})
    for name in ("options", "labels"):
        directory = RunDirectory(tmp_path / name)
        task_format = directory.read_config().format
        for values, probabilities in zip(directory.examples(), directory.verifier_probabilities(), strict=True):
            assert probabilities
            assert sum(probabilities) == pytest.approx(1, abs=1e-3)
            best = probabilities.index(max(probabilities))
            assert (task_format.answers.right_index(values) == best) == is_right(values, YES_NO)
    assert make(tmp_path / "off", model, count=10)["verification"] is None
    assert list(RunDirectory(tmp_path / "off").verifier_probabilities()) == [None] * 10


def test_the_summary_counts_what_was_scored_kept_and_dropped(tmp_path: Path, model: str) -> None:
    summary, _ = verified(tmp_path, model, writing(0.6, LABELS), count=60, **THREE_LABELS)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary == RunDirectory(tmp_path).summary()
    figures = summary["verification"]
    assert (figures["mode"], figures["model"]) == ("drop", "scripted-model")
    assert figures["kept"] + figures["dropped"] == figures["scored"]
    assert figures["dropped"] == summary["rejected"]["rejected_by_verifier"]
    assert figures["kept"] >= 60
    assert figures["agreed"] == pytest.approx(0.6, abs=0.15)
    assert figures["tokens"] >= 30 * figures["scored"]
    assert figures["label_noise_rows"] in (40, 60)
