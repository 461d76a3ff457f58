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
from datacreate.errors import LockLost, Stopped, StorageError, UnwritablePath
from datacreate.finetuning.encoder import load_with_head
from datacreate.finetuning.evaluate import evaluate
from datacreate.finetuning.recipe import Recipe
from datacreate.finetuning.records import TRIALS, read_predictions
from datacreate.finetuning.rows import Source, training_set
from datacreate.finetuning.train import TrainConfig, train
from datacreate.finetuning.trial import LengthGroupedSampler, make_trainer
from datacreate.formats.task_format import load_format
from tests.faults import OnChange, at, changes_of, forked, killed
from tests.finetuning.conftest import save_encoder
from tests.finetuning.sets import choices, claims, write_rows
from tests.finetuning.training import Recorder, config, inputs_of, trained, weights
from tests.locks import write_record

LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=300)


def epoch(lengths: list[int], batch: int, seed: int, number: int) -> list[int]:
    sampler = LengthGroupedSampler(lengths, batch, seed)
    sampler.set_epoch(number)
    return list(sampler)


@given(LENGTHS, st.integers(1, 32), st.integers(0, 9), st.integers(0, 5))
@example([1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 3, 1], 3, 1, 0)  # the longest is in the incomplete batch
def test_an_epoch_has_every_row_once_and_the_first_begins_with_the_longest_complete_batch(
    lengths: list[int], batch: int, seed: int, number: int
) -> None:
    rows = epoch(lengths, batch, seed, number)
    assert sorted(rows) == list(range(len(lengths)))
    assert rows == epoch(lengths, batch, seed, number)
    shown = [lengths[row] for row in epoch(lengths, batch, seed, 0)]
    complete = shown[: len(shown) - len(shown) % batch]
    assert max(shown[:batch]) == max(complete, default=max(shown[:batch]))


def test_batches_have_similar_lengths_and_come_in_random_order() -> None:
    lengths = [1 + place % 97 for place in range(2000)]
    rows = epoch(lengths, 16, 1, 1)
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
    whole, accumulated = (_gradients(encoder, tmp_path, head, soft, rows) for rows in (8, 3))
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
    soft_labels = [(0.5, 0.2, 0.3) if head == "options" else (0.4, 0.6)] * 8 if soft else None
    source = Source("x", "tree", format, rows, list("abcdefgh"), verifier_probabilities=soft_labels)
    recipe = Recipe(batch_size=8, epochs=1, soft_labels=soft)
    inputs = inputs_of(encoder, training_set([source]), recipe, device_batch_size)
    set_seed(1)
    trainer = make_trainer(inputs, load_with_head(encoder, inputs.training.task), 1, 1e-3, folder)
    trainer.args.max_grad_norm = 0
    trainer.add_callback(Look())
    trainer.train()
    [gradient] = found
    return gradient


