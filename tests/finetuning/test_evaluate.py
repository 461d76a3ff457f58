"""Evaluation: a probability for every row, every row graded, results kept and not repeated."""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datacreate.benchmarks import find_benchmark, read_split, split_sha256
from datacreate.errors import BenchmarkError, CheckpointError, TrainingError, UsageError
from datacreate.finetuning.encoder import Encoded, collator, encode, load_tokenizer, load_with_head
from datacreate.finetuning.evaluate import evaluate, grade, probabilities, read_test_set
from datacreate.finetuning.records import (
    HeadSpec,
    NameIndices,
    find_models,
    read_evaluation,
    read_model,
    read_predictions,
)
from datacreate.finetuning.train import train
from datacreate.finetuning.training_rows import ClassificationExample
from datacreate.formats import FormatOptions
from tests.finetuning.conftest import TOKENS, import_rows, save_encoder
from tests.finetuning.sets import ASKED, FOODS, TOOLS, choices, claims, one_hot, write_rows
from tests.finetuning.training import Recorder, config, trained
from tests.support.inprocess import typed

Parts = tuple[Any, Encoded, Any]


@pytest.fixture(
    params=[
        HeadSpec(head="multiple_choice", names=("0", "1", "2")),
        HeadSpec(head="sequence_classification", names=("a", "b", "c")),
    ],
    ids=["options", "labels"],
)
def parts(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Encoded, Any]:
    """A model with large weights, 40 rows of very different lengths, and their collator."""
    monkeypatch.setattr("datacreate.finetuning.evaluate.has_bf16", lambda: False)
    head: HeadSpec = request.param
    rng = random.Random(1)

    def text(longest: int) -> str:
        return " ".join(rng.choices(ASKED + FOODS + TOOLS, k=rng.randint(1, longest)))

    several = head.is_multiple_choice
    examples = [
        ClassificationExample(text(30), None, tuple(text(8) for _ in range(3)) if several else (), 0) for _ in range(40)
    ]
    folder = save_encoder(tmp_path / "encoder", initializer_range=0.5)
    torch.manual_seed(7)
    model, tokenizer = load_with_head(folder, head), load_tokenizer(folder)
    return model, encode(examples, head, tokenizer, TOKENS), collator(head, tokenizer)


def test_probabilities_are_in_row_order_whatever_the_batches(parts: Parts) -> None:
    model, encoded, collate = parts
    found = probabilities(model, encoded.dataset, collate)
    assert found.shape == (40, 3)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    alone = [probabilities(model, encoded.dataset.select([row]), collate)[0] for row in range(0, 40, 4)]
    assert np.allclose(found[::4], alone, atol=1e-4)
    assert len({tuple(row) for row in found.round(3)}) > 20
    assert np.allclose(probabilities(model, encoded.dataset, collate, 100), found, atol=1e-4)


