"""Runs with a verifier: its scores decide what is accepted, and nothing else does."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.checkpoints.checkpoint import Checkpoint
from datacreate.creation.loop import create
from datacreate.engines.request import Completion, Request
from datacreate.errors import EngineError, NoProgress, UsageError
from datacreate.formats.example import Json
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from datacreate.verification import NO_SCORES
from tests.support.making import COMMONSENSE, commits, examples, train
from tests.support.making import settings as usual
from tests.support.scripted import ScriptedClient, answering
from tests.support.verifying import (
    FALLBACK,
    LABELS,
    THREE_LABELS,
    YES_NO,
    asked,
    failing,
    guessing,
    is_right,
    knowing,
    labels_in,
    scored,
    truth,
    verified,
    writing,
)

MODES = ["keep", "drop", "relabel", "soft"]


@pytest.mark.parametrize("changes", [{}, THREE_LABELS], ids=["options", "labels"])
@pytest.mark.parametrize("mode", MODES)
def test_wrong_answers_are_kept_dropped_or_relabeled(
    tmp_path: Path, model: str, changes: dict[str, Any], mode: str
) -> None:
    writer = writing(0.6, LABELS if changes else ())
    summary, _ = verified(tmp_path, model, writer, verify=mode, count=91, **changes)
    made = examples(tmp_path)
    assert len(made) == summary["accepted"] == 91
    assert bool(summary["verification"]["pseudo_labels"]) is False
    if changes:
        assert sorted(labels_in(tmp_path).values()) == [30, 30, 31]
    else:
        assert all(example["label"] in example["options"] for example in made)
    right = sum(map(is_right, made))
    assert right == 91 if mode in ("drop", "relabel") else 35 < right < 80
    assert (summary["rejected"].get("rejected_by_verifier", 0) > 20) == (mode == "drop")
    if mode == "keep":  # it only logs scores
        verified(tmp_path / "off", model, writer, verify="off", count=91, **changes)
        assert train(tmp_path) == train(tmp_path / "off")


@pytest.mark.parametrize(
    ("scores", "kept"), [((0.3, 0.7, 0, 0, 0), False), ((0.3, 0.2, 0.2, 0.2, 0.1), True), ((0.2,) * 5, True)]
)
def test_an_answer_is_kept_if_no_other_is_more_probable(
    tmp_path: Path, model: str, scores: Sequence[float], kept: bool
) -> None:
    """The right answer gets the first score."""

    def scorer(request: Request) -> Completion:
        text, choices = asked(request)
        right = choices.index(truth(text, choices))
        return scored(request, [*scores[-right:], *scores[:-right]] if right else scores)

    if kept:
        verified(tmp_path, model, writing(1.0), scorer, count=20)
        return
    with pytest.raises(NoProgress, match=r"no example accepted.*rejected_by_verifier") as caught:
        verified(tmp_path, model, writing(1.0), scorer, count=20)
    assert "\n" not in str(caught.value)


def rejects(run_dir: Path) -> list[Any]:
    found = [reject for commit in commits(run_dir) for reject in commit.rejects]
    return [reject for reject in found if reject.reason == "rejected_by_verifier"]


def test_a_reject_has_the_scores_as_its_detail(tmp_path: Path, model: str) -> None:
    verified(tmp_path, model, writing(0.5, LABELS), count=30, label_noise_check=None, **THREE_LABELS)
    details = [reject.detail for reject in rejects(tmp_path)]
    assert details
    assert all(re.fullmatch(r"label \w+; the verifier: (\w+ 0\.\d\d(, )?){3}", detail) for detail in details)


# Determinism


def decisions(run_dir: Path) -> list[Any]:
    """The commits without times and token counts."""
    return [
        (c.request_number, c.parent, c.accepted_lines, c.chosen_children, c.rejects, c.scored) for c in commits(run_dir)
    ]


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({"count": 40, "verify": "drop"}, []),
        ({**THREE_LABELS, "count": 40, "verify": "relabel", "strategy": "random"}, LABELS),
        (FALLBACK, YES_NO),
    ],
    ids=["options dropped", "labels relabeled", "pseudo-labels"],
)
def test_arrival_order_capacity_and_kills_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, model: str, changes: dict[str, Any], labels: list[str]
) -> None:
    writer = writing(0.5 if changes is FALLBACK else 0.7, labels)

    @settings(max_examples=6)
    @given(order=st.integers(0, 2**32), slots=st.integers(1, 9), kills=st.lists(st.integers(1, 12), max_size=4))
    def check(order: int, slots: int, kills: list[int]) -> None:
        other = tmp_path_factory.mktemp("run")
        for dies_after in [*kills, None]:
            how: dict[str, Any] = {"slots": slots, "shuffle": random.Random(order)}
            client = ScriptedClient(writer, scorer=knowing, dies_after=dies_after, **how)
            try:
                verified(other, model, client, **changes)
            except EngineError:
                assert dies_after
        assert train(other) == expected
        assert decisions(other) == expected_decisions

    first = tmp_path_factory.mktemp("first")
    summary, _ = verified(first, model, writer, **changes)
    assert bool(summary["verification"]["pseudo_labels"]) == (changes is FALLBACK)
    expected, expected_decisions = train(first), decisions(first)
    check()


@pytest.mark.parametrize(
    ("changes", "labels"),
    [({**FALLBACK, "strategy": "coverage"}, YES_NO), ({**THREE_LABELS, "count": 30}, LABELS)],
    ids=["pseudo-labels", "labels"],
)
def test_a_run_that_ends_while_examples_wait_or_are_released_asks_nothing_twice(
    tmp_path: Path, model: str, changes: dict[str, Any], labels: list[str]
) -> None:
    whole = tmp_path / "whole"
    verified(whole, model, writing(0.5, labels), **changes)
    lines, made = (whole / "log.jsonl").read_bytes().splitlines(keepends=True), commits(whole)
    assert any(commit.released for commit in made)
    for number in range(1, len(lines), 3):
        run_dir = tmp_path / f"cut-{number}"
        shutil.copytree(whole, run_dir)
        (run_dir / "log.jsonl").write_bytes(b"".join(lines[:number]))
        for later in ("train.jsonl", "summary.json"):
            (run_dir / later).unlink()
        client = ScriptedClient(writing(0.5, labels), scorer=knowing)
        verified(run_dir, model, client, **changes)
        assert (train(run_dir), decisions(run_dir)) == (train(whole), decisions(whole))
        logged = sum(not commit.released for commit in made[: number - 1])
        assert all(request.id >= logged for request in client.history)


def test_a_larger_count_extends_a_run_with_pseudo_labels(tmp_path: Path, model: str) -> None:
    changes = {**FALLBACK, "concurrency": 4}
    verified(tmp_path, model, writing(0.5, YES_NO), **changes)
    before = train(tmp_path)
    summary, messages = verified(tmp_path, model, writing(0.5, YES_NO), **{**changes, "count": 120})
    assert train(tmp_path).startswith(before)
    assert labels_in(tmp_path) == {"yes": 60, "no": 60}
    assert summary["verification"]["label_noise_rows"] == 40
    assert not any("label-noise check:" in line for line in messages)  # reported when it decided


# The verifier


def test_another_model_can_verify_and_writes_nothing(tmp_path: Path, model: str) -> None:
    other = tmp_path / "another-model"
    shutil.copytree(model, other)
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    writer = ScriptedClient(writing(0.6), slots=3)
    verifier = ScriptedClient(answering(), scorer=knowing, slots=2)

    loaded: list[Path] = []

    def client_for(checkpoint: Checkpoint, *_: Any) -> ScriptedClient:
        loaded.append(checkpoint.path)
        return verifier if checkpoint.path == other else writer

    def run(run_dir: Path, verifier: str) -> dict[str, Any]:
        config = CreateConfig.of(**usual(run_dir, model, verify="drop", verifier=verifier, count=30))
        return create(config, client_factory=client_for)

    run_dir = tmp_path / "run"
    summary = run(run_dir, str(other))
    assert all(map(is_right, examples(run_dir)))
    assert writer.history
    assert not writer.verified
    assert verifier.verified
    assert not verifier.history
    assert all(client.started and client.closed for client in (writer, verifier))
    assert summary["verification"]["model"] == "another-model"
    writer, loaded = ScriptedClient(writing(0.6), scorer=knowing), []
    run(tmp_path / "alone", model)
    assert train(tmp_path / "alone") == train(run_dir)
    assert len(loaded) == 1  # a model that writes and verifies


def test_examples_without_scores_are_dropped(tmp_path: Path, model: str) -> None:
    verified(tmp_path, model, writing(1.0), failing, count=60)
    lost = [reject for reject in rejects(tmp_path) if reject.detail == NO_SCORES]
    assert 8 < len(lost) < 40
    assert len(list(RunDirectory(tmp_path).verifier_probabilities())) == len(examples(tmp_path)) == 60


# What is verified


def test_more_options_than_letters_cannot_be_verified(tmp_path: Path, model: str) -> None:
    many = {**COMMONSENSE, "options": [f"option {i}" for i in range(27)], "label": "option 3"}
    summary, _ = verified(tmp_path / "run", model, answering(), example=many, verify=None, count=9)
    assert summary["verification"] is None
    with pytest.raises(UsageError, match="--verify drop"):
        verified(tmp_path / "refused", model, answering(), example=many, count=5)


class SameFirstToken(ScriptedClient):
    """All labels begin with the same token."""

    def needs_letters(self, labels: Sequence[Json]) -> bool:
        return True


def test_labels_with_the_same_first_token_are_scored_by_letter(tmp_path: Path, model: str) -> None:
    client = SameFirstToken(writing(0.8, LABELS), scorer=knowing)
    verified(tmp_path / "run", model, client, count=30, label_noise_check=None, **THREE_LABELS)
    assert {request.choices for request in client.verified} == {("A", "B", "C")}
    assert labels_in(tmp_path / "run") == dict.fromkeys(LABELS, 10)
    many = {
        "labels": {"label": ",".join(f"label {i}" for i in range(27))},
        "example": {"question": "Why?", "label": "label 3"},
    }
    client = SameFirstToken(answering())
    with pytest.raises(UsageError, match="27 labels"):
        verified(tmp_path / "refused", model, client, count=5, **many)


def test_relabeling_makes_no_duplicates(tmp_path: Path, model: str) -> None:
    """Without free text, examples differ only by their answers."""
    how: dict[str, Any] = {"labels": {"kind": "prime,composite"}, "range": {"number": "1..60"}}
    values = {"number": 17, "kind": "prime"}
    verified(tmp_path, model, answering(), guessing, example=values, count=40, verify="relabel", **how)
    assert len({json.dumps(example) for example in examples(tmp_path)}) == 40
