"""Zero-shot evaluation with a scripted client."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from datacreate.cli.evaluate import evaluate as command
from datacreate.commands import zero_shot
from datacreate.engines.request import Completion, Request
from datacreate.errors import RunMismatch
from datacreate.finetuning.records import Evaluation, read_predictions
from datacreate.messages import Progress
from tests.finetuning.conftest import import_rows
from tests.finetuning.sets import claims
from tests.support.scripted import ScriptedClient

ROWS = claims(20, passage=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))
    import_rows(tmp_path / "rows", "bioasq", test=ROWS)
    return tmp_path


def client_for(word: Callable[[Request], str]) -> ScriptedClient:
    """A client that is certain of one word; if that is none of the choices, it gives no scores."""

    def scorer(request: Request) -> Completion:
        scores = tuple(float(choice == word(request)) for choice in request.choices)
        return Completion(request.id, "", "stop", 20, 0, None, scores if any(scores) else ())

    return ScriptedClient(scorer, scorer=scorer)


def answer(home: Path, model: str, client: ScriptedClient) -> Evaluation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zero_shot, "make_client", lambda *_, **__: client)
        [found] = zero_shot.answer_zero_shot(model, ["bioasq"], home / "out", Progress())
    return found


def test_answers_are_scored_like_those_of_an_encoder_and_not_repeated(home: Path, model: str) -> None:
    client = client_for(lambda request: str(ROWS[request.id]["label"]))
    found = answer(home, model, client)
    assert (found.scores.accuracy, found.scores.rows, found.condition.name) == (1.0, len(ROWS), "zero-shot")
    assert [request.choices for request in client.history] == [("True", "False")] * len(ROWS)
    again = client_for(lambda request: "False")
    assert answer(home, model, again) == found
    assert not again.started


def test_one_engine_answers_all_test_sets(home: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import_rows(home / "claims", "creak", test=claims(20))
    client = client_for(lambda request: "True")
    monkeypatch.setattr(zero_shot, "make_client", lambda *_, **__: client)
    both = zero_shot.answer_zero_shot(model, ["bioasq", "creak"], home / "out", Progress())
    assert [evaluation.benchmark for evaluation in both] == ["bioasq", "creak"]
    assert (client.starts, client.closed) == (1, True)


def test_all_are_the_imported_benchmarks(home: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero_shot, "make_client", lambda *_, **__: client_for(lambda request: "True"))
    words = ["--zero-shot", model, "--benchmark", "all", "--out", str(home / "out"), "--json"]
    [found] = json.loads(CliRunner().invoke(command, words).stdout)
    assert found["benchmark"] == "bioasq"
    refused = CliRunner().invoke(command, [*words, "--split", "dev"])
    assert "no benchmark has an imported" in refused.stderr


def test_the_evaluation_of_another_model_is_not_taken(home: Path, model: str) -> None:
    answer(home, model, client_for(lambda request: "True"))
    other = Path(shutil.copytree(model, home / "other-model"))
    (other / "config.json").write_text('{"model_type": "llama"}')
    for path in (other, Path(shutil.copytree(other, home / "moved" / Path(model).name))):
        with pytest.raises(RunMismatch, match=r"out has scripted-model's answers to bioasq; choose another"):
            answer(home, str(path), client_for(lambda request: "False"))


def test_identical_answers_are_degenerate_and_missing_ones_are_wrong(home: Path, model: str) -> None:
    found = answer(home, model, client_for(lambda request: "True" if request.id else "perhaps"))
    assert found.scores.degenerate
    assert found.scores.unanswered == 1
    assert read_predictions(home / "out" / "evaluations" / "bioasq-test")[0].predicted is None


def test_a_passage_that_does_not_fit_is_truncated_and_counted(home: Path, model: str) -> None:
    client = client_for(lambda request: "True")
    shortest = min(client.count_tokens([{"role": "user", "content": row["context"]}]) for row in ROWS)
    client.max_context = shortest + 1
    assert answer(home, model, client).scores.truncated == len(ROWS)
