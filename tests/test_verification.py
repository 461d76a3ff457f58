"""Creation with verification: what a verifier says decides what is in the set, and nothing else does."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.checkpoints import Checkpoint
from datacreate.create import create
from datacreate.errors import EngineError, UsageError
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from tests.inprocess import run
from tests.making import COMMONSENSE, SharedWords, commits, examples, train
from tests.making import settings as usual
from tests.scripted import ScriptedEngine, answering
from tests.verifying import (
    DEALT,
    LABELS,
    SURE,
    SWITCHING,
    TWO,
    failing,
    guessing,
    is_true,
    knowing,
    labels_in,
    verified,
    writing,
)

MODES = ["keep", "drop", "relabel", "soft"]


# The modes


@pytest.mark.parametrize("mode", MODES)
def test_of_options_the_verifier_drops_or_mends_what_is_wrong(tmp_path: Path, model: str, mode: str) -> None:
    summary, _ = verified(tmp_path, model, writing(0.6), verify=mode, count=60)
    made = examples(tmp_path)
    right = sum(map(is_true, made))
    dropped = summary["rejected"].get("rejected_by_verifier", 0)
    assert len(made) == summary["accepted"] == 60
    assert all(example["label"] in example["options"] for example in made)
    if mode == "drop":
        assert right == 60
        assert dropped > 20
    elif mode == "relabel":
        assert (right, dropped) == (60, 0)
    else:
        assert 20 < right < 50
        assert dropped == 0


@pytest.mark.parametrize("mode", MODES)
def test_of_labels_too_and_the_balance_stays_exact_on_what_remains(
    tmp_path: Path, model: str, mode: str
) -> None:
    writer = writing(0.7, LABELS)
    summary, _ = verified(tmp_path, model, writer, verify=mode, count=91, **DEALT)
    made = examples(tmp_path)
    right = sum(map(is_true, made))
    assert sorted(labels_in(tmp_path).values()) == [30, 30, 31]
    assert summary["verification"]["pseudo_labels"] is False
    assert right == 91 if mode in ("drop", "relabel") else 40 < right < 85
    if mode == "relabel":
        assert summary["rejected"]["over_quota"] > 0
        assert "rejected_by_verifier" not in summary["rejected"]
    if mode == "drop":
        assert summary["rejected"]["rejected_by_verifier"] > 20


@pytest.mark.parametrize("changes", [{}, DEALT], ids=["options", "labels"])
@pytest.mark.parametrize("mode", ["keep", "soft"])
def test_what_is_only_noted_leaves_the_set_as_it_is_unverified(
    tmp_path: Path, model: str, changes: dict[str, Any], mode: str
) -> None:
    writer = writing(0.7, LABELS if changes else ())
    verified(tmp_path / "off", model, writer, verify="off", count=60, **changes)
    verified(tmp_path / mode, model, writer, verify=mode, count=60, **changes)
    assert train(tmp_path / mode) == train(tmp_path / "off")


def test_the_threshold_says_how_sure_the_verifier_has_to_be(tmp_path: Path, model: str) -> None:
    verified(tmp_path / "met", model, writing(0.6), threshold=SURE, count=20)
    assert all(map(is_true, examples(tmp_path / "met")))
    with pytest.raises(Exception, match=r"no example accepted.*rejected_by_verifier") as caught:
        verified(tmp_path / "missed", model, writing(0.6), threshold=SURE + 0.01, count=20, patience=3)
    assert "\n" not in str(caught.value)


def test_a_reject_says_what_the_verifier_said(tmp_path: Path, model: str) -> None:
    verified(tmp_path, model, writing(0.5, LABELS), count=30, label_noise_check=None, **DEALT)
    because = [
        reject.because
        for commit in commits(tmp_path)
        for reject in commit.rejects
        if reject.reason == "rejected_by_verifier"
    ]
    assert because
    for line in because:
        assert line.startswith("assigned ")
        assert "0.90" in line
        assert "0.05" in line


# Nothing else decides


def settled(run_dir: Path) -> list[Any]:
    """The commits but for when they were made, and what was scored for nothing."""
    return [
        (c.request, c.parent, c.attempt, c.lines, c.chosen, c.rejects, c.scored) for c in commits(run_dir)
    ]


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({"count": 40, "verify": "drop"}, []),
        ({"count": 40, "verify": "relabel"}, []),
        ({**DEALT, "count": 40, "verify": "drop", "label_noise_rows": 30}, LABELS),
        ({**DEALT, "count": 40, "verify": "relabel", "strategy": "random"}, LABELS),
        (SWITCHING, ["yes", "no"]),
    ],
    ids=["options dropped", "options relabelled", "labels dropped", "labels relabelled", "text first"],
)
def test_order_of_arrival_capacity_and_kills_decide_nothing(
    tmp_path_factory: pytest.TempPathFactory, model: str, changes: dict[str, Any], labels: list[str]
) -> None:
    # The one that switches writes noise, so that the gate is sure to find it out.
    writer = writing(0.5 if changes is SWITCHING else 0.7, labels)

    @settings(max_examples=6)
    @given(
        order=st.integers(0, 2**32),
        capacity=st.integers(1, 9),
        deaths=st.lists(st.integers(1, 12), max_size=4),
    )
    def holds(order: int, capacity: int, deaths: list[int]) -> None:
        other = tmp_path_factory.mktemp("run")
        for dies_after in [*deaths, None]:
            engine = ScriptedEngine(
                writer,
                capacity=capacity,
                shuffle=random.Random(order),
                scorer=knowing,
                dies_after=dies_after,
            )
            try:
                verified(other, model, engine, **changes)
            except EngineError:
                assert dies_after
        assert train(other) == expected
        assert settled(other) == commits_of_first

    first = tmp_path_factory.mktemp("first")
    summary, _ = verified(first, model, writer, **changes)
    assert bool(summary["verification"]["pseudo_labels"]) == (changes is SWITCHING)
    expected, commits_of_first = train(first), settled(first)
    holds()


def test_a_larger_count_extends_a_run_whose_gate_has_shut(tmp_path: Path, model: str) -> None:
    changes = {**SWITCHING, "concurrency": 4}
    writer = writing(0.5, ["yes", "no"])
    verified(tmp_path, model, writer, **changes)
    before = train(tmp_path)
    summary, notes = verified(tmp_path, model, writer, **{**changes, "count": 120})
    assert train(tmp_path).startswith(before)
    assert labels_in(tmp_path) == {"yes": 60, "no": 60}
    assert summary["verification"]["label_noise_rows"] == 25
    assert not any("label-noise check:" in note for note in notes)  # it was said when it shut


def test_another_threshold_is_another_run(tmp_path: Path, model: str) -> None:
    verified(tmp_path, model, writing(0.7), count=10)
    with pytest.raises(Exception, match=r"verification\.threshold: 0\.5 stored, 0\.6 requested"):
        verified(tmp_path, model, writing(0.7), count=10, threshold=0.6)


# The verifier


def test_another_model_verifies_everything_and_writes_nothing(tmp_path: Path, model: str) -> None:
    other = tmp_path / "another-model"
    shutil.copytree(model, other)
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    engines = {
        "engine": ScriptedEngine(writing(0.6), capacity=3),
        "verifier": ScriptedEngine(answering(), scorer=knowing, capacity=2),
    }

    def engine_for(checkpoint: Checkpoint, *_: Any) -> ScriptedEngine:
        return engines["verifier" if checkpoint.path == other else "engine"]

    run_dir = tmp_path / "run"
    config = CreateConfig.of(**usual(run_dir, model, verify="drop", verifier=str(other), count=30))
    summary = create(config, engine_factory=engine_for, similarity=SharedWords())
    assert all(map(is_true, examples(run_dir)))
    assert engines["engine"].history
    assert not engines["engine"].verified
    assert engines["verifier"].verified
    assert not engines["verifier"].history
    assert all(engine.started and engine.closed for engine in engines.values())
    assert summary["verification"]["model"] == "another-model"

    verified(tmp_path / "alone", model, writing(0.6), count=30)
    assert train(tmp_path / "alone") == train(run_dir)


def test_the_same_model_given_twice_is_loaded_once(tmp_path: Path, model: str) -> None:
    made: list[Checkpoint] = []

    def engine_for(checkpoint: Checkpoint, *_: Any) -> ScriptedEngine:
        made.append(checkpoint)
        return ScriptedEngine(writing(0.6), scorer=knowing)

    config = CreateConfig.of(**usual(tmp_path / "run", model, verify="drop", verifier=model, count=10))
    create(config, engine_factory=engine_for, similarity=SharedWords())
    assert len(made) == 1


def test_what_the_verifier_has_no_answer_about_is_dropped_and_the_run_goes_on(
    tmp_path: Path, model: str
) -> None:
    verified(tmp_path, model, writing(1.0), failing, count=60)
    rejects = [reject for commit in commits(tmp_path) for reject in commit.rejects]
    lost = [reject for reject in rejects if reject.because == "the verifier gave no answer"]
    assert {reject.reason for reject in lost} == {"rejected_by_verifier"}
    assert 8 < len(lost) < 40
    assert len(list(RunDirectory(tmp_path).verdicts())) == len(examples(tmp_path)) == 60


def test_each_question_is_asked_twice_with_its_options_both_ways_round(tmp_path: Path, model: str) -> None:
    engine = ScriptedEngine(writing(1.0), scorer=knowing)
    verified(tmp_path, model, engine, count=20)
    by_question: dict[str, list[str]] = {}
    for request in engine.verified:
        question, listed = request.messages[-1]["content"].split("\n\n")
        by_question.setdefault(question, []).append(listed)
    for turns in by_question.values():
        one, other = ([line[3:] for line in listed.splitlines()] for listed in turns)
        assert one == other[::-1]


# Free text


FREE = {"question": "Where does the Elbe rise?", "label": "In the Giant Mountains."}


def test_free_text_is_not_verified_unless_asked_for(tmp_path: Path, model: str) -> None:
    engine = ScriptedEngine(answering())
    summary, _ = verified(tmp_path, model, engine, example=FREE, count=10, verify=None)
    assert summary["verification"] is None
    assert not engine.verified


def test_fixed_labels_are_verified_unless_told_otherwise_and_options_if_asked(
    tmp_path: Path, model: str
) -> None:
    engine = ScriptedEngine(writing(0.8, LABELS), scorer=knowing)
    summary, _ = verified(tmp_path / "ours", model, engine, count=9, verify=None, **DEALT)
    assert summary["verification"]["mode"] == "drop"
    summary, _ = verified(tmp_path / "options", model, writing(0.9), count=10, verify=None)
    assert summary["verification"] is None
    paper = {"method": "paper", "concurrency": None, "verify": None}
    summary, _ = verified(tmp_path / "paper", model, answering(), count=10, **TWO, **paper)
    assert summary["verification"] is None


def test_whoever_names_a_verifier_has_options_verified(tmp_path: Path, model: str) -> None:
    told = {"verify": None, "verifier": model}
    summary, _ = verified(tmp_path / "options", model, writing(0.9), count=10, **told)
    assert summary["verification"]["mode"] == "drop"
    free = {"question": "Why?", "label": "Because of the wind."}
    with pytest.raises(UsageError, match=r"free text, which nothing can verify; .* or leave --verifier out"):
        verified(tmp_path / "free", model, answering(), example=free, count=10, **told)


def test_more_options_than_there_are_letters_are_not_verified(tmp_path: Path, model: str) -> None:
    """27 options cannot be lettered; that is no reason to throw every example away."""
    many = {**COMMONSENSE, "options": [f"option {i}" for i in range(27)], "label": "option 3"}
    summary, _ = verified(tmp_path / "run", model, answering(), example=many, count=5, verify=None)
    assert summary["verification"] is None
    with pytest.raises(UsageError, match="--verify drop"):
        verified(tmp_path / "asked", model, answering(), example=many, count=5)


class Blurred(ScriptedEngine):
    """All labels begin with the same token."""

    def tells_apart(self, choices: Sequence[str]) -> bool:
        return False


def test_labels_that_begin_alike_are_asked_for_by_letter(tmp_path: Path, model: str) -> None:
    engine = Blurred(writing(0.8, LABELS), scorer=knowing)
    verified(tmp_path, model, engine, count=30, label_noise_check=None, **DEALT)
    assert {request.choices for request in engine.verified} == {("A", "B", "C")}
    assert labels_in(tmp_path) == dict.fromkeys(LABELS, 10)


def test_more_such_labels_than_there_are_letters_are_not_verified(tmp_path: Path, model: str) -> None:
    told = {"labels": {"label": ",".join(f"label {i}" for i in range(27))}}
    values = {"question": "Why?", "label": "label 3"}
    engine = Blurred(answering())
    summary, _ = verified(tmp_path / "run", model, engine, example=values, count=5, verify=None, **told)
    assert summary["verification"] is None
    with pytest.raises(UsageError, match="cannot tell the 27 labels apart"):
        verified(tmp_path / "asked", model, engine, example=values, count=5, **told)


def test_mending_an_answer_makes_no_repeat(tmp_path: Path, model: str) -> None:
    """Without free text, examples differ by their answers alone."""
    told = {"labels": {"kind": "prime,composite"}, "ranges": {"number": "1..60"}}
    values = {"number": 17, "kind": "prime"}
    verified(tmp_path, model, answering(), guessing, example=values, count=40, verify="relabel", **told)
    assert len({json.dumps(example) for example in examples(tmp_path)}) == 40


def test_options_of_another_type_than_the_answer_are_verified(tmp_path: Path, model: str) -> None:
    values = {"question": "What is 2+2?", "options": ["3", "4", "5"], "label": "4"}
    summary, _ = verified(tmp_path, model, writing(0.5), example=values, count=10, verify="relabel")
    assert summary["accepted"] == 10


# The command line

BAD = {
    "shares not numbers": (["--label-ratio", "yes=most"], 2, "yes=most: give a valid number"),
    "shares of no label": (["--label-ratio", "yes=0.5,maybe=0.5"], 2, "unknown label 'maybe'"),
    "threshold": (["--threshold", "1.5"], 2, "--threshold 1.5: give a number"),
    "gate below chance": (["--label-noise-check", "0.3"], 2, "--label-noise-check 0.3: give a number"),
    "gate in words": (["--label-noise-check", "high"], 2, "high: give a valid number"),
    "free text": (["--verify", "drop", "--labels", ""], 2, "--verify drop: the answers"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_wrong_setting_is_one_line(tmp_path: Path, model: str, kind: str) -> None:
    arguments, code, words = BAD[kind]
    path = tmp_path / "example.json"
    free = "--labels" in arguments
    path.write_text(json.dumps(FREE if free else TWO["example"]))
    told = arguments[:2] if free else ["--labels", "label=yes,no", *arguments]
    ended = run(
        "create", "--example", path, "--count", 5, "--model", model, "--run-dir", tmp_path / "run", *told
    )
    assert ended.code == code, ended.err
    assert words in ended.failure
    assert not (tmp_path / "run").exists()
