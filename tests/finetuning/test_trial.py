"""One trial: the order of its rows, its gradients, and resuming to the same weights after any interruption."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from datacreate import locking
from datacreate.errors import LockLost, Stopped, StorageError
from datacreate.finetuning import trial
from datacreate.finetuning.encoder import collator, encode, load_tokenizer, load_with_head
from datacreate.finetuning.evaluate import evaluate
from datacreate.finetuning.recipe import Recipe
from datacreate.finetuning.records import TRIALS, read_predictions
from datacreate.finetuning.rows import Source, training_set
from datacreate.finetuning.train import TrainConfig, train
from datacreate.finetuning.trial import Inputs, LengthGroupedSampler, last_checkpoint, make_trainer
from datacreate.formats.task_format import load_format
from tests.finetuning.conftest import save_encoder
from tests.finetuning.sets import choices, claims
from tests.finetuning.training import Recorder, config, trained, weights
from tests.locks import write_record
from tests.process import Live

LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=300)


@given(LENGTHS, st.integers(1, 32), st.integers(0, 9), st.integers(1, 5))
def test_an_epoch_has_every_row_once_in_an_order_that_earlier_epochs_do_not_change(
    lengths: list[int], batch: int, seed: int, epochs: int
) -> None:
    sampler = LengthGroupedSampler(lengths, batch, seed)
    for _ in range(epochs):
        assert sorted(sampler) == list(range(len(lengths)))
    assert list(sampler) == list(LengthGroupedSampler(lengths, batch, seed, epochs))


@given(LENGTHS, st.integers(1, 32))
@example([1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 3, 1], 3)  # the longest row is in the incomplete batch
def test_the_longest_complete_batch_comes_first(lengths: list[int], batch: int) -> None:
    shown = [lengths[row] for row in LengthGroupedSampler(lengths, batch, seed=1)]
    complete = shown[: len(shown) - len(shown) % batch]
    assert max(shown[:batch], default=0) == max(complete, default=max(shown[:batch]))


def test_batches_have_similar_lengths_and_come_in_random_order() -> None:
    lengths = [1 + place % 97 for place in range(2000)]
    rows = list(LengthGroupedSampler(lengths, 16, 1, 1))
    batches = [[lengths[row] for row in rows[at : at + 16]] for at in range(0, 2000, 16)]
    padding = sum(max(batch) * len(batch) - sum(batch) for batch in batches)
    assert padding < 0.05 * sum(lengths)
    means = [sum(batch) / len(batch) for batch in batches]
    assert 0.4 < sum(one < two for one, two in pairwise(means)) / len(means) < 0.6


@pytest.mark.parametrize(
    ("family", "head", "soft"),
    [("roberta", "options", True), ("roberta", "labels", False), ("modernbert", "labels", True)],
)
def test_accumulated_gradients_are_those_of_the_whole_batch(
    tmp_path: Path, family: str, head: str, soft: bool
) -> None:
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if family == "roberta" else {}
    encoder = save_encoder(tmp_path / "encoder", family, **off)
    whole, accumulated = (_gradients(encoder, tmp_path, head, soft, rows) for rows in (8, 2))
    assert whole.norm() > 0
    assert (accumulated - whole).norm() < 0.02 * whole.norm()  # bfloat16


def _gradients(encoder: Path, folder: Path, head: str, soft: bool, device_batch_size: int) -> Any:
    """The gradient of one training step of eight rows, before clipping, as one vector."""
    from transformers import TrainerCallback, set_seed

    found: list[Any] = []

    class Look(TrainerCallback):  # type: ignore[misc]
        def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            found.append(torch.cat([weight.grad.flatten().float() for weight in model.parameters()]))

    rows = choices(8, 3) if head == "options" else claims(8)
    format = load_format("multiple_choice" if head == "options" else "yes_no_closed_book")
    probabilities = (0.5, 0.2, 0.3) if head == "options" else (0.4, 0.6)
    source = Source(
        "rows",
        "tree",
        format,
        rows,
        list("abcdefgh"),
        verifier_probabilities=[probabilities] * 8 if soft else None,
    )
    set_ = training_set([source])
    set_seed(1)
    tokenizer, model = load_tokenizer(encoder), load_with_head(encoder, set_.task)
    encoded = encode(set_.questions, set_.task, tokenizer, 60, soft_labels=soft)
    recipe = Recipe(batch_size=8, epochs=1, soft_labels=soft)
    collate = collator(set_.task, tokenizer)
    inputs = Inputs(encoder, set_.task, tokenizer, collate, encoded, None, recipe, 60, device_batch_size)
    trainer = make_trainer(inputs, model, 1, 1e-3, folder)
    trainer.args.max_grad_norm = 0
    trainer.add_callback(Look())
    trainer.train()
    [gradient] = found
    return gradient


def interrupt(number: int = signal.SIGTERM) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def stopped(requested: TrainConfig, step: int, number: int = signal.SIGTERM) -> str:
    """Start a training, stop it by a signal after that many steps, and return the message."""
    with pytest.raises(Stopped) as caught:
        train(requested, Recorder(step, interrupt(number)))
    assert caught.value.exit_code == 75
    return str(caught.value)


def checkpoints(out: Path) -> list[Path]:
    found = (out / TRIALS).glob("*/checkpoint-*")
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_training_that_loses_its_lock_stops_with_75_and_writes_nothing(
    home: Path, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "BEAT_SECONDS", 0.0)
    seen: list[str] = []

    def taken_over() -> None:
        write_record(tmp_path / "out")
        seen.extend(files(tmp_path / "out"))

    with pytest.raises(LockLost, match="taken over by process 7 on node7") as caught:
        train(config("creak", tmp_path / "out", encoder), Recorder(10, taken_over))
    assert caught.value.exit_code == 75
    assert files(tmp_path / "out") == seen


@pytest.mark.parametrize(("benchmark", "lora"), [("csqa", True), ("creak", False)], ids=["lora", "full"])
def test_a_stopped_training_resumes_to_the_same_result(
    home: Path, tmp_path: Path, encoder: str, benchmark: str, lora: bool
) -> None:
    whole = trained(benchmark, tmp_path / "whole", encoder, lora=lora)
    requested = config(benchmark, tmp_path / "out", encoder, lora=lora)
    stopped(requested, 17)  # within an epoch, twice
    said = stopped(requested, 14, signal.SIGINT)
    assert said == "stopped by a signal at step 31 of 48; run the same command to resume"
    recorder = Recorder()
    [model] = train(requested, recorder)
    assert recorder.steps[0][1] == 32
    assert weights(tmp_path / "out" / "seed-1") == weights(tmp_path / "whole" / "seed-1")
    same = {"step", "steps", "selection_score", "learning_rate"}
    assert model.model_dump(include=same) == whole.model_dump(include=same)
    for folder in ("out", "whole"):
        evaluate(tmp_path / folder / "seed-1", [benchmark])
    place = Path("seed-1") / "evaluations" / f"{benchmark}-test"
    assert read_predictions(tmp_path / "out" / place) == read_predictions(tmp_path / "whole" / place)


def test_finished_trials_are_not_repeated(home: Path, tmp_path: Path, encoder: str) -> None:
    changes: dict[str, Any] = {"learning_rates": (1e-3, 3e-3), "epochs": 1, "seeds": (1, 2)}
    train(config("creak", tmp_path / "whole", encoder, **changes))
    requested = config("creak", tmp_path / "out", encoder, **changes)
    stopped(requested, 24)  # the last step of the first seed
    assert (tmp_path / "out" / "seed-1").is_dir()
    stopped(requested, 12 + 5)
    recorder = Recorder()
    train(requested, recorder)
    assert recorder.steps[0] == ("seed 2, lr 0.003", 6, 12)
    for seed in ("seed-1", "seed-2"):
        assert weights(tmp_path / "out" / seed) == weights(tmp_path / "whole" / seed)


def test_early_stopping_counts_on_after_a_stop(home: Path, tmp_path: Path, encoder: str) -> None:
    changes: dict[str, Any] = {"learning_rates": (0.3,), "epochs": 10, "patience": 2}
    whole = trained("creak", tmp_path / "whole", encoder, **changes)
    requested = config("creak", tmp_path / "out", encoder, **changes)
    stopped(requested, 30)
    [model] = train(requested)
    assert model.step == whole.step
    assert weights(tmp_path / "out" / "seed-1") == weights(tmp_path / "whole" / "seed-1")


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 2},
        {"epochs": 2, "model_selection": "none"},
        {"learning_rates": (0.3,), "epochs": 10, "patience": 1},
        {"epochs": None, "max_evaluations": 7, "count": 45, "patience": None},
    ],
    ids=["to the end", "no selection", "early", "within an epoch"],
)
def test_killed_after_the_last_step_it_only_saves_the_model(
    home: Path, tmp_path: Path, encoder: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained("creak", tmp_path / "whole", encoder, **changes)
    requested = config("creak", tmp_path / "out", encoder, **changes)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trial, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(requested)
    recorder = Recorder()
    [model] = train(requested, recorder)
    assert recorder.steps == []
    assert weights(tmp_path / "out" / "seed-1") == weights(tmp_path / "whole" / "seed-1")
    assert (model.step, model.selection_score) == (whole.step, whole.selection_score)


def test_killed_while_the_model_is_saved_it_is_saved_again(
    home: Path, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained("creak", tmp_path / "whole", encoder, epochs=1)

    def killed(path: Path, text: str) -> None:
        (path.parent / "model" / "model.safetensors").write_bytes(b"cut")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trial, "replace_file", killed)
        with pytest.raises(KeyboardInterrupt):
            trained("creak", tmp_path / "out", encoder, epochs=1)
    trained("creak", tmp_path / "out", encoder, epochs=1)
    assert weights(tmp_path / "out" / "seed-1") == weights(tmp_path / "whole" / "seed-1")


def test_incomplete_checkpoints_are_skipped(home: Path, tmp_path: Path, encoder: str) -> None:
    trained("creak", tmp_path / "whole", encoder)
    requested = config("creak", tmp_path / "out", encoder)
    stopped(requested, 30)
    best, last = checkpoints(tmp_path / "out")
    assert [best.name, last.name] == ["checkpoint-24", "checkpoint-30"]
    assert last_checkpoint(last.parent) == last
    shutil.copytree(tmp_path / "out", tmp_path / "other")
    (last / trial.COMPLETE).unlink()
    recorder = Recorder()
    train(requested, recorder)
    assert recorder.steps[0][1] == 25
    (tmp_path / "other" / best.relative_to(tmp_path / "out") / trial.COMPLETE).unlink()
    assert last_checkpoint(tmp_path / "other" / last.parent.relative_to(tmp_path / "out")) is None
    train(config("creak", tmp_path / "other", encoder))
    for folder in ("out", "other"):
        assert weights(tmp_path / folder / "seed-1") == weights(tmp_path / "whole" / "seed-1")


@pytest.mark.slow
def test_a_killed_process_resumes_from_its_last_checkpoint(home: Path, tmp_path: Path, encoder: str) -> None:
    changes: dict[str, Any] = {"epochs": 16, "model_selection": "none"}
    trained("creak", tmp_path / "whole", encoder, **changes)
    options = ["--encoder", encoder, "--seeds", 1, "--learning-rates", "3e-3", "--epochs", 16]
    with Live("train", "creak", *options, "--model-selection", "none", "--out", tmp_path / "out") as process:
        process.wait_for(lambda: any(tmp_path.glob(f"out/{TRIALS}/*/*/{trial.COMPLETE}")))
        assert process.stop(signal.SIGKILL).code == -signal.SIGKILL
    recorder = Recorder()
    train(config("creak", tmp_path / "out", encoder, **changes), recorder)
    assert recorder.steps[0][1] > 1
    assert weights(tmp_path / "out" / "seed-1") == weights(tmp_path / "whole" / "seed-1")


def test_a_full_disk_is_one_line_with_75_and_the_training_resumes(
    home: Path, tmp_path: Path, encoder: str
) -> None:
    trained("creak", tmp_path / "whole", encoder, epochs=1)
    limit = (Path(encoder) / "model.safetensors").stat().st_size + 20_000  # the optimizer needs more
    requested = config("creak", tmp_path / "out", encoder, epochs=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(StorageError) as caught:
            train(requested)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 75
    train(requested)
    assert weights(tmp_path / "out" / "seed-1") == weights(tmp_path / "whole" / "seed-1")
