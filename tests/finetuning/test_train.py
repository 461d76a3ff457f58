"""Training: what can be learned is learned, seeds and rates are kept apart, and rows choose honestly."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from datacreate.benchmarks import digest, find_benchmark
from datacreate.errors import BenchmarkError, RunLocked, RunMismatch, TrainingError, UsageError
from datacreate.finetuning.directory import TrainingDirectory, read_model, read_training
from datacreate.finetuning.evaluate import evaluate
from datacreate.finetuning.settings import PAPER, Lora, Settings
from datacreate.finetuning.train import train
from tests.finetuning.conftest import import_rows
from tests.finetuning.sets import choices, claims, write_rows
from tests.finetuning.training import Heard, config, trained, weights
from tests.making import make


@pytest.mark.slow
def test_what_can_be_learned_is_learned_with_lora_too(home: Path, tmp_path: Path, encoder: str) -> None:
    model = trained("pubmedqa", tmp_path / "out", encoder, lora=Lora(dropout=0), epochs=40)
    assert model.selection_score == 1
    [found] = evaluate(tmp_path / "out" / "seed-1", ["pubmedqa"])
    assert found.scores.accuracy >= 0.9
    assert found.scores.primary >= 0.8
    assert found.scores.collapsed is None


@pytest.mark.parametrize("benchmark", ["csqa", "creak"])
def test_a_lora_model_is_saved_as_a_plain_one(
    home: Path, tmp_path: Path, encoder: str, benchmark: str
) -> None:
    trained(benchmark, tmp_path / "full", encoder, epochs=1)
    trained(benchmark, tmp_path / "lora", encoder, epochs=1, lora=Lora(rank=2))
    full = load_file(tmp_path / "full" / "seed-1" / "model.safetensors")
    lora = load_file(tmp_path / "lora" / "seed-1" / "model.safetensors")
    before = load_file(Path(encoder) / "model.safetensors")
    assert lora.keys() == full.keys()
    assert (
        lora["roberta.embeddings.word_embeddings.weight"] == before["embeddings.word_embeddings.weight"]
    ).all()
    changed = "encoder.layer.1.attention.self.query.weight"
    assert (lora[f"roberta.{changed}"] != before[changed]).any()


def test_the_same_training_twice_gives_the_same_weights_and_another_seed_others(
    home: Path, tmp_path: Path, encoder: str
) -> None:
    models = train(config("creak", tmp_path / "one", encoder, seeds=(1, 2), epochs=2))
    trained("creak", tmp_path / "two", encoder, epochs=2)
    assert [model.seed for model in models] == [1, 2]
    assert weights(tmp_path / "one" / "seed-1") == weights(tmp_path / "two" / "seed-1")
    assert weights(tmp_path / "one" / "seed-1") != weights(tmp_path / "one" / "seed-2")


def test_finished_seeds_are_left_alone_and_more_are_added(home: Path, tmp_path: Path, encoder: str) -> None:
    first = config("creak", tmp_path / "out", encoder, epochs=1)
    train(first)
    file = tmp_path / "out" / "seed-1" / "model.safetensors"
    before = (weights(file.parent), file.stat().st_mtime_ns)
    heard = Heard()
    models = train(replace(first, seeds=(3, 1)), heard)
    assert [model.seed for model in models] == [3, 1]
    assert {what for what, *_ in heard.steps} == {"seed 3"}
    assert (weights(file.parent), file.stat().st_mtime_ns) == before
    assert [path.name for path in TrainingDirectory(tmp_path / "out").models()] == ["seed-1", "seed-3"]
    heard = Heard()
    train(first, heard)
    assert (heard.steps, heard.notes) == ([], [])


def test_nothing_but_models_is_left_behind(home: Path, tmp_path: Path, encoder: str) -> None:
    trained("creak", tmp_path / "out", encoder, learning_rates=(1e-3, 3e-3), epochs=1)
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"training.json", "seed-1"}
    names = {path.name for path in (tmp_path / "out" / "seed-1").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "model.json"} <= names
    assert not [name for name in names if "checkpoint" in name]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 2}, r"settings: epochs=1 there, epochs=2 asked"),
        ({"lora": Lora()}, r"settings: lora=None there, lora=.* asked"),
        ({"count": 100}, r"condition: count=200 there, count=100 asked"),
        ({"model_selection": "none"}, r"selection: held-out there, none asked"),
        ({"condition": "mine"}, r"condition: name=human there, name=mine asked"),
    ],
)
def test_another_training_in_the_same_folder_is_refused_naming_what_differs(
    home: Path, tmp_path: Path, encoder: str, change: dict[str, Any], words: str
) -> None:
    out = tmp_path / "out"
    first = config("creak", out, encoder, epochs=1)
    with TrainingDirectory(out).locked(_training(first)):
        pass
    with pytest.raises(RunMismatch, match=words) as caught:
        train(config("creak", out, encoder, **{"epochs": 1} | change))
    assert "\n" not in str(caught.value)
    assert str(out) in str(caught.value)


def _training(asked: Any) -> Any:
    """The identity that a training writes, without training it."""
    from datacreate.checkpoints import resolve
    from datacreate.finetuning.directory import Training
    from datacreate.finetuning.rows import read_source, training_set

    rows = training_set([read_source(source) for source in asked.sources])
    encoder = resolve(asked.encoder, "encoder")
    return Training(
        condition=rows.condition,
        task=rows.task,
        encoder=encoder.name,
        encoder_sha256=encoder.sha256,
        settings=asked.settings,
        selection=asked.model_selection,
        selection_digest=None,
    )


def test_another_encoder_under_the_same_name_is_refused(home: Path, tmp_path: Path, encoder: str) -> None:
    out = tmp_path / "out"
    asked = config("creak", out, encoder, epochs=1)
    with TrainingDirectory(out).locked(_training(asked).model_copy(update={"encoder_sha256": "0" * 64})):
        pass
    with pytest.raises(RunMismatch, match="encoder_sha256"):
        train(asked)


def test_a_folder_in_use_or_with_other_things_in_it_is_refused(
    home: Path, tmp_path: Path, encoder: str
) -> None:
    asked = config("creak", tmp_path / "out", encoder, epochs=1)
    with TrainingDirectory(tmp_path / "out").locked(_training(asked)), pytest.raises(RunLocked):
        train(asked)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("words")
    with pytest.raises(TrainingError, match="holds other files and no training"):
        train(config("creak", tmp_path / "full", encoder))
    (tmp_path / "file").write_text("words")
    with pytest.raises(TrainingError, match="there is a file where a folder should be"):
        train(config("creak", tmp_path / "file", encoder))


def test_of_several_learning_rates_the_best_is_kept(home: Path, tmp_path: Path, encoder: str) -> None:
    heard = Heard()
    [model] = train(config("creak", tmp_path / "out", encoder, learning_rates=(1e-7, 3e-3)), heard)
    assert model.learning_rate == 3e-3
    assert {what for what, *_ in heard.steps} == {"seed 1, lr 1e-07", "seed 1, lr 0.003"}
    alone = trained("creak", tmp_path / "alone", encoder)
    assert weights(tmp_path / "out" / "seed-1") == weights(tmp_path / "alone" / "seed-1")
    assert (model.step, model.selection_score) == (alone.step, alone.selection_score)


def test_training_stops_when_it_gets_no_better_and_keeps_the_best(
    home: Path, tmp_path: Path, encoder: str
) -> None:
    rows = claims(200)
    for place, row in enumerate(rows):
        row["label"] = place % 4 < 2  # what is named in the text says nothing
    heard = Heard()
    file = write_rows(tmp_path / "noise.jsonl", rows)
    asked = config(file, tmp_path / "out", encoder, epochs=30, checks=30, patience=2)
    [model] = train(asked, heard)
    steps = [done for _, done, _ in heard.steps]
    assert steps[-1] < model.steps == 360
    assert model.step == steps[-1] - 2 * 12  # two checks, of a pass each, after the best


def test_the_human_dev_split_chooses_where_that_is_asked_for(
    home: Path, tmp_path: Path, encoder: str
) -> None:
    model = trained("creak", tmp_path / "out", encoder, model_selection="human", epochs=2)
    assert model.training.selection == "human"
    assert (model.trained_rows, model.selection_rows) == (200, 40)
    assert model.training.selection_digest == digest(find_benchmark("creak"), "dev")


def test_the_human_dev_split_chooses_for_created_rows_as_well(
    home: Path, tmp_path: Path, encoder: str, model: str
) -> None:
    make(tmp_path / "run", model, count=45)
    with pytest.raises(UsageError, match="name it with --benchmark"):
        train(config(tmp_path / "run", tmp_path / "out", encoder, model_selection="human", epochs=1))
    found = trained(
        tmp_path / "run", tmp_path / "out", encoder, model_selection="human", benchmark="csqa", epochs=1
    )
    assert (found.trained_rows, found.selection_rows) == (45, 40)
    assert found.training.condition.name == "tree"
    with pytest.raises(TrainingError, match="has questions with 5 options, piqa's dev split"):
        train(config(tmp_path / "run", tmp_path / "no", encoder, model_selection="human", benchmark="piqa"))
    with pytest.raises(BenchmarkError, match="did you mean creak"):
        train(config(tmp_path / "run", tmp_path / "no", encoder, benchmark="creek"))


def test_without_selection_the_last_model_is_kept(home: Path, tmp_path: Path, encoder: str) -> None:
    model = trained("creak", tmp_path / "out", encoder, model_selection="none", epochs=2)
    assert model.selection_score is None
    assert (model.step, model.steps) == (26, 26)
    assert (model.trained_rows, model.selection_rows) == (200, 0)


def test_of_few_rows_none_is_held_out_and_the_record_says_so(
    home: Path, tmp_path: Path, encoder: str
) -> None:
    heard = Heard()
    [model] = train(config("creak", tmp_path / "out", encoder, count=30, epochs=1), heard)
    assert model.training.selection == "none"
    assert "the last model is kept" in heard.notes[0]


def test_the_papers_settings_train_as_the_paper_does(home: Path, tmp_path: Path, encoder: str) -> None:
    heard = Heard()
    asked = config("csqa", tmp_path / "out", encoder, settings=PAPER, model_selection="human", count=65)
    [model] = train(asked, heard)
    assert len(heard.steps) == 3 * 20  # three rates, ten passes over two batches of 64
    assert model.steps == 20
    assert model.step % 2 == 0  # judged after each pass
    assert model.longest == 64
    assert model.training.settings.described == "paper"


def test_a_batch_is_as_large_as_was_asked_however_many_rows_a_device_holds(
    home: Path, tmp_path: Path, encoder: str
) -> None:
    whole = trained("creak", tmp_path / "whole", encoder, batch_size=24, epochs=1)
    parts = trained("creak", tmp_path / "parts", encoder, batch_size=24, epochs=1, device_rows=16)
    assert whole.steps == parts.steps == 8
    one = load_file(tmp_path / "whole" / "seed-1" / "model.safetensors")
    two = load_file(tmp_path / "parts" / "seed-1" / "model.safetensors")
    # The rows of a step are the same; dropout differs, since it is drawn for each part of a batch.
    assert all((one[name] - two[name]).abs().max() < 0.03 for name in one)


def test_human_and_created_rows_train_together(home: Path, tmp_path: Path, encoder: str, model: str) -> None:
    make(tmp_path / "run", model, count=45)
    found = trained(["csqa", tmp_path / "run"], tmp_path / "out", encoder, epochs=1)
    assert found.training.condition.name == "human+tree"
    assert found.trained_rows + found.selection_rows == 245
    [evaluation, other] = evaluate(tmp_path / "out" / "seed-1")
    assert (evaluation.benchmark, other.benchmark) == ("csqa", "riddle_sense")
    assert evaluation.condition == found.training.condition


def test_rows_that_cannot_be_trained_on_are_told(home: Path, tmp_path: Path, encoder: str) -> None:
    rows = claims(30)
    rows[3]["label"] = "who knows"
    heard = Heard()
    train(config(write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out", encoder, epochs=1), heard)
    assert heard.notes[0].startswith("1 rows cannot be trained on and are left out: the answer is not one")


def test_model_and_training_say_what_they_are(home: Path, tmp_path: Path, encoder: str) -> None:
    model = trained("creak", tmp_path / "out", encoder, epochs=1)
    assert read_model(tmp_path / "out" / "seed-1") == model
    assert read_training(tmp_path / "out") == model.training
    assert model.training.encoder == "tiny-roberta"
    assert {"torch", "transformers", "datacreate"} <= model.versions.keys()
    assert model.longest == 64


@pytest.mark.parametrize("name", ["training.json", "seed-1/model.json"])
def test_a_damaged_record_is_one_line(home: Path, tmp_path: Path, encoder: str, name: str) -> None:
    asked = config("creak", tmp_path / "out", encoder, epochs=1)
    train(asked)
    (tmp_path / "out" / name).write_text('{"seed": 1}')
    with pytest.raises(TrainingError, match=r"damaged \(") as caught:
        train(asked)
    assert "\n" not in str(caught.value)


def test_nothing_to_train_is_refused(tmp_path: Path, encoder: str) -> None:
    with pytest.raises(UsageError, match="at least one source and one seed"):
        train(config([], tmp_path / "out", encoder))


def test_a_missing_split_says_how_to_bring_it(own_home: Path, tmp_path: Path, encoder: str) -> None:
    with pytest.raises(BenchmarkError, match="benchmark piqa is not imported: run"):
        train(config("piqa", tmp_path / "out", encoder))
    import_rows(tmp_path / "reference", "piqa", test=choices(20, 2))
    with pytest.raises(BenchmarkError, match="piqa has no train split here: it can be made from the Hub"):
        train(config("piqa", tmp_path / "out", encoder))
    import_rows(tmp_path / "reference", "piqa", train=choices(20, 2), test=choices(20, 2))
    with pytest.raises(BenchmarkError, match="piqa has no dev split here"):
        train(config("piqa", tmp_path / "out", encoder, model_selection="human"))
    assert not (tmp_path / "out").exists()


def test_out_of_memory_says_which_setting_to_lower_and_the_training_goes_on(
    home: Path, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import RobertaForSequenceClassification

    real, calls = RobertaForSequenceClassification.forward, [0]

    @functools.wraps(real)  # the Trainer looks at its signature
    def full(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == 20:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has ...")
        return real(*arguments, **named)

    asked = config("creak", tmp_path / "out", encoder)
    with monkeypatch.context() as patch:
        patch.setattr(RobertaForSequenceClassification, "forward", full)
        with pytest.raises(
            TrainingError, match=r"out of memory \(.*20.00 MiB.*lower --device-batch-size"
        ) as e:
            train(asked)
    assert "\n" not in str(e.value)
    heard = Heard()
    train(replace(asked, device_rows=8), heard)
    assert heard.steps[0][1] == 13  # from the checkpoint after the first pass


def test_settings_are_kept_as_they_were_asked_for(home: Path, tmp_path: Path, encoder: str) -> None:
    settings = Settings(learning_rates=(1e-3,), epochs=1, max_length=12, batch_size=32)
    model = trained("creak", tmp_path / "out", encoder, settings=settings)
    assert json.loads((tmp_path / "out" / "training.json").read_text())["settings"]["max_length"] == 12
    assert model.longest == 12
    assert model.steps == 6
