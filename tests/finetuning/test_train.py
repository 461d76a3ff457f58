"""Training: what can be learned is learned, seeds are reproducible, and several processes give the same models."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from datacreate.benchmarks import find_benchmark, split_sha256
from datacreate.errors import (
    RESUMABLE,
    BenchmarkError,
    RunLocked,
    RunMismatch,
    Stopped,
    StorageError,
    TrainingError,
    UsageError,
)
from datacreate.finetuning import trials
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.records import TrainingDirectory, read_model, read_training
from datacreate.finetuning.train import prepare, train
from tests.finetuning.sets import claims, write_rows
from tests.finetuning.training import Recorder, config, trained, weights
from tests.support.inprocess import typed
from tests.support.making import make


def test_a_training_is_reproducible_and_seeds_differ(home: Path, tmp_path: Path, encoder: str) -> None:
    out = tmp_path / "one"
    models = train(config("creak", out, encoder, seeds=(1, 2), epochs=2))
    trained("creak", tmp_path / "two", encoder, epochs=2)
    assert [model.seed for model in models] == [1, 2]
    assert weights(out / "seed-1") == weights(tmp_path / "two" / "seed-1") != weights(out / "seed-2")
    assert read_model(out / "seed-1") == models[0]
    assert read_training(out) == models[0].training
    assert json.loads((out / "training.json").read_text())["task"]["names"] == ["True", "False"]
    assert models[0].training.encoder == "tiny-roberta"
    assert {"torch", "transformers", "datacreate"} <= models[0].versions.keys()
    assert {path.name for path in out.iterdir()} == {"training.json", "seed-1", "seed-2"}
    names = {path.name for path in (out / "seed-1").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "model.json"} <= names
    assert not [name for name in names if "checkpoint" in name]


def test_a_dry_run_shows_the_training_and_writes_nothing(home: Path, tmp_path: Path, encoder: str) -> None:
    words = ["train", "creak", "--encoder", encoder, "--out", str(tmp_path / "out"), "--seeds", "1,2"]
    ended = typed(*words, "--epochs", "2", "--dry-run", "--json")
    plan = json.loads(ended.out)
    assert (plan["task"], plan["seeds_to_train"], plan["trials"]) == ("the labels True, False", [1, 2], 2)
    assert plan["selection"] == "held-out"
    assert plan["steps"] == 2 * -(-plan["training_rows"] // 16)
    assert f"validation rows  {plan['validation_rows']}\n" in typed(*words, "--dry-run").out
    assert not (tmp_path / "out").exists()


def test_finished_seeds_are_kept_and_more_are_added(home: Path, tmp_path: Path, encoder: str) -> None:
    first = config("creak", tmp_path / "out", encoder, epochs=1)
    train(first)
    file = tmp_path / "out" / "seed-1" / "model.safetensors"
    before = (weights(file.parent), file.stat().st_mtime_ns)
    recorder = Recorder()
    assert [model.seed for model in train(first.model_copy(update={"seeds": (3, 1)}), recorder)] == [3, 1]
    assert {what for what, *_ in recorder.steps} == {"seed 3"}
    assert (weights(file.parent), file.stat().st_mtime_ns) == before
    assert [path.name for path in TrainingDirectory(tmp_path / "out").models()] == ["seed-1", "seed-3"]
    recorder = Recorder()
    train(first, recorder)
    assert (recorder.steps, recorder.notes) == ([], ["reading the rows and the encoder"])


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs by name; the worker processes find none and use the CPU."""
    monkeypatch.setattr(trials, "visible_gpus", lambda: ("0", "1"))


