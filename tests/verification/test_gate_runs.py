"""Fixed labels: dealt as long as the gate lets them be, the text first otherwise; shares met."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from datacreate.errors import UsageError
from tests.making import commits, examples
from tests.scripted import ScriptedEngine, answering
from tests.verifying import (
    DEALT,
    LABELS,
    SWITCHING,
    TWO,
    guessing,
    is_true,
    knowing,
    labels_in,
    unsure,
    verified,
    writing,
)


def test_dealt_labels_that_are_noise_are_found_out_and_the_text_comes_first(
    tmp_path: Path, model: str
) -> None:
    engine = ScriptedEngine(writing(0.5, ["yes", "no"]), scorer=guessing)
    summary, notes = verified(tmp_path, model, engine, **{**SWITCHING, "label_noise_rows": 60})
    figures = summary["verification"]
    [told] = [note for note in notes if note.startswith("label-noise check:")]
    assert "from now on texts are written without a label" in told
    assert f"AUC {figures['auc']:.2f}" in told
    assert figures["auc"] < figures["min_auc"] == 0.75
    assert figures["pseudo_labels"] is True

    dealt = ['"const"' in (request.schema or "") for request in engine.history]
    assert dealt == sorted(dealt, reverse=True)  # first all with a label dealt, then none
    assert any(dealt)
    assert not all(dealt)
    assert all("yes" not in (r.schema or "") for r, d in zip(engine.history, dealt, strict=True) if not d)
    assert labels_in(tmp_path) == {"yes": 40, "no": 40}


def test_once_the_text_comes_first_labels_are_the_verifiers(tmp_path: Path, model: str) -> None:
    summary, _ = verified(tmp_path, model, writing(0.5, ["yes", "no"]), **SWITCHING)
    assert summary["verification"]["pseudo_labels"] is True
    assert all(is_true(example, ["yes", "no"]) for example in examples(tmp_path))
    assert labels_in(tmp_path) == {"yes": 40, "no": 40}
    late = [scored for commit in commits(tmp_path)[-5:] for scored in commit.scored]
    assert {scored.final for scored in late} == {0, 1}
    assert {scored.assigned for scored in late} == {-1}


def test_a_verifier_that_is_never_sure_of_many_labels_does_not_drop_everything(
    tmp_path: Path, model: str
) -> None:
    told = {"labels": {"stars": "1,2,3,4,5"}}
    values = {"question": "The soup was warm.", "stars": "4"}
    summary, _ = verified(
        tmp_path, model, answering(), unsure, example=values, count=50, label_noise_rows=40, **told
    )
    assert summary["verification"]["threshold"] == 0.3
    assert summary["verification"]["pseudo_labels"] is True
    assert summary["rejected"]["rejected_by_verifier"] < 40 + 0.6 * (summary["verification"]["scored"] - 40)
    assert set(Counter(example["stars"] for example in examples(tmp_path)).values()) == {10}


def test_dealt_labels_that_the_verifier_confirms_stay_dealt(tmp_path: Path, model: str) -> None:
    engine = ScriptedEngine(writing(0.95, LABELS), scorer=knowing)
    summary, notes = verified(tmp_path, model, engine, count=90, label_noise_rows=40, **DEALT)
    assert any("still assigned" in note for note in notes)
    assert summary["verification"]["auc"] > 0.9
    assert all('"const"' in (request.schema or "") for request in engine.history)


def test_without_a_gate_labels_stay_dealt_whatever_the_verifier_says(tmp_path: Path, model: str) -> None:
    engine = ScriptedEngine(writing(0.5, ["yes", "no"]), scorer=guessing)
    summary, notes = verified(tmp_path, model, engine, label_noise_check=None, **SWITCHING)
    assert summary["verification"]["pseudo_labels"] is False
    assert summary["verification"]["min_auc"] is None
    assert any(note.startswith("label-noise check:") for note in notes)  # it is still measured
    assert all('"const"' in (request.schema or "") for request in engine.history)


def test_what_came_in_before_the_gate_shut_is_counted_and_told(tmp_path: Path, model: str) -> None:
    summary, _ = verified(tmp_path, model, writing(0.5, ["yes", "no"]), **SWITCHING)
    early = summary["verification"]["accepted_before_check"]
    assert summary["verification"]["pseudo_labels"] is True
    assert 0 < early < 25
    assert (
        f"{early} rows were accepted before the label-noise check decided"
        in (tmp_path / "README.md").read_text()
    )
    assert all(is_true(example, ["yes", "no"]) for example in examples(tmp_path)[:early])


def test_a_run_that_ends_before_its_gate_shuts_says_so(tmp_path: Path, model: str) -> None:
    summary, _ = verified(tmp_path, model, writing(0.95, ["yes", "no"]), count=20, verify="drop", **TWO)
    figures = summary["verification"]
    assert figures["auc"] is None
    assert figures["label_noise_rows"] < figures["label_noise_rows_required"] == 40
    told = f"did not decide: {figures['label_noise_rows']} of 40 verified examples seen"
    assert told in (tmp_path / "README.md").read_text()


def test_a_model_that_judges_what_it_writes_is_named(tmp_path: Path, model: str) -> None:
    _, notes = verified(tmp_path / "own", model, writing(0.95, ["yes", "no"]), count=10, **TWO)
    assert [note for note in notes if "scores its own examples" in note]


def test_a_label_inside_an_object_is_left_to_the_verifier_too(tmp_path: Path, model: str) -> None:
    nested = {"claim": "Water boils.", "output": {"why": "It is hot.", "label": "true"}}
    engine = ScriptedEngine(answering(), scorer=guessing)
    summary, _ = verified(tmp_path, model, engine, example=nested, count=40, label_noise_rows=30)
    assert summary["verification"]["pseudo_labels"] is True
    assert Counter(example["output"]["label"] for example in examples(tmp_path)) == {"true": 20, "false": 20}


# Shares


@pytest.mark.parametrize("verify", ["off", "drop", "relabel"])
@pytest.mark.parametrize("label_ratio", [(0.7, 0.2, 0.1), (0.5, 0.5, 0.0), (1 / 3, 1 / 3, 1 / 3)])
def test_shares_are_met_to_one_example(
    tmp_path: Path, model: str, verify: str, label_ratio: tuple[float, ...]
) -> None:
    told = dict(zip(LABELS, label_ratio, strict=True))
    writer = writing(0.8, LABELS)
    verified(
        tmp_path, model, writer, verify=verify, label_ratio=told, count=53, label_noise_check=None, **DEALT
    )
    counted = labels_in(tmp_path)
    assert sum(counted.values()) == 53
    for label, share in told.items():
        assert abs(counted[label] - share * 53) < 1
        assert share or not counted[label]


def test_shares_are_met_where_the_text_comes_first(tmp_path: Path, model: str) -> None:
    summary, _ = verified(
        tmp_path, model, writing(0.5, ["yes", "no"]), label_ratio={"yes": 0.75, "no": 0.25}, **SWITCHING
    )
    assert summary["verification"]["pseudo_labels"] is True
    assert labels_in(tmp_path) == {"yes": 60, "no": 20}


@pytest.mark.parametrize(
    ("label_ratio", "words"),
    [
        ({"yes": 0.7, "no": 0.2}, "add up to 0.9"),
        ({"yes": 1.2, "no": -0.2}, "positive"),
        ({"yes": 0.7, "perhaps": 0.3}, "unknown label 'perhaps'; labels are yes, no"),
        ({"yes": float("nan"), "no": 1.0}, "add up to 1"),
        ({}, "add up to 0;"),
    ],
)
def test_shares_that_cannot_be_are_refused(
    tmp_path: Path, model: str, label_ratio: dict[str, float], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        verified(tmp_path / "run", model, answering(), label_ratio=label_ratio, count=10, **TWO)
    assert not (tmp_path / "run").exists()
