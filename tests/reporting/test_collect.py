"""What is found below a folder, and everything that cannot be used: named, and nothing else lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datacreate.errors import RunError, UsageError
from datacreate.reporting.build import build_report
from datacreate.reporting.render import as_markdown
from tests.making import make
from tests.reporting.evaluations import answers, evaluated


def evaluation(scores: Any = (), **changes: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / "evaluation.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(document | changes | {"scores": document["scores"] | dict(scores)}))

    return write


def text(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(content)


def lines(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / "predictions.jsonl"
        kept = change(path.read_text(encoding="utf-8").split("\n")[:-1])
        path.write_text("".join(f"{line}\n" for line in kept))

    return write


CONTRADICT = "evaluation.json and predictions.jsonl contradict each other"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (text("evaluation.json", b"\xff\xfe"), "evaluation.json is damaged"),
        (text("evaluation.json", b"[" * 100_000), "evaluation.json is damaged"),
        (evaluation(seed="one"), "evaluation.json is damaged (seed: "),
        (evaluation(surprise=1), "evaluation.json is damaged (surprise: "),
        (evaluation({"score": float("nan")}), "(scores.score: Input should be a finite number"),
        (evaluation({"classes": 1}), "evaluation.json is damaged (scores.classes: "),
        (evaluation({"accuracy": 0.9}), CONTRADICT),
        (text("predictions.jsonl", b'{"row": 0,'), "predictions.jsonl is damaged"),
        (text("predictions.jsonl", b"7\n"), "predictions.jsonl is damaged"),
        (text("predictions.jsonl", b""), CONTRADICT),
        (lines(lambda kept: kept[:-1]), CONTRADICT),
        (lines(lambda kept: [*kept, kept[0]]), CONTRADICT),
        (lines(lambda kept: [kept[1], kept[0], *kept[2:]]), CONTRADICT),
        (lambda folder: (folder / "predictions.jsonl").unlink(), "predictions.jsonl cannot be read (No such"),
        (lambda folder: (folder / "evaluation.json").unlink(), "unfinished: predictions but no evaluation"),
    ],
)
def test_a_damaged_evaluation_is_named_and_the_others_are_reported(
    tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    evaluated(tmp_path / "good", answers(7, 10), seed=2)
    damage(evaluated(tmp_path / "hurt", answers(6, 10), seed=1))
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


def test_a_report_needs_nothing_but_the_evaluations(tmp_path: Path) -> None:
    for seed in (1, 2):
        model = tmp_path / "whole" / f"seed-{seed}"
        evaluated(model / "evaluations" / "creak-test", answers(6 + seed, 10), seed=seed)
        for name in ("model.json", "config.json", "model.safetensors"):
            (model / name).write_text("{}")
    (tmp_path / "whole" / "training.json").write_text("{}")
    kept = shutil.ignore_patterns("model*", "config.json", "training.json")
    shutil.copytree(tmp_path / "whole", tmp_path / "kept", ignore=kept)
    whole, alone = (build_report([tmp_path / name]) for name in ("whole", "kept"))
    assert {path.name for path in (tmp_path / "kept").rglob("*.json*")} == {"evaluation.json", "predictions.jsonl"}
    assert alone.skipped == {}
    assert [replace(one, sources=()) for one in alone.tables[0].results] == [
        replace(one, sources=()) for one in whole.tables[0].results
    ]


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
