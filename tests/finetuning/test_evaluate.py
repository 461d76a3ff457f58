"""Evaluation: every row answered or reported, kept, and not done twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from datacreate.benchmarks import digest, find_benchmark, read_split
from datacreate.cli.evaluate import evaluate as command
from datacreate.errors import BenchmarkError, TrainingError
from datacreate.finetuning.directory import models_at, read_model
from datacreate.finetuning.evaluate import evaluate, judged, read_test_set
from datacreate.finetuning.record import read_evaluation, read_predictions
from datacreate.finetuning.settings import Lora
from datacreate.finetuning.train import train
from tests.finetuning.conftest import import_rows
from tests.finetuning.sets import ASKED, choices, claims, write_rows
from tests.finetuning.training import config, trained


@pytest.fixture(scope="module")
def finished(shared_home: Path, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained models by the name of their benchmark, that no test changes."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATACREATE_HOME", str(shared_home))
        for name in ("csqa", "creak", "pubmedqa"):
            train(config(name, folder / name, encoder, epochs=8))
    return folder


@pytest.fixture
def models(home: Path, finished: Path, tmp_path: Path) -> Path:
    """The same, to write into."""
    shutil.copytree(finished, tmp_path / "models")
    return tmp_path / "models"


@pytest.mark.parametrize("benchmark", ["csqa", "pubmedqa"])
def test_what_can_be_learned_is_learned(models: Path, benchmark: str) -> None:
    model = read_model(models / benchmark / "seed-1")
    assert model.selection_score == 1
    assert (model.trained_rows, model.selection_rows) == (180, 20)
    [found] = evaluate(models / benchmark / "seed-1", [benchmark])
    assert found.scores.accuracy == found.scores.primary == 1
    assert found.scores.collapsed is None


def test_without_a_word_it_is_the_models_own_benchmark_and_those_out_of_distribution(models: Path) -> None:
    own, other = evaluate(models / "creak" / "seed-1")
    assert [own.benchmark, other.benchmark] == ["creak", "strategyqa"]
    assert own.scores.accuracy == other.scores.accuracy == 1
    assert own.digest == digest(find_benchmark("creak"), "test")
    assert (own.condition.name, own.encoder, own.selection, own.seed) == (
        "human",
        "tiny-roberta",
        "held-out",
        1,
    )
    assert own.settings == "datacreate, lr 0.003, epochs=8"


def test_every_row_is_kept_in_its_order(models: Path) -> None:
    [found] = evaluate(models / "csqa" / "seed-1", ["csqa"])
    place = models / "csqa" / "seed-1" / "evaluations" / "csqa-test"
    predictions = read_predictions(place)
    rows = read_split(find_benchmark("csqa"), "test")
    assert [one.row for one in predictions] == list(range(60))
    assert [one.label for one in predictions] == [row["label"] for row in rows]
    assert all(one.predicted in row["options"] for one, row in zip(predictions, rows, strict=True))
    assert all(one.correct == (one.predicted == one.label) for one in predictions)
    for one, row in zip(predictions, rows, strict=True):
        assert one.predicted == row["options"][int(np.argmax(one.scores))]
        assert sum(one.scores) == pytest.approx(1, abs=1e-3)
    assert found.scores.accuracy == np.mean([one.correct for one in predictions])
    assert read_evaluation(place) == found


def test_what_was_measured_is_not_measured_again(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = models / "creak" / "seed-1"
    first = evaluate(folder, ["creak"])

    def computed(*_: object) -> None:
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr("datacreate.finetuning.evaluate.load_with_head", computed)
        assert evaluate(folder, ["creak"]) == first
        with pytest.raises(AssertionError, match="computed again"):
            evaluate(folder, ["creak"], "dev")
    (folder / "evaluations" / "creak-test" / "evaluation.json").write_text('{"torn":')
    assert evaluate(folder, ["creak"]) == first


def test_other_rows_under_the_same_name_are_measured_anew(
    own_home: Path, tmp_path: Path, finished: Path
) -> None:
    folder = shutil.copytree(finished / "creak" / "seed-1", tmp_path / "model")
    import_rows(tmp_path / "reference", "creak", test=claims(40, 5))
    [before] = evaluate(folder, ["creak"])
    import_rows(tmp_path / "reference", "creak", test=claims(50, 6))
    [after] = evaluate(folder, ["creak"])
    assert (before.scores.rows, after.scores.rows) == (40, 50)
    assert before.digest != after.digest


def test_odd_rows_are_kept_counted_wrong_and_reported(own_home: Path, tmp_path: Path, finished: Path) -> None:
    rows = choices(40, 5, seed=9)
    rows[3]["label"] = "none of these"
    rows[7]["options"][1] = rows[7]["options"][2] = rows[7]["label"]  # either is right
    rows[7]["options"][0] = rows[7]["options"][3] = rows[7]["options"][4] = "hammer"
    rows[11]["question"] = f"11 {' '.join(ASKED * 9)}"
    import_rows(tmp_path / "reference", "csqa", test=rows)
    folder = shutil.copytree(finished / "csqa" / "seed-1", tmp_path / "model")
    [found] = evaluate(folder, ["csqa"])
    predictions = read_predictions(folder / "evaluations" / "csqa-test")
    assert len(predictions) == found.scores.rows == 40
    assert not predictions[3].correct
    assert predictions[3].predicted in rows[3]["options"]
    assert predictions[7].correct
    assert found.scores.accuracy == sum(one.correct for one in predictions) / 40
    assert found.scores.accuracy <= 39 / 40
    assert found.scores.unanswered == 1
    assert found.scores.truncated == 1
    assert sum(found.scores.predicted.values()) == 39
    said = CliRunner().invoke(command, [str(folder), "--benchmark", "csqa"]).stdout
    assert "1 rows count as wrong, not answerable" in said
    assert "1 of 40 rows were cut to fit" in said


def label_ratio(chosen: Sequence[int | None], classes: int) -> list[list[float] | None]:
    return [None if one is None else [float(place == one) for place in range(classes)] for one in chosen]


def test_rows_that_cannot_be_asked_count_as_wrong(home: Path) -> None:
    test = read_test_set("csqa")
    right = [question.answer for question in test.asked]
    without = type(test)(
        test.benchmark,
        test.split,
        test.digest,
        test.task,
        test.rows,
        ["4 options where 5 are needed", *test.questions[1:]],
    )
    predictions, found = judged(without, label_ratio(right[1:], 5))
    assert (predictions[0].predicted, predictions[0].correct) == (None, False)
    assert (found.rows, found.unanswered) == (60, 1)
    assert found.accuracy == 59 / 60


def test_rows_without_an_answer_count_for_their_own_label(home: Path) -> None:
    test = read_test_set("creak")
    falses = [place for place, question in enumerate(test.asked) if question.answer == 1]
    given: list[int | None] = [question.answer for question in test.asked]
    for place in falses:
        given[place] = None
    predictions, found = judged(test, label_ratio(given, 2))
    assert sum(not one.correct for one in predictions) == len(falses) == found.unanswered == 30
    assert found.balanced_accuracy == 0.5
    assert found.constant == 0.5
    assert found.accuracy == 0.5


def test_of_options_that_read_the_same_either_is_right(home: Path) -> None:
    test = read_test_set("csqa")
    question = test.asked[0]
    answer = question.answer or 0
    twin = (answer + 1) % 5
    options = list(question.options)
    options[twin] = options[answer]
    twins = type(question)(question.text, None, tuple(options), answer)
    one = type(test)(
        test.benchmark, test.split, test.digest, test.task, test.rows, [twins, *test.questions[1:]]
    )
    said = [twin, *(q.answer for q in test.asked[1:])]
    predictions, found = judged(one, label_ratio(said, 5))
    assert predictions[0].correct
    assert found.accuracy == 1
    assert found.macro_f1 == 1


def test_a_model_answers_sets_of_its_own_head_only(models: Path) -> None:
    with pytest.raises(TrainingError, match="has questions with 5 options, piqa has questions with 2") as e:
        evaluate(models / "csqa" / "seed-1", ["piqa"])
    assert "\n" not in str(e.value)
    with pytest.raises(TrainingError, match="has the labels True, False, csqa has questions with 5"):
        evaluate(models / "creak" / "seed-1", ["csqa"])


def test_all_are_those_that_are_here_and_have_the_same_head(models: Path) -> None:
    found = evaluate(models / "creak" / "seed-1", ["all"])
    assert {one.benchmark for one in found} == {"creak", "strategyqa", "pubmedqa"}
    assert {one.benchmark for one in evaluate(models / "csqa" / "seed-1", ["all"])} == {
        "csqa",
        "riddle_sense",
    }


def test_passages_are_read_where_there_are_any(models: Path) -> None:
    [found] = evaluate(models / "pubmedqa" / "seed-1", ["pubmedqa"])
    assert found.scores.accuracy == 1
    [closed] = evaluate(models / "pubmedqa" / "seed-1", ["creak"])
    assert closed.scores.rows == 60


def test_a_benchmark_that_is_not_here_says_so_and_nothing_is_lost(models: Path) -> None:
    folder = models / "pubmedqa" / "seed-1"
    with pytest.raises(BenchmarkError, match="boolq_open is not imported"):
        evaluate(folder)
    assert (folder / "evaluations" / "pubmedqa-test" / "evaluation.json").is_file()
    with pytest.raises(BenchmarkError, match="unknown benchmark"):
        evaluate(folder, ["creaky"])


def test_a_damaged_model_is_one_line(models: Path) -> None:
    folder = models / "creak" / "seed-1"
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=f"{folder}: cannot be loaded") as caught:
        evaluate(folder)
    assert "\n" not in str(caught.value)
    (folder / "model.json").unlink()
    with pytest.raises(TrainingError, match="no trained model"):
        evaluate(folder)


def test_models_are_found_below_a_training(models: Path) -> None:
    assert models_at(models / "creak") == [models / "creak" / "seed-1"]
    assert models_at(models / "creak" / "seed-1") == [models / "creak" / "seed-1"]
    with pytest.raises(TrainingError, match="no trained model in it; give the --out of a finished"):
        models_at(models)


def test_a_model_of_unknown_purpose_needs_a_word(home: Path, tmp_path: Path, encoder: str) -> None:
    rows = write_rows(tmp_path / "mine.jsonl", claims(60))
    trained(rows, tmp_path / "out", encoder, epochs=1)
    with pytest.raises(TrainingError, match="name --benchmark to test it on"):
        evaluate(tmp_path / "out" / "seed-1")
    [found] = evaluate(tmp_path / "out" / "seed-1", ["creak"])
    assert found.condition.name == "mine"


def test_a_lora_model_is_evaluated_as_it_was_chosen(home: Path, tmp_path: Path, encoder: str) -> None:
    model = trained(
        "creak", tmp_path / "out", encoder, lora=Lora(), epochs=8, model_selection="human", patience=None
    )
    [found] = evaluate(tmp_path / "out" / "seed-1", ["creak"], "dev")
    assert found.scores.primary == pytest.approx(model.selection_score, abs=0.051)  # a row of 40


def test_the_command_prints_a_row_a_test_set_and_names_what_has_collapsed(
    home: Path, tmp_path: Path, encoder: str
) -> None:
    train(config("creak", tmp_path / "out", encoder, epochs=1, learning_rates=(1e-7,)))
    shown = CliRunner().invoke(command, [str(tmp_path / "out")])
    assert shown.exit_code == 0
    assert "creak" in shown.stdout
    assert "strategyqa" in shown.stdout
    assert "†" in shown.stdout
    assert "answers 'True' to 100%" in shown.stdout or "Matthews" in shown.stdout or "'False'" in shown.stdout
    assert "60 rows of creak (test)" in shown.stderr
    again = CliRunner().invoke(command, [str(tmp_path / "out" / "seed-1"), "--json"])
    assert again.stderr == ""
    documents: list[dict[str, Any]] = json.loads(again.stdout)
    assert [one["benchmark"] for one in documents] == ["creak", "strategyqa"]
    assert documents[0]["scores"]["collapsed"]