def test_divergence_and_a_full_memory_are_one_line(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    model, encoded, collate = parts

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore words.")

    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", full)
        with pytest.raises(TrainingError, match=r"Tried to allocate 2\.00 GiB.*lower the --max-length") as caught:
            probabilities(model, encoded.dataset, collate)
        assert "\n" not in str(caught.value)
        patch.setattr(model, "forward", lambda **_: torch.empty(2**60, dtype=torch.int8))  # on a CPU
        with pytest.raises(TrainingError, match="out of memory"):
            probabilities(model, encoded.dataset, collate)
    model.base_model.embeddings.word_embeddings.weight.data[:] = float("nan")
    with pytest.raises(TrainingError, match=r"diverged in training.*lower --learning-rates"):
        probabilities(model, encoded.dataset, collate)


@pytest.fixture(scope="module")
def finished(shared_home: Path, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained models, one folder per benchmark, that no test changes."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATACREATE_HOME", str(shared_home))
        for name in ("csqa", "creak", "pubmedqa"):
            train(config(name, folder / name, encoder, epochs=8))
    return folder


@pytest.fixture
def models(home: Path, finished: Path, tmp_path: Path) -> Path:
    """A copy of them to write into."""
    return shutil.copytree(finished, tmp_path / "models")


def test_default_benchmarks_are_the_models_own_and_the_out_of_distribution_ones(models: Path) -> None:
    own, other = evaluate(models / "creak" / "seed-1")
    assert [own.benchmark, other.benchmark] == ["creak", "strategyqa"]
    assert own.scores.accuracy == other.scores.accuracy == own.scores.score == 1
    assert (own.scores.degenerate, own.scores.above_chance) == (False, True)
    assert own.digest == split_sha256(find_benchmark("creak"), "test")
    assert (own.condition.name, own.encoder, own.selection) == ("human", "tiny-roberta", "held-out")
    assert own.hyperparameters == "datacreate, lr 0.003, epochs=8"


def test_every_row_is_kept_in_order(models: Path) -> None:
    folder = models / "csqa" / "seed-1"
    model = read_model(folder)
    assert (model.trained_rows, model.validation_rows) == (180, 20)
    assert model.validation_score == pytest.approx(1, abs=1e-6)
    [found] = evaluate(folder, ["csqa"])
    predictions = read_predictions(folder / "evaluations" / "csqa-test")
    rows = read_split(find_benchmark("csqa"), "test")
    assert [one.row for one in predictions] == list(range(60))
    for one, row in zip(predictions, rows, strict=True):
        assert one.label == row["label"]
        assert one.predicted == row["options"][int(np.argmax(one.scores))]
        assert one.correct == (one.predicted == one.label)
        assert sum(one.scores) == pytest.approx(1, abs=1e-3)
    assert found.scores.accuracy == np.mean([one.correct for one in predictions])
    assert read_evaluation(folder / "evaluations" / "csqa-test") == found


def test_existing_evaluations_are_not_repeated(
    own_home: Path, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(finished / "creak" / "seed-1", tmp_path / "model")
    import_rows(tmp_path / "reference", "creak", test=claims(40, 5), dev=claims(40, 6))
    first = evaluate(folder, ["creak"])

    def computed(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr("datacreate.finetuning.evaluate.load_with_head", computed)
        changed = (folder / "evaluations" / "creak-test").stat().st_mtime_ns
        assert evaluate(folder, ["creak"]) == first
        assert (folder / "evaluations" / "creak-test").stat().st_mtime_ns == changed  # it may be read-only
        with pytest.raises(AssertionError, match="computed again"):
            evaluate(folder, ["creak"], "dev")
    (folder / "evaluations" / "creak-test" / "evaluation.json").write_text('{"torn":')
    assert evaluate(folder, ["creak"]) == first
    import_rows(tmp_path / "reference", "creak", test=claims(50, 6))
    [after] = evaluate(folder, ["creak"])
    assert (first[0].scores.rows, after.scores.rows) == (40, 50)


def test_malformed_rows_are_wrong_and_reported(own_home: Path, tmp_path: Path, finished: Path) -> None:
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
    assert (found.scores.unanswered, found.scores.truncated) == (1, 1)
    shown = typed("evaluate", str(folder), "--benchmark", "csqa").out
    assert "rows without a prediction or right answer, which are wrong: 1 of 40" in shown
    assert "rows longer than the model's input, which were cut: 1 of 40" in shown


def test_rows_without_an_answer_count_as_wrong(home: Path) -> None:
    test, creak = read_test_set("csqa"), read_test_set("creak")
    right = [example.answer_index for example in test.usable]
    without = replace(test, examples=["4 options, expected 5", *test.examples[1:]])
    predictions, found = grade(without, one_hot(right[1:]))
    assert (predictions[0].predicted, predictions[0].correct) == (None, False)
    assert (found.rows, found.unanswered, found.accuracy) == (60, 1, 59 / 60)
    _, found = grade(creak, one_hot([None if q.answer_index == 1 else q.answer_index for q in creak.usable]))
    assert found.unanswered == 30
    assert found.balanced_accuracy == found.constant == found.accuracy == 0.5
    empty = replace(creak, examples=["the inputs are empty" if q.answer_index == 1 else q for q in creak.usable])
    _, found = grade(empty, one_hot([example.answer_index for example in empty.usable]))
    assert found.score == 0, "they count in the recall of their label"


def test_a_label_that_the_model_has_not_learned_is_a_class_that_it_never_predicts(home: Path) -> None:
    creak = read_test_set("creak")
    right = [example.answer_index for example in creak.usable]
    test = replace(creak, labels=[*creak.labels[:40], *["Maybe", "maybe "] * 10])  # of 60, 20 of each label
    predictions, found = grade(test, one_hot(right))
    assert [one.correct for one in predictions] == [True] * 40 + [False] * 20
    assert (found.accuracy, found.balanced_accuracy) == pytest.approx((2 / 3, 2 / 3))
    assert found.score == pytest.approx((2 / 3 - 1 / 3) / (2 / 3))
    assert found.macro_f1 == pytest.approx((0.8 + 0.8 + 0) / 3), "10 of 30 predictions of each label are wrong"
    assert (found.classes, found.unlearned, found.unanswered) == (3, 20, 0)
    assert found.predicted == {"True": 30, "False": 30, "Maybe": 0}
    unlabeled = replace(creak, labels=["", *creak.labels[1:]])
    _, found = grade(unlabeled, one_hot(right))
    assert (found.classes, found.accuracy, found.score, found.unanswered) == (2, 59 / 60, 1, 1)


def test_answers_are_found_among_names_by_spelling_and_then_without_case() -> None:
    names = NameIndices(["Yes", "yes", "No ", *map(str, range(100_000))])  # many: each is found at once
    found = [names.find(answer) for answer in ("yes", "YES", " no", "maybe", *map(str, range(100_000)))]
    assert found == [1, 0, 2, None, *range(3, 100_003)]
    halves = NameIndices(["0.5", "1.0", "1.5", "v2.0"])  # texts of a CSV file
    assert [halves.find(answer) for answer in ("1", "1.5", "1.0", "v2")] == [1, 2, 1, None]


def test_a_model_answers_only_sets_of_its_head(models: Path) -> None:
    with pytest.raises(UsageError, match="has questions with 5 options, piqa has questions with 2") as e:
        evaluate(models / "csqa" / "seed-1", ["piqa"])
    assert "\n" not in str(e.value)
    found = evaluate(models / "creak" / "seed-1", ["all"])
    assert {one.benchmark for one in found} == {"creak", "strategyqa", "pubmedqa"}


def test_a_missing_benchmark_is_left_out_unless_it_is_named(models: Path) -> None:
    folder, recorder = models / "pubmedqa" / "seed-1", Recorder()
    [found] = evaluate(folder, notify=recorder.notify)
    assert (found.benchmark, found.scores.accuracy) == ("pubmedqa", 1)
    assert "without boolq_open, bioasq: the test split is not imported" in recorder.notes
    with pytest.raises(BenchmarkError, match="boolq_open is not imported"):
        evaluate(folder, ["pubmedqa", "boolq_open"])
    with pytest.raises(BenchmarkError, match="unknown benchmark"):
        evaluate(folder, ["creaky"])


def test_a_damaged_model_is_one_line(models: Path) -> None:
    folder = models / "creak" / "seed-1"
    shutil.copytree(folder, models / "creak" / "seed-1-backup")
    assert find_models(models / "creak") == find_models(folder) == [folder]
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=f"{folder}: cannot be loaded") as caught:
        evaluate(folder)
    assert "\n" not in str(caught.value)
    (folder / "model.json").unlink()
    with pytest.raises(TrainingError, match=r"model\.json cannot be read"):
        evaluate(folder)


def test_a_model_without_its_tokenizer_or_with_other_weights_is_refused(models: Path, encoder: str) -> None:
    folder = models / "creak" / "seed-1"
    shutil.copy(Path(encoder) / "model.safetensors", folder)  # it has no head
    with pytest.raises(TrainingError, match=r"classifier.* is not in its weights.*; restore the folder") as caught:
        evaluate(folder, ["creak"])
    assert "\n" not in str(caught.value)
    csqa = models / "csqa" / "seed-1"
    (csqa / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=f"{csqa}: no tokenizer; "):
        evaluate(csqa, ["csqa"])
    assert not (folder / "evaluations" / "creak-test" / "evaluation.json").exists()


def test_a_model_of_rows_without_a_benchmark_needs_one(home: Path, tmp_path: Path, encoder: str) -> None:
    texts = [{"question": row["question"], "label": str(row["label"])} for row in claims(200)]
    rows = write_rows(tmp_path / "mine.jsonl", texts)
    model = trained(rows, tmp_path / "out", encoder, epochs=8, labels={"label": "False,True"})
    with pytest.raises(UsageError, match="give --test FILE or --benchmark"):
        evaluate(tmp_path / "out" / "seed-1")
    [found] = evaluate(tmp_path / "out" / "seed-1", ["creak"])
    assert re.fullmatch(r"mine \([0-9a-f]{8}\)", found.condition.name)
    notes = list[str]()
    evaluate(
        tmp_path / "out" / "seed-1",
        files=[rows],
        options=FormatOptions(labels={"label": "False,True"}),
        notify=notes.append,
    )
    assert any("mine.jsonl has the rows that" in note for note in notes)
    assert model.training.head.names == ("False", "True") != read_test_set("creak").head.names
    assert found.scores.accuracy == 1, "labels in another order"


def test_a_model_is_tested_on_a_file_of_ones_own(home: Path, tmp_path: Path, models: Path) -> None:
    folder = models / "creak" / "seed-1"
    rows = [{"text": row["question"], "truth": str(row["label"])} for row in claims(30, 9)]
    path = write_rows(tmp_path / "mine.jsonl", rows)
    shown = typed("evaluate", str(folder), "--test", str(path), "--labels", "truth=False,True")
    assert shown.code == 0, shown.err
    assert "30 rows of mine-" in shown.err
    options = FormatOptions(labels={"truth": "False,True"})
    [found] = evaluate(folder, files=[path], options=options)
    assert (found.scores.rows, found.scores.accuracy) == (30, 1)
    assert found.benchmark == f"mine-{found.digest[:8]}"
    assert read_predictions(folder / "evaluations" / f"{found.benchmark}-test")[1].label == "False"
    assert len(evaluate(folder, ["creak"], files=[path], options=options)) == 2
    named_like_a_benchmark = tmp_path / "creak.jsonl"
    [benchmark] = evaluate(folder, ["creak"])
    other_rows = write_rows(tmp_path / "old" / "mine.jsonl", rows[:2])
    shutil.copy(other_rows, named_like_a_benchmark)
    files = [path, other_rows, named_like_a_benchmark]
    assert [one.scores.rows for one in evaluate(folder, files=files, options=options)] == [30, 2, 2]
    assert read_evaluation(folder / "evaluations" / "creak-test") == benchmark, "not replaced"
    assert read_evaluation(folder / "evaluations" / f"{found.benchmark}-test") == found, "not replaced"
    shown = typed(
        "evaluate",
        str(folder),
        "--test",
        str(path),
        "--test",
        str(tmp_path / "none.jsonl"),
        "--labels",
        "truth=False,True",
    )
    assert (shown.code, "100.0" in shown.out) == (2, True), "the results before the error"
    assert "none.jsonl" in shown.err
    notes: list[str] = []
    misspelt = write_rows(tmp_path / "misspelt.jsonl", [*rows, rows[0] | {"truth": "Fasle"}, rows[0] | {"truth": "x"}])
    evaluate(folder, files=[misspelt], options=FormatOptions(answer="truth"), notify=notes.append)
    warning = f"warning: {misspelt}: each is a class that the model has not learned: Fasle (did you mean False?)"
    assert [note for note in notes if "warning" in note] == [warning]
    other = write_rows(tmp_path / "other.jsonl", [{"text": "a", "label": "maybe"}, {"text": "b", "label": "no"}])
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": "a"}])
    for model, file, words in [
        (folder, other, "the model has the labels True, False, and no row has one as its answer: maybe, no"),
        (models / "csqa" / "seed-1", other, "the model has questions with 5 options, .* has the labels"),
        (folder, texts, r"texts\.jsonl: no field is recognized as the label of a test row; the model has the labels"),
    ]:
        with pytest.raises(UsageError, match=words):
            evaluate(model, files=[file])


def test_a_lora_model_scores_as_when_it_was_chosen(home: Path, tmp_path: Path, encoder: str) -> None:
    changes: dict[str, Any] = {"epochs": 8, "model_selection": "human", "patience": None}
    model = trained("creak", tmp_path / "out", encoder, lora=True, **changes)
    [found] = evaluate(tmp_path / "out" / "seed-1", ["creak"], "dev")
    assert found.scores.score == pytest.approx(model.validation_score, abs=0.051)  # one row of 40


def test_the_command_prints_test_sets_and_warnings(home: Path, tmp_path: Path, encoder: str) -> None:
    train(config("creak", tmp_path / "out", encoder, epochs=1, learning_rates=(1e-7,)))
    shown = typed("evaluate", str(tmp_path / "out"))
    assert shown.code == 0
    for words in ("creak", "strategyqa", "not significantly above chance"):
        assert words in shown.out
    assert "60 rows of creak (test)" in shown.err
    again = typed("evaluate", str(tmp_path / "out" / "seed-1"), "--json")
    assert again.err == ""
    documents: list[dict[str, Any]] = json.loads(again.out)
    assert [one["benchmark"] for one in documents] == ["creak", "strategyqa"]
    assert documents[0]["scores"]["above_chance"] is False
