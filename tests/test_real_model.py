"""The main job with a real model: Qwen2.5-Coder-0.5B-Instruct behind one llama.cpp server that all share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from datacreate.commands.zero_shot import answer_zero_shot
from datacreate.creation.loop import create
from datacreate.engines import EngineOptions
from datacreate.engines.llamacpp import LLAMACPP
from datacreate.formats.text_normalization import normalize_text
from datacreate.messages import Progress
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from tests.conftest import REAL_MODEL
from tests.finetuning.conftest import import_rows
from tests.support.making import commits, examples
from tests.support.process import ROOT
from tests.support.servers import until

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not LLAMACPP.build(), reason="llama.cpp (xllamacpp) is not installed here"),
]

EXAMPLE = ROOT / "data" / "examples" / "commonsense.json"
CLAIM = {"question": "Bees make honey from nectar.", "context": None, "options": ["True", "False"], "label": True}


def run(url: str, folder: Path, example: Path | dict[str, Any], count: int, **settings: Any) -> dict[str, Any]:
    settings = {"example": example, "count": count, "run_dir": folder, "url": (url,), "decontaminate": (), **settings}
    return create(CreateConfig.of(**settings))


def assert_good(folder: Path, root: dict[str, Any]) -> None:
    """Valid under the run's own schema, no question twice, none the formatting example's."""
    validator = jsonschema.Draft202012Validator(RunDirectory(folder).read_config().spec.format)
    for example in examples(folder):
        validator.validate(example)
        assert list(example) == list(root)
    questions = [normalize_text(example["question"]) for example in examples(folder)]
    assert len(set(questions)) == len(questions)
    assert normalize_text(root["question"]) not in questions


def test_a_tree_of_exactly_ten_good_examples(real_url: str, tmp_path: Path) -> None:
    summary = run(real_url, tmp_path / "run", EXAMPLE, 10, strategy="tree", num_examples=2, concurrency=6)
    made = examples(tmp_path / "run")
    assert summary["accepted"] == len(made) == 10
    assert_good(tmp_path / "run", json.loads(EXAMPLE.read_text()))
    for example in made:
        assert example["label"] in example["options"]
        assert len(set(example["options"])) == 5


def test_labels_are_assigned_evenly_and_each_is_verified(real_url: str, tmp_path: Path) -> None:
    summary = run(real_url, tmp_path / "run", CLAIM, 7, num_examples=3, concurrency=4, verify="keep")
    assert_good(tmp_path / "run", CLAIM)
    assert sorted(Counter(example["label"] for example in examples(tmp_path / "run")).values()) == [3, 4]
    assert summary["verification"]["scored"] >= 7
    found = [
        probabilities for probabilities in RunDirectory(tmp_path / "run").verifier_probabilities() if probabilities
    ]
    assert len({max(probabilities) for probabilities in found}) > 3  # an opinion of each, not one for all


def test_a_killed_run_resumes_with_the_rows_that_it_had(real_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["create", "--example", EXAMPLE, "--count", 12, "--url", real_url, "--run-dir", folder]
    words += ["--num-examples", 2, "--concurrency", 4, "--verify", "off"]
    process = subprocess.Popen(
        [sys.executable, "-m", "datacreate", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        log = folder / "log.jsonl"
        until(lambda: process.poll() is not None or (log.exists() and b'"accepted": [{' in log.read_bytes()), 120)
    finally:
        process.kill()
        process.wait()
    kept = [values for commit in commits(folder) for values in commit.accepted]
    assert 0 < len(kept) < 12
    run(real_url, folder, EXAMPLE, 12, num_examples=2, concurrency=4, verify="off")
    assert examples(folder)[: len(kept)] == kept
    assert len(examples(folder)) == 12
    assert_good(folder, json.loads(EXAMPLE.read_text()))


QUESTIONS = {
    "What do you use to cut paper?": ["scissors", "a spoon", "a pillow", "a candle", "a glove"],
    "Where do fish live?": ["in water", "in an oven", "on the moon", "in a wallet", "in a cupboard"],
    "What do you drink when you are thirsty?": ["water", "sand", "paper", "stones", "glue"],
    "Which animal barks?": ["a dog", "a fish", "a bee", "a snail", "a horse"],
    "What falls from clouds?": ["rain", "chairs", "books", "shoes", "plates"],
    "Where do you sleep at night?": ["in a bed", "in a fridge", "on a roof", "in a river", "in a mailbox"],
    "What do you wear on your feet?": ["shoes", "a hat", "gloves", "a scarf", "glasses"],
    "Who flies a plane?": ["a pilot", "a baker", "a nurse", "a painter", "a farmer"],
    "What is used to open a locked door?": ["a key", "an apple", "a blanket", "a pencil", "a cup"],
    "What gives light at night?": ["a lamp", "a carpet", "a fork", "a sock", "a brick"],
}


def test_its_own_answers_to_simple_questions_beat_chance(
    real_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))
    rows = [
        {"question": asked, "context": None, "options": [*options[at % 5 :], *options[: at % 5]], "label": options[0]}
        for at, (asked, options) in enumerate(QUESTIONS.items())
    ]
    import_rows(tmp_path / "rows", "csqa", test=rows)
    options = EngineOptions(url=(real_url,))
    [found] = answer_zero_shot(REAL_MODEL, ["csqa"], tmp_path / "out", Progress(), options=options)
    assert found.scores.rows == len(rows)
    assert found.scores.unanswered == 0
    assert found.scores.accuracy >= 0.6  # chance is 0.2
