"""What is found below a folder, and everything that cannot be used: named, and nothing else lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datacreate.errors import RunError, UsageError
from datacreate.reporting.build import build_report
from datacreate.reporting.render import as_markdown
from tests.reporting.evaluations import answers, evaluated
from tests.support.making import make

Damage = Callable[[bytes], bytes | None]
"""New content of a file made of the old one; None removes it."""


def changed(scores: Any = (), **changes: Any) -> Damage:
    """Other values in evaluation.json."""

    def damage(old: bytes) -> bytes:
        document = json.loads(old)
        return json.dumps(document | changes | {"scores": document["scores"] | dict(scores)}).encode()

    return damage


def rows(*numbers: int) -> Damage:
    """Only these lines of predictions.jsonl, which has ten."""
    return lambda old: b"".join(old.splitlines(keepends=True)[number] for number in numbers)


CONTRADICT = "evaluation.json and predictions.jsonl contradict each other"


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("evaluation.json", lambda _: b"\xff\xfe", "evaluation.json is damaged"),
        ("evaluation.json", lambda _: b"[" * 100_000, "evaluation.json is damaged"),
        ("evaluation.json", changed(seed="one"), "evaluation.json is damaged (seed: "),
        ("evaluation.json", changed(surprise=1), "evaluation.json is damaged (surprise: "),
        ("evaluation.json", changed({"score": float("nan")}), "(scores.score: Input should be a finite number"),
        ("evaluation.json", changed({"classes": 0}), "evaluation.json is damaged (scores.classes: "),
        ("evaluation.json", changed({"classes": 3}), "scored by an older version over other labels"),
        ("evaluation.json", changed({"accuracy": 0.9}), CONTRADICT),
        ("evaluation.json", lambda _: None, "unfinished: predictions but no evaluation"),
        ("predictions.jsonl", lambda _: b'{"row": 0,', "predictions.jsonl is damaged"),
        ("predictions.jsonl", lambda _: b"7\n", "predictions.jsonl is damaged"),
        ("predictions.jsonl", rows(), CONTRADICT),
        ("predictions.jsonl", rows(*range(9)), CONTRADICT),
        ("predictions.jsonl", rows(*range(10), 0), CONTRADICT),
        ("predictions.jsonl", rows(1, 0, *range(2, 10)), CONTRADICT),
        ("predictions.jsonl", lambda _: None, "predictions.jsonl cannot be read (No such"),
    ],
)
def test_a_damaged_evaluation_is_named_and_the_others_are_reported(
    tmp_path: Path, name: str, damage: Damage, said: str
) -> None:
    evaluated(tmp_path / "good", answers(7, 10), seed=2)
    file = evaluated(tmp_path / "hurt", answers(6, 10), seed=1) / name
    if (damaged := damage(file.read_bytes())) is None:
        file.unlink()
    else:
        file.write_bytes(damaged)
    report = build_report([tmp_path])
    assert [one.sources for one in report.tables[0].results] == [(str(tmp_path / "good"),)]
    reason = report.skipped[str(tmp_path / "hurt")]
    assert said in reason
    assert "\n" not in reason
    shutil.rmtree(tmp_path / "good")
    with pytest.raises(RunError, match="nothing usable") as caught:
        build_report([tmp_path])
    assert "\n" not in str(caught.value)


def test_a_copy_of_an_evaluation_and_a_path_given_twice_count_once(tmp_path: Path) -> None:
    one = evaluated(tmp_path / "runs" / "one", answers(6, 10))
    shutil.copytree(one, tmp_path / "runs" / "two")
    report = build_report([tmp_path / "runs", tmp_path, tmp_path / "runs" / "one"])
    assert report.evaluations == 1
    reason = report.skipped[str(tmp_path / "runs" / "two")]
    assert reason == f"same model and test rows as {one}: counted once"


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    evaluated(tmp_path / "other" / "one", answers(6, 10))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "runs")
    assert build_report([tmp_path / "runs"]).evaluations == 1


def test_an_unfinished_training_is_said_and_its_finished_seeds_count(tmp_path: Path) -> None:
    evaluated(tmp_path / "out" / "seed-1" / "evaluations" / "creak-test", answers(6, 10))
    (tmp_path / "out" / "training.json").write_text("{}")
    (tmp_path / "out" / "seed-1" / "model.json").write_text("{}")
    assert not build_report([tmp_path]).skipped
    (tmp_path / "out" / ".trials" / "seed-2-lr-2e-05").mkdir(parents=True)
    report = build_report([tmp_path])
    assert report.evaluations == 1
    assert report.skipped[str(tmp_path / "out")].startswith("unfinished training (finished seeds: 1)")


@pytest.mark.parametrize("name", ["absent", "file"])
def test_a_path_that_is_no_folder_is_a_wrong_command(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=f"{name}: (no such|not a) folder"):
        build_report([tmp_path / name])


def test_creation_runs_are_found_and_damaged_ones_named(tmp_path: Path, model: str) -> None:
    make(tmp_path / "good", model)
    make(tmp_path / "hurt", model)
    log = tmp_path / "hurt" / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"word", b"ward", 1))
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text("{}")  # a model's, and no run
    (tmp_path / "other").mkdir()
    for name in ("config.json", "log.jsonl"):  # of another program
        (tmp_path / "other" / name).write_text("{}")
    report = build_report([tmp_path])
    assert [(path, run["accepted"]) for path, run in report.runs.items()] == [(str(tmp_path / "good"), 25)]
    assert list(report.skipped) == [str(tmp_path / "hurt"), str(tmp_path / "other")]
    hurt, other = report.skipped.values()
    assert "log.jsonl, line" in hurt
    assert "not a run directory" in other
    assert "25 of 25" in as_markdown(report)