@pytest.mark.slow
def test_processes_train_the_same_models_and_stop_with_this_one(
    home: Path, tmp_path: Path, encoder: str, two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"seeds": (1, 2), "learning_rates": (1e-3, 3e-3), "epochs": 2}
    requested = config("creak", tmp_path / "out", encoder, **changes)
    recorder = Recorder(1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        train(requested, recorder)
    recorder = Recorder()
    models = train(requested, recorder)
    monkeypatch.setattr(trials, "visible_gpus", tuple)
    train(config("creak", tmp_path / "one", encoder, **changes))
    assert [model.seed for model in models] == [1, 2]
    assert {what for what, *_ in recorder.steps} == {"4 models"}
    for seed in ("seed-1", "seed-2"):
        assert weights(tmp_path / "out" / seed) == weights(tmp_path / "one" / seed)


@pytest.mark.slow
def test_each_process_sees_one_gpu_and_a_killed_one_is_reported(
    home: Path, tmp_path: Path, encoder: str, two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested, recorder = config("creak", tmp_path / "out", encoder, seeds=(1, 2), epochs=1), Recorder()
    monkeypatch.setattr(trials, "run_trial", _visible)
    with pytest.raises(TrainingError, match=r"process sees [01] of 1 GPUs"):
        train(requested, recorder)
    assert recorder.scores[-1] == 0.0
    monkeypatch.setattr(trials, "run_trial", _killed)
    with pytest.raises(TrainingError, match=r"a training process was killed.*--device-batch-size"):
        train(requested)


def _visible(*arguments: Any) -> Any:
    on_step: trials.OnStep = arguments[-1]
    for score in (None, -0.5, 0.0, None):
        on_step(1, 1, score)
    gpus = os.environ["CUDA_VISIBLE_DEVICES"]
    raise TrainingError(f"process sees {gpus} of {len(gpus.split(','))} GPUs")


def _killed(*_: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


CHANGES: Sequence[tuple[dict[str, Any], str]] = [
    ({"epochs": 2}, r"hyperparameters: epochs=1 there, epochs=2 requested"),
    ({"lora": True}, r"hyperparameters: lora=False there, lora=True requested"),
    ({"lora": True, "learning_rates": (1e-2,)}, r"hyperparameters: lora=False there, lora=True requested"),
    ({"count": 100}, r"condition: count=200 there, count=100 requested"),
    ({"model_selection": "none"}, r"selection: held-out there, none requested"),
    ({"condition": "mine"}, r"condition: name=human there, name=mine requested"),
]


def test_a_folder_of_another_training_is_refused_naming_what_differs(home: Path, tmp_path: Path, encoder: str) -> None:
    out = tmp_path / "out"
    training = trained("creak", out, encoder, epochs=1).training
    for change, words in CHANGES:
        with pytest.raises(RunMismatch, match=words) as caught:
            train(config("creak", out, encoder, **{"epochs": 1} | change))
        assert "\n" not in str(caught.value)
    other_encoder = training.model_copy(update={"encoder_sha256": "0" * 64}).model_dump_json()
    for name, content, error, words in (
        ("training.json", other_encoder, RunMismatch, "encoder_sha256"),
        ("training.json", '{"seed": 1}', TrainingError, r"damaged \("),
        ("seed-1/model.json", '{"seed": 1}', TrainingError, r"damaged \("),
    ):
        before = (out / name).read_text()
        (out / name).write_text(content)
        with pytest.raises(error, match=words) as damaged:
            trained("creak", out, encoder, epochs=1)
        assert "\n" not in str(damaged.value)
        (out / name).write_text(before)
    with TrainingDirectory(out).locked(training), pytest.raises(RunLocked) as locked:
        trained("creak", out, encoder, epochs=1)
    assert locked.value.exit_code == RESUMABLE


def test_a_folder_with_other_files_is_refused(home: Path, tmp_path: Path, encoder: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("words")
    with pytest.raises(UsageError, match="holds other files, no training"):
        train(config("creak", tmp_path / "full", encoder))
    (tmp_path / "file").write_text("words")
    with pytest.raises(StorageError, match="file: cannot be written"):
        train(config("creak", tmp_path / "file", encoder))


def test_the_best_learning_rate_is_kept(home: Path, tmp_path: Path, encoder: str) -> None:
    recorder = Recorder()
    [model] = train(config("creak", tmp_path / "out", encoder, learning_rates=(1e-7, 3e-3)), recorder)
    assert model.learning_rate == 3e-3
    assert {what for what, *_ in recorder.steps} == {"seed 1, lr 1e-07", "seed 1, lr 0.003"}
    alone = trained("creak", tmp_path / "alone", encoder)
    assert weights(tmp_path / "out" / "seed-1") == weights(tmp_path / "alone" / "seed-1")
    assert (model.step, model.validation_score) == (alone.step, alone.validation_score)


def test_several_learning_rates_need_rows_that_choose_one(home: Path, tmp_path: Path, encoder: str) -> None:
    for changes, words in [
        ({"count": 39}, r"--learning-rates: --model-selection held-out .* one of 2 \(39 rows\); give one rate"),
        ({"model_selection": "none"}, "none has no rows to choose one of 2; give one rate, or another model selection"),
    ]:
        with pytest.raises(UsageError, match=words):
            train(config("creak", tmp_path / "no", encoder, learning_rates=(1e-9, 5e-3), **changes))
    assert not (tmp_path / "no").exists()


def test_early_stopping_keeps_the_best_checkpoint(home: Path, tmp_path: Path, encoder: str) -> None:
    rows = claims(200)
    for place, row in enumerate(rows):
        row["label"] = place % 4 < 2  # unrelated to the text
    recorder = Recorder()
    file = write_rows(tmp_path / "noise.jsonl", rows)
    requested = config(file, tmp_path / "out", encoder, epochs=30, max_evaluations=30, patience=2)
    [model] = train(requested, recorder)
    steps = [done for _, done, _ in recorder.steps]
    assert steps[-1] < model.steps == 360
    assert model.step == steps[-1] - 2 * 12  # two evaluations, one epoch apart, after the best


def test_the_human_dev_split_can_choose(home: Path, tmp_path: Path, encoder: str, model: str) -> None:
    make(tmp_path / "run", model, count=45)
    run, human = tmp_path / "run", {"model_selection": "human", "epochs": 1}
    with pytest.raises(UsageError, match="name it with --benchmark"):
        train(config(run, tmp_path / "out", encoder, **human))
    found = trained(run, tmp_path / "out", encoder, **human, benchmark="csqa")
    assert (found.trained_rows, found.validation_rows) == (45, 40)
    assert (found.training.selection, found.training.condition.name) == ("human", "tree")
    assert found.training.validation_digest == split_sha256(find_benchmark("csqa"), "dev")
    for changes in ({}, human):
        with pytest.raises(UsageError, match="has questions with 5 options, piqa has questions with 2"):
            train(config(run, tmp_path / "no", encoder, **changes, benchmark="piqa"))
    with pytest.raises(UsageError, match="has questions with 5 options, creak has the labels True, False"):
        train(config(run, tmp_path / "no", encoder, benchmark="creak"))
    with pytest.raises(BenchmarkError, match="did you mean creak"):
        train(config(run, tmp_path / "no", encoder, benchmark="creek"))


def test_rows_of_ones_own_can_choose(home: Path, tmp_path: Path, encoder: str) -> None:
    file, rows = tmp_path / "validation.jsonl", write_rows(tmp_path / "train.jsonl", claims(60))
    write_rows(file, [*claims(20, 5), claims(1, 6)[0] | {"label": "perhaps"}])
    requested = config(rows, tmp_path / "out", encoder, epochs=1, validation=file)
    recorder = Recorder()
    [model] = train(requested, recorder)
    assert (model.training.selection, model.trained_rows, model.validation_rows) == ("file", 60, 20)
    assert "skipped validation rows: 1 of 21" in recorder.notes
    named = model.training.condition.name
    assert re.fullmatch(r"train \([0-9a-f]{8}\)", named)
    for record in ((out := tmp_path / "out") / "training.json", out / "seed-1" / "model.json"):  # as older versions
        record.write_text(record.read_text().replace(named, "train").replace("validation_", "selection_"))
    [read] = train(requested)
    assert (read.validation_score, read.validation_rows) == (model.validation_score, 20)
    write_rows(file, claims(20, 7))
    with pytest.raises(RunMismatch, match="validation_digest"):
        train(requested)
    paper = config(rows, tmp_path / "paper", encoder, hyperparameters=Hyperparameters(name="paper"))
    with pytest.raises(UsageError, match=r"^--recipe paper .* --benchmark, .* --validation FILE, .* held-out$"):
        prepare(paper)
    assert len(prepare(paper.model_copy(update={"validation": file})).validation_rows) == 20
    write_rows(
        file, [{"question": "a", "context": None, "label": "x"}, {"question": "b", "context": None, "label": "y"}]
    )
    with pytest.raises(UsageError, match=r"validation\.jsonl: the model has the labels"):
        prepare(requested)
    for selection, words in (("file", "name the file with --validation"), ("none", "none takes other rows")):
        options = ["--model-selection", selection, *(["--validation", str(file)] if selection == "none" else [])]
        ended = typed("train", str(rows), "--out", str(tmp_path / "no"), *options)
        assert (ended.code, words in ended.err) == (2, True), ended.err


def test_validation_rows_that_are_trained_on_are_said(home: Path, tmp_path: Path, encoder: str) -> None:
    rows, notes = write_rows(tmp_path / "train.jsonl", claims(60)), list[str]()
    some = write_rows(tmp_path / "some.jsonl", [*claims(60)[40:], *claims(10, 7)])
    none = write_rows(tmp_path / "none.jsonl", claims(20, 7))
    for file in (rows, some, none):
        prepare(config(rows, tmp_path / "out", encoder, validation=file), notes.append)
    for note, file, count in zip(notes, (rows, some), ("60 of 60", "20 of 30"), strict=True):
        assert note.startswith(f"warning: {file} has rows that the model is trained on ({count})")


def test_a_condition_has_no_name_that_reports_use_for_other_rows(
    home: Path, tmp_path: Path, encoder: str, model: str
) -> None:
    file, run, out = write_rows(tmp_path / "train.jsonl", claims(60)), tmp_path / "run", tmp_path / "out"
    make(run, model, count=45)
    refused: list[tuple[str, list[Any]]] = [
        ("human", [run]), ("human", ["csqa", run]), ("human+mine", [run]), ("zero-shot", ["creak"]),
    ]  # fmt: skip
    for name, sources in refused:
        with pytest.raises(UsageError, match=rf"^--condition {re.escape(name)}: .*; choose another name$"):
            prepare(config(sources, out, encoder, condition=name))
    allowed: list[tuple[str, list[Any]]] = [
        ("human", [file]),
        ("human", ["creak", file]),
        ("human+mine", ["csqa", run]),
    ]
    for name, sources in allowed:
        found = prepare(config(sources, out, encoder, condition=name))
        assert found.training.condition.name == name


def test_values_with_which_a_model_hardly_learns_are_said(home: Path, tmp_path: Path, encoder: str) -> None:
    def notes(rows: list[dict[str, Any]], **changes: Any) -> list[str]:
        found: list[str] = []
        file = write_rows(tmp_path / "rows.jsonl", rows)
        prepare(config(file, tmp_path / "out", encoder, **changes), found.append)
        return found

    assert notes(claims(60)) == []
    assert notes(claims(60), warmup=0.5, learning_rates=(3e-3,)) == []
    [slow, fast] = notes(claims(60), warmup=500, learning_rates=(1e-3, 5))
    assert slow.startswith("warning: 500 warm-up steps of 16 steps in total")
    assert fast.startswith("warning: a learning rate of 5 is very high")
    moods = [{"text": f"text {n}", "mood": ("good", "bad")[n % 2]} for n in range(60)]
    typo = [*moods, {"text": "text 60", "mood": "godo"}]
    assert notes(typo, labels={"mood": "good,bad,godo,so-so"}) == [
        "warning: no row has the label so-so, so the model does not learn it",
        "labels with fewer than 5 rows: 'godo' (1); they are hardly learned, or misspelled",
    ]


def test_without_validation_rows_the_last_model_is_kept(home: Path, tmp_path: Path, encoder: str) -> None:
    model = trained("creak", tmp_path / "out", encoder, model_selection="none", epochs=2)
    assert (model.validation_score, model.step, model.steps) == (None, 26, 26)
    assert (model.trained_rows, model.validation_rows) == (200, 0)
    recorder = Recorder()
    [model] = train(config("creak", tmp_path / "few", encoder, count=30, epochs=1), recorder)
    assert model.training.selection == "none"
    assert any("30 rows to train on, 0 validation rows" in note for note in recorder.notes)
    notes: list[str] = []
    for count in (19, 1):
        prepare(config("creak", tmp_path / "fewer", encoder, count=count), notes.append)
    assert [note.partition(";")[0].partition(",")[0] for note in notes] == [
        "warning: only 19 rows",
        "warning: no row has the label False",
        "warning: only 1 row",
    ]


def test_cut_rows_and_a_length_above_the_encoders_are_said(home: Path, tmp_path: Path, encoder: str) -> None:
    recorder = Recorder()
    changes: dict[str, Any] = {"max_length": 9, "model_selection": "none", "epochs": 1}
    train(config("pubmedqa", tmp_path / "out", encoder, **changes), recorder)
    assert "rows that are cut to 9 tokens: 200 of 200" in recorder.notes
    assert not any("--max-length" in note for note in recorder.notes)
    train(config("pubmedqa", tmp_path / "long", encoder, **changes | {"max_length": 900}), recorder)
    assert "--max-length 900: the encoder reads 64 tokens at most" in recorder.notes


def test_the_papers_recipe_trains_as_the_paper_does(home: Path, tmp_path: Path, encoder: str) -> None:
    recorder = Recorder()
    requested = config(
        "csqa",
        tmp_path / "out",
        encoder,
        hyperparameters=Hyperparameters(name="paper"),
        model_selection="human",
        count=65,
    )
    [model] = train(requested, recorder)
    assert len(recorder.steps) == 3 * 20  # three learning rates, ten epochs of two batches of 64
    assert model.steps == 20
    assert model.step % 2 == 0  # evaluated after each epoch
    assert model.max_length == 64


def test_out_of_memory_names_the_option_to_lower(
    home: Path, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has ...")

    monkeypatch.setattr(trials, "load_with_head", full)
    with pytest.raises(TrainingError, match=r"out of memory \(.*20.00 MiB.*--device-batch-size") as e:
        train(config("creak", tmp_path / "out", encoder))
    assert "\n" not in str(e.value)