@pytest.mark.parametrize(
    ("batch", "device_batch", "per_pass"), [(16, 16, 16), (64, 16, 16), (17, 16, 1), (20, 16, 10), (4, 16, 4)]
)
def test_a_step_has_the_batch_size_whatever_the_number_of_gpus_and_no_copies_of_the_model(
    tmp_path: Path,
    encoder: str,
    batch: int,
    device_batch: int,
    per_pass: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import TrainingArguments

    real = vars(TrainingArguments)["_setup_devices"]

    set_up = real.func

    def on_four_gpus(arguments: TrainingArguments) -> Any:
        found = set_up(arguments)
        arguments._n_gpu = 4
        return found

    monkeypatch.setattr(real, "func", on_four_gpus)
    source = Source("x", "tree", load_format("yes_no_closed_book"), claims(8), list("abcdefgh"))
    inputs = inputs_of(Path(encoder), training_set([source]), Recipe(batch_size=batch), device_batch)
    model = load_with_head(Path(encoder), inputs.training.task)
    trainer = make_trainer(inputs, model, 1, 1e-3, tmp_path)
    assert trainer.args.train_batch_size == per_pass
    assert per_pass * trainer.args.gradient_accumulation_steps == batch
    assert type(trainer._wrap_model(model)) is type(model)


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


KILLS = {
    "the settings are written": ("os.rename", "/training.json"),
    "a checkpoint is written": ("open", "checkpoint-9/trainer_state.json"),
    "a checkpoint is marked": ("os.rename", "checkpoint-9/complete"),
    "the mark of an old checkpoint is removed": ("os.remove", "/complete"),
    "an old checkpoint is removed": ("os.remove", "optimizer.pt"),
    "the model is written": ("open", "model/tokenizer_config.json"),
    "the model is marked": ("os.rename", "model/model.json"),
    "all checkpoints are removed": ("os.remove", "trainer_state.json"),
    "the model is moved": ("os.rename", "out/seed-1"),
    "the trial is removed": ("shutil.rmtree", "lr-0.003"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, encoder: str) -> tuple[TrainConfig, int]:
    """A training with five checkpoints that was not interrupted, and its number of changes of files."""
    folder = tmp_path_factory.mktemp("whole")
    write_rows(folder / "rows.jsonl", claims(48))
    requested = config(folder / "rows.jsonl", folder / "out", encoder, epochs=5, patience=None)
    return requested, changes_of(lambda: train(requested))


def check_killed_training(whole: TrainConfig, out: Path, kill: OnChange) -> None:
    """Kill a training in a process of its own, resume it, and compare the weights."""
    requested = whole.model_copy(update={"out": out})
    assert forked(lambda: len(train(requested)), kill) == 9
    train(requested)
    assert weights(out / "seed-1") == weights(whole.out / "seed-1")
    assert {path.name for path in out.iterdir()} == {"training.json", "seed-1"}


@pytest.mark.parametrize("moment", KILLS)
def test_a_training_killed_at_any_moment_resumes_to_the_same_result(
    whole: tuple[TrainConfig, int], tmp_path: Path, moment: str
) -> None:
    kind, ending = KILLS[moment]

    def kill(event: str, path: str) -> None:
        if event == kind and path.endswith(ending):
            killed()

    check_killed_training(whole[0], tmp_path / "out", kill)


@pytest.mark.slow
def test_a_training_killed_at_each_change_of_a_file_resumes_to_the_same_result(
    whole: tuple[TrainConfig, int], tmp_path: Path
) -> None:
    for number in range(whole[1]):
        check_killed_training(whole[0], tmp_path / str(number), at(number, killed))


def test_links_in_unfinished_models_are_refused(home: Path, tmp_path: Path, encoder: str) -> None:
    requested = config("creak", tmp_path / "out", encoder)
    stopped(requested, 3)
    [checkpoint] = checkpoints(tmp_path / "out")
    victim = shutil.copytree(checkpoint, tmp_path / "victim")
    shutil.rmtree(checkpoint)
    checkpoint.symlink_to(victim)
    before = files(victim)
    with pytest.raises(UnwritablePath, match="a symbolic link is there"):
        train(requested)
    assert files(victim) == before


def test_only_the_last_and_the_best_checkpoint_are_kept(home: Path, tmp_path: Path, encoder: str) -> None:
    most: list[int] = []
    recorder = Recorder(every=lambda: most.append(len(checkpoints(tmp_path / "out"))))
    diverging: dict[str, Any] = {
        "learning_rates": (0.3,),
        "epochs": 8,
        "max_evaluations": None,
        "patience": None,
    }
    train(config("creak", tmp_path / "out", encoder, **diverging), recorder)
    assert (len(most), max(most)) == (96, 2)
    assert checkpoints(tmp_path / "out") == []
    assert len(list((tmp_path / "out").rglob("*.safetensors"))) == 1


def test_a_folder_that_was_moved_resumes_to_the_same_result(home: Path, tmp_path: Path, encoder: str) -> None:
    trained("creak", tmp_path / "whole", encoder)
    stopped(config("creak", tmp_path / "out", encoder), 47)  # the last step, after the best one
    (tmp_path / "out").rename(tmp_path / "moved")
    trained("creak", tmp_path / "moved", encoder)
    assert weights(tmp_path / "moved" / "seed-1") == weights(tmp_path / "whole" / "seed-1")


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
