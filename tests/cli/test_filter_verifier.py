"""`datacreate filter --verifier` drops rows whose label a model finds improbable."""

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
    """Takes texts that name a fish for true and others for false; has no scores for riddles."""
    text = request.messages[-1]["content"]
    scores = tuple(0.9 if choice == str("fish" in text) else 0.1 for choice in request.choices)
    return Completion(request.id, "", "stop", 20, 0, None, () if "riddle" in text else scores)


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
    ended = CliRunner().invoke(filter, ["--json", *map(str, arguments)], catch_exceptions=False)
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def test_rows_with_an_improbable_label_are_dropped(
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
    verifier = found["filters"][-1]
    assert verifier["settings"] == {"verifier": "scripted-model"}
    assert (verifier["name"], verifier["rejected"]) == ("verifier", 2)
    assert engine.closed


def test_the_verifiers_bias_to_a_label_is_removed(tmp_path: Path, model: str, engine: ScriptedEngine) -> None:
    """It finds "True" more probable for every claim, and a little more so for the true ones."""

    def biased(request: Request) -> Completion:
        true = 0.8 if "fish" in request.messages[-1]["content"] else 0.7
        scores = tuple(true if choice == "True" else 1 - true for choice in request.choices)
        return Completion(request.id, "", "stop", 20, 0, None, scores)

    engine.scorer = biased
    claims = [(f"Claim {n} is a {word}", word == "fish") for n in range(15) for word in ("fish", "stone")]
    wrong = [("The last claim is a stone", True)]
    # Sorted by label: the sample is taken from the whole file.
    source = rows(tmp_path / "rows.jsonl", *sorted([*claims, *wrong], key=lambda claim: claim[1]))
    found = filtered(source, "--verifier", model)
    assert found["labels"]["after"] == {"True": 15, "False": 15}
    assert len({request.messages[-1]["content"] for request in engine.history}) == 2 * 31


@pytest.mark.parametrize("option", [["--url", "http://a:1"], ["--engine", "vllm"]])
def test_options_of_a_verifier_need_one(option: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{option[0]}: .*--verifier"):
        filtered(tmp_path, *option)


def test_a_verifier_needs_a_closed_set_of_answers(tmp_path: Path, model: str, engine: ScriptedEngine) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps({"question": "Who?", "answer": "nobody in particular"}) + "\n")
    with pytest.raises(UsageError, match="--labels FIELD=a,b,c"):
        filtered(source, "--verifier", model)
