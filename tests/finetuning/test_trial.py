"""One trial: its gradients and batches, and what is kept after an interruption."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from datacreate import locking
from datacreate.errors import LockLost, Stopped, StorageError
from datacreate.finetuning.encoder import load_with_head
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.train import TrainConfig, train
from datacreate.finetuning.training_rows import make_training_set
from datacreate.finetuning.trials import make_trainer
from tests.finetuning.conftest import save_encoder
from tests.finetuning.sets import choices, claims, source_of, write_rows
from tests.finetuning.training import Recorder, config, inputs_of, trained, weights
from tests.support.faults import forked, killed
from tests.support.locks import write_record


@pytest.mark.parametrize(
    ("family", "head", "soft"),
    [("roberta", "options", True), ("roberta", "labels", False), ("modernbert", "labels", True)],
)
def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path, family: str, head: str, soft: bool) -> None:
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if family == "roberta" else {}
    encoder = save_encoder(tmp_path / "encoder", family, **off)
    whole, accumulated = (_gradients(encoder, tmp_path, head, soft, rows) for rows in (8, 3))
    assert whole.norm() > 0
    assert (accumulated - whole).norm() < 0.06 * whole.norm()  # 0.04 on CPUs with bfloat16


def _gradients(encoder: Path, folder: Path, head: str, soft: bool, device_batch_size: int) -> Any:
    """The gradient of one training step of eight rows, before clipping, as one vector."""
    from transformers import TrainerCallback, set_seed

    found: list[Any] = []

    class Look(TrainerCallback):  # type: ignore[misc]
        def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            found.append(torch.cat([weight.grad.flatten().float() for weight in model.parameters()]))

    rows = choices(8, 3) if head == "options" else claims(8)
    format_name = "multiple_choice" if head == "options" else "yes_no_closed_book"
    soft_labels = [(0.5, 0.2, 0.3) if head == "options" else (0.4, 0.6)] * 8 if soft else None
    source = source_of(rows, format_name, soft_labels)
    hyperparameters = Hyperparameters(batch_size=8, epochs=1, soft_labels=soft)
    inputs = inputs_of(encoder, make_training_set([source]), hyperparameters, device_batch_size)
    set_seed(1)
    trainer = make_trainer(inputs, load_with_head(encoder, inputs.training.head), 1, 1e-3, folder)
    trainer.args.max_grad_norm = 0
    trainer.add_callback(Look())
    trainer.train()
    [gradient] = found
    return gradient


@pytest.mark.parametrize(("batch", "device_batch", "per_pass"), [(16, 16, 16), (64, 16, 16), (17, 16, 1), (20, 16, 10)])
def test_a_step_has_the_batch_size_and_no_copies_of_the_model_on_a_machine_with_four_gpus(
    tmp_path: Path, encoder: str, batch: int, device_batch: int, per_pass: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import TrainingArguments

    real = vars(TrainingArguments)["_setup_devices"]
    set_up = real.func

    def on_four_gpus(arguments: TrainingArguments) -> Any:
        found = set_up(arguments)
        arguments._n_gpu = 4
        return found

    monkeypatch.setattr(real, "func", on_four_gpus)
    rows = make_training_set([source_of(claims(8), "yes_no_closed_book")])
    inputs = inputs_of(Path(encoder), rows, Hyperparameters(batch_size=batch), device_batch)
    model = load_with_head(Path(encoder), inputs.training.head)
    trainer = make_trainer(inputs, model, 1, 1e-3, tmp_path)
    assert trainer.args.train_batch_size == per_pass
    assert per_pass * trainer.args.gradient_accumulation_steps == batch
    assert type(trainer._wrap_model(model)) is type(model)


def stopped(requested: TrainConfig, step: int, number: int = signal.SIGTERM) -> None:
    """Start a training, and stop it by a signal after that many steps."""
    with pytest.raises(Stopped, match="stopped by a signal; run the same command to resume") as caught:
        train(requested, Recorder(step, lambda: os.kill(os.getpid(), number)))
    assert caught.value.exit_code == 75


def test_a_training_that_loses_its_lock_stops_with_75_and_writes_nothing(
    home: Path, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "HEARTBEAT_SECONDS", 0.0)
    seen: list[Path] = []

    def taken_over() -> None:
        write_record(tmp_path / "out")
        seen.extend((tmp_path / "out").rglob("*"))

    with pytest.raises(LockLost, match="taken over by process 7 on node7") as caught:
        train(config("creak", tmp_path / "out", encoder), Recorder(10, taken_over))
    assert caught.value.exit_code == 75
    assert sorted((tmp_path / "out").rglob("*")) == sorted(seen)


def test_finished_trials_are_kept_and_an_interrupted_one_starts_again(home: Path, tmp_path: Path, encoder: str) -> None:
    changes: dict[str, Any] = {"learning_rates": (1e-3, 3e-3), "epochs": 1, "seeds": (1, 2)}
    train(config("creak", tmp_path / "whole", encoder, **changes))
    requested = config("creak", tmp_path / "out", encoder, **changes)
    stopped(requested, 24 + 3, signal.SIGINT)  # 12 steps each: in the first trial of the second seed
    assert (tmp_path / "out" / "seed-1").is_dir()
    stopped(requested, 12 + 5)
    recorder = Recorder()
    train(requested, recorder)
    assert recorder.steps[0] == ("seed 2, lr 0.003", 1, 12)
    for seed in ("seed-1", "seed-2"):
        assert weights(tmp_path / "out" / seed) == weights(tmp_path / "whole" / seed)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"training.json", "seed-1", "seed-2"}


KILLS = {
    "the settings are written": ("os.rename", "/training.json"),
    "the best model so far is written": ("open", "checkpoint-3/trainer_state.json"),
    "the model is written": ("open", "model/tokenizer_config.json"),
    "the model is marked": ("os.rename", "model/model.json"),
    "the model is moved": ("os.rename", "out/seed-1"),
    "the trial is removed": ("shutil.rmtree", "lr-0.003"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, encoder: str) -> TrainConfig:
    """A training that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    rows = write_rows(folder / "rows.jsonl", claims(48))
    requested = config(rows, folder / "out", encoder, epochs=3, patience=None)
    train(requested)
    return requested


@pytest.mark.parametrize("moment", KILLS)
def test_a_training_killed_at_any_moment_is_repeated_to_the_same_result(
    whole: TrainConfig, tmp_path: Path, moment: str
) -> None:
    kind, ending = KILLS[moment]
    requested = whole.model_copy(update={"out": tmp_path / "out"})

    def kill(event: str, path: str) -> None:
        if event == kind and path.endswith(ending):
            killed()

    assert forked(lambda: len(train(requested)), kill) == 9
    train(requested)
    assert weights(tmp_path / "out" / "seed-1") == weights(whole.out / "seed-1")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"training.json", "seed-1"}


def test_a_full_disk_is_one_line_with_75(home: Path, tmp_path: Path, encoder: str) -> None:
    limit = (Path(encoder) / "model.safetensors").stat().st_size - 20_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(StorageError) as caught:
            trained("creak", tmp_path / "out", encoder, epochs=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 75
