"""`datacreate filter --verifier`: rows whose answer a model disagrees with are dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from datacreate import filtering
from datacreate.cli.filter import filter
from datacreate.engines.base import Completion, Request
from datacreate.errors import UsageError
from tests.scripted import ScriptedEngine


def knowing(request: Request) -> Completion:
    """Is sure that what names a fish is true, and everything else false; gives no answer on riddles."""
    said = request.messages[-1]["content"]
    right = str("fish" in said)
    scores = tuple(0.9 if choice == right else 0.1 for choice in request.choices)
    return Completion(request.id, "", "stop", 20, 0, None, () if "riddle" in said else scores)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ScriptedEngine:
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))
    engine = ScriptedEngine(knowing, scorer=knowing)
    monkeypatch.setattr(filtering, "make_engine", lambda *_, **__: engine)
    return engine


def rows(path: Path, *claims: tuple[str, bool]) -> Path:
    documents = [
        {"question": text, "context": None, "options": ["True", "False"], "label": label}
        for text, label in claims
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in documents))
    return path


def filtered(*arguments: object) -> dict[str, Any]:
    ended = CliRunner().invoke(filter, ["--json", *map(str, arguments)])
    if ended.exception:
        raise ended.exception
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def test_rows_that_the_verifier_rejects_are_dropped_with_its_scores(
    tmp_path: Path, model: str, engine: ScriptedEngine
) -> None:
    source = rows(
        tmp_path / "rows.jsonl",
        ("A trout is a fish", True),
        ("A trout is a fish", True),
        ("A whale is a fish", False),
        ("A stone can swim", False),
        ("Is a riddle a question", True),
    )
    rejects = tmp_path / "rejects.jsonl"
    found = filtered(source, "--rejects", rejects, "--verifier", model)
    dropped = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(one["line"], one["reason"], one["detail"]) for one in dropped[1:]] == [
        (3, "rejected_by_verifier", "label False; the verifier: True 0.90, False 0.10"),
        (5, "rejected_by_verifier", "the verifier returned no scores"),
    ]
    assert (found["kept"], dropped[0]["reason"]) == (2, "duplicate")
    settings = {"verifier": "scripted-model", "threshold": 0.5}
    verifier = {
        "name": "verifier",
        "reason": "rejected_by_verifier",
        "on": True,
        "settings": settings,
        "rejected": 2,
    }
    assert found["filters"][-1] == verifier
    assert engine.closed


def test_the_threshold_is_the_least_probability(tmp_path: Path, model: str, engine: ScriptedEngine) -> None:
    source = rows(tmp_path / "rows.jsonl", ("A trout is a fish", True), ("A stone can swim", True))
    assert filtered(source, "--verifier", model, "--threshold", "0.1")["kept"] == 2
    assert filtered(source, "--verifier", model, "--threshold", "0.95")["kept"] == 0


def test_a_verifier_needs_answers_that_it_can_choose_among(
    tmp_path: Path, model: str, engine: ScriptedEngine
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps({"question": "Who?", "answer": "nobody in particular"}) + "\n")
    with pytest.raises(UsageError, match="--labels FIELD=a,b,c"):
        filtered(source, "--verifier", model)


@pytest.mark.parametrize("option", [["--url", "http://a:1"], ["--engine", "vllm"], ["--threshold", "0.5"]])
def test_options_of_a_verifier_need_one(option: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{option[0]}: .*--verifier"):
        filtered(tmp_path, *option)
