"""Stopped, killed, damaged: the same call goes on and gives what an uninterrupted one gives."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datacreate import locking
from datacreate.errors import LockLost, Stopped, StorageError
from datacreate.finetuning import trial
from datacreate.finetuning.directory import TRIALS
from datacreate.finetuning.evaluate import evaluate
from datacreate.finetuning.record import read_predictions
from datacreate.finetuning.resume import last_checkpoint
from datacreate.finetuning.settings import Lora
from datacreate.finetuning.train import TrainConfig, train
from tests.finetuning.training import Heard, config, trained, weights
from tests.locks import write_record
from tests.process import Live


def interrupt(number: int = signal.SIGTERM) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def stopped(asked: TrainConfig, step: int, number: int = signal.SIGTERM) -> str:
    """Begin a training, stop it by a signal after so many steps, and return what was said."""
    with pytest.raises(Stopped) as caught:
        train(asked, Heard(stop_at=step, at_step=interrupt(number)))
    assert caught.value.exit_code == 75
    return str(caught.value)


def checkpoints(out: Path) -> list[Path]:
    found = (out / TRIALS).glob("*/checkpoint-*")
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def test_a_training_that_is_taken_over_stops_with_75_and_saves_nothing(
    home: Path, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "BEAT_SECONDS", 0.0)
    asked = config("creak", tmp_path / "out", encoder)
    seen: list[str] = []

    def taken_over() -> None:
        write_record(tmp_path / "out")
        seen.extend(files(tmp_path / "out"))

    with pytest.raises(LockLost, match="taken over by process 7 on node7") as caught:
        train(asked, Heard(stop_at=10, at_step=taken_over))
    assert caught.value.exit_code == 75
    assert files(tmp_path / "out") == seen


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("benchmark", "lora"), [("csqa", Lora(rank=4)), ("creak", None)], ids=["lora", "full"]
)
def test_a_stopped_training_goes_on_to_the_same_result(
    home: Path, tmp_path: Path, encoder: str, benchmark: str, lora: Lora | None
) -> None:
    whole = trained(benchmark, tmp_path / "whole", encoder, lora=lora)
    asked = config(benchmark, tmp_path / "out", encoder, lora=lora)
    for more in (17, 14):  # in the middle of a pass, twice
        before = checkpoints(tmp_path / "out")
        said = stopped(asked, more)
        assert "run the same command to resume" in said
        assert len(checkpoints(tmp_path / "out")) >= len(before)
    assert "at step 31 of 48" in said
    heard = Heard()
    [model] = train(asked, heard)
    assert heard.steps[0][1] == 32
    assert weights(tmp_path / "out" / "seed-1") == weights(tmp_path / "whole" / "seed-1")
    same = {"step", "steps", "selection_score", "learning_rate"}
    assert model.model_dump(include=same) == whole.model_dump(include=same)
    for folder in ("out", "whole"):
        evaluate(tmp_path / folder / "seed-1", [benchmark])
    place = Path("seed-1") / "evaluations" / f"{benchmark}-test"
    assert read_predictions(tmp_path / "out" / place) == read_predictions(tmp_path / "whole" / place)


def test_a_stop_long_after_the_best_step_goes_on_from_where_it_stopped(
    home: Path, tmp_path: Path, encoder: str
) -> None:
    # The learning rate is so high that the first checks are the best.
    asked = config("creak", tmp_path / "out", encoder, learning_rates=(0.3,), epochs=8, patience=None)
    stopped(asked, 80)
    heard = Heard()
    train(asked, heard)
    assert heard.steps[0][1] == 81


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_stop_it(home: Path, tmp_path: Path, encoder: str, number: int) -> None:
    asked = config("creak", tmp_path / "out", encoder)
    assert "stopped by a signal after step 5 of 48" in stopped(asked, 5, number)


def test_a_signal_between_seeds_leaves_the_finished_ones(home: Path, tmp_path: Path, encoder: str) -> None:
    asked = config("creak", tmp_path / "out", encoder, epochs=1, seeds=(1, 2))
    stopped(asked, 12)  # in the last step of the first
    first = weights(tmp_path / "out" / "seed-1")
    heard = Heard()
    train(asked, heard)
    assert {what for what, *_ in heard.steps} == {"seed 2"}
    assert weights(tmp_path / "out" / "seed-1") == first


def test_a_grid_goes_on_with_the_rate_it_was_at(home: Path, tmp_path: Path, encoder: str) -> None:
    rates = (1e-3, 3e-3)
    trained("creak", tmp_path / "whole", encoder, learning_rates=rates, epochs=2)
    asked = config("creak", tmp_path / "out", encoder, learning_rates=rates, epochs=2)
    stopped(asked, 24 + 5)
    heard = Heard()
    train(asked, heard)
    assert {what for what, *_ in heard.steps} == {"seed 1, lr 0.003"}
    assert heard.steps[0][1] == 6
    assert weights(tmp_path / "out" / "seed-1") == weights(tmp_path / "whole" / "seed-1")


def test_early_stopping_counts_on_over_a_stop(home: Path, tmp_path: Path, encoder: str) -> None:
    changes: dict[str, Any] = {"learning_rates": (0.3,), "epochs": 10, "patience": 2}
    whole = trained("creak", tmp_path / "whole", encoder, **changes)
    asked = config("creak", tmp_path / "out", encoder, **changes)
    stopped(asked, 30)
    [model] = train(asked)
    assert model.step == whole.step
    assert weights(tmp_path / "out" / "seed-1") == weights(tmp_path / "whole" / "seed-1")


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 2},
        {"epochs": 2, "model_selection": "none"},
        {"learning_rates": (0.3,), "epochs": 10, "patience": 1},
        {"epochs": None, "checks": 7, "count": 45, "patience": None},
    ],
    ids=["to the end", "nothing chosen", "early", "in the middle of a pass"],
)
def test_killed_after_the_last_step_only_the_model_is_made(
    home: Path, tmp_path: Path, encoder: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained("creak", tmp_path / "whole", encoder, **changes)
    asked = config("creak", tmp_path / "out", encoder, **changes)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trial, "without_lora", killed)
        with pytest.raises(KeyboardInterrupt):
            train(asked)
    assert not (tmp_path / "out" / "seed-1").exists()
    heard = Heard()
    [model] = train(asked, heard)
    assert heard.steps == []
    assert weights(tmp_path / "out" / "seed-1") == weights(tmp_path / "whole" / "seed-1")
    assert (model.step, model.selection_score) == (whole.step, whole.selection_score)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut weights": lambda checkpoint: cut(checkpoint / "model.safetensors"),
    "no weights": lambda checkpoint: (checkpoint / "model.safetensors").unlink(),
    "cut optimizer": lambda checkpoint: cut(checkpoint / "optimizer.pt"),
    "no scheduler": lambda checkpoint: (checkpoint / "scheduler.pt").unlink(),
    "no state": lambda checkpoint: (checkpoint / "trainer_state.json").unlink(),
    "cut state": lambda checkpoint: cut(checkpoint / "trainer_state.json"),
    "no random state": lambda checkpoint: (checkpoint / "rng_state.pth").unlink(),
    "empty": empty,
}


@pytest.fixture(scope="module")
def halfway(
    shared_home: Path, encoder: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainConfig]:
    """A training that stopped at step 30, and one that did not."""
    folder = tmp_path_factory.mktemp("halfway")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATACREATE_HOME", str(shared_home))
        trained("creak", folder / "whole", encoder)
        asked = config("creak", folder / "out", encoder)
        stopped(asked, 30)
    return folder, asked


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_known(
    tmp_path: Path, halfway: tuple[Path, TrainConfig], damage: str
) -> None:
    folder, _ = halfway
    shutil.copytree(folder / "out", tmp_path / "out")
    before, last = checkpoints(tmp_path / "out")
    assert [before.name, last.name] == ["checkpoint-24", "checkpoint-30"]
    assert last_checkpoint(last.parent) == last
    DAMAGE[damage](last)
    assert last_checkpoint(last.parent) == before


def test_a_damaged_checkpoint_is_passed_over(
    home: Path, tmp_path: Path, halfway: tuple[Path, TrainConfig]
) -> None:
    folder, asked = halfway
    shutil.copytree(folder / "out", tmp_path / "out")
    cut(checkpoints(tmp_path / "out")[-1] / "model.safetensors")
    heard = Heard()
    train(config("creak", tmp_path / "out", asked.encoder), heard)
    assert heard.steps[0][1] == 25
    assert weights(tmp_path / "out" / "seed-1") == weights(folder / "whole" / "seed-1")


def test_where_the_best_checkpoint_is_damaged_it_begins_anew(
    home: Path, tmp_path: Path, halfway: tuple[Path, TrainConfig]
) -> None:
    folder, asked = halfway
    shutil.copytree(folder / "out", tmp_path / "out")
    best, _ = checkpoints(tmp_path / "out")
    cut(best / "model.safetensors")
    heard = Heard()
    train(config("creak", tmp_path / "out", asked.encoder), heard)
    assert heard.steps[0][1] == 1
    assert weights(tmp_path / "out" / "seed-1") == weights(folder / "whole" / "seed-1")


@pytest.mark.slow
def test_a_killed_process_costs_what_came_after_its_last_checkpoint(
    home: Path, tmp_path: Path, encoder: str
) -> None:
    changes: dict[str, Any] = {"epochs": 16, "model_selection": "none"}
    trained("creak", tmp_path / "whole", encoder, **changes)
    told = ["--encoder", encoder, "--seeds", 1, "--learning-rates", "3e-3", "--epochs", 16]
    with Live("train", "creak", *told, "--model-selection", "none", "--out", tmp_path / "out") as process:
        process.wait_for(lambda: len(checkpoints(tmp_path / "out")) > 1)  # so one of them is whole
        assert process.stop(signal.SIGKILL).code == -signal.SIGKILL
    heard = Heard()
    train(config("creak", tmp_path / "out", encoder, **changes), heard)
    assert heard.steps[0][1] > 1
    assert weights(tmp_path / "out" / "seed-1") == weights(tmp_path / "whole" / "seed-1")


def test_a_full_disk_is_one_line_with_75_and_the_training_goes_on(
    home: Path, tmp_path: Path, encoder: str
) -> None:
    trained("creak", tmp_path / "whole", encoder, epochs=1)
    limit = (Path(encoder) / "model.safetensors").stat().st_size + 20_000  # the optimizer needs more
    asked = config("creak", tmp_path / "out", encoder, epochs=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(StorageError) as caught:
            train(asked)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 75
    train(asked)
    assert weights(tmp_path / "out" / "seed-1") == weights(tmp_path / "whole" / "seed-1")


def test_killed_while_the_model_is_saved_it_is_saved_again(
    home: Path, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained("creak", tmp_path / "whole", encoder, epochs=1)
    asked = config("creak", tmp_path / "out", encoder, epochs=1)

    def killed(path: Path, text: str) -> None:
        cut(path.parent / "model" / "model.safetensors")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trial, "replace_file", killed)
        with pytest.raises(KeyboardInterrupt):
            train(asked)
    train(asked)
    assert weights(tmp_path / "out" / "seed-1") == weights(tmp_path / "whole" / "seed-1")


def test_what_a_kill_left_of_a_finished_seed_is_cleared_away(
    home: Path, tmp_path: Path, encoder: str
) -> None:
    asked = config("creak", tmp_path / "out", encoder, epochs=1)
    train(asked)
    left = tmp_path / "out" / TRIALS / "seed-1-lr-0.001" / "checkpoint-12"
    left.mkdir(parents=True)
    train(asked)
    assert not (tmp_path / "out" / TRIALS).exists()
