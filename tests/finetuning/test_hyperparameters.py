"""Schedules and names of recipes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.finetuning.hyperparameters import Hyperparameters

PAPER = Hyperparameters(name="paper")


@given(st.integers(1, 100_000))
def test_small_sets_get_20_epochs_and_large_ones_1000_steps_or_3_epochs(rows: int) -> None:
    epoch = -(-rows // 16)
    assert Hyperparameters().steps(rows) == (20 * epoch if rows < 1000 else max(1000, 3 * epoch))


def test_the_papers_recipe() -> None:
    assert PAPER.learning_rates == (5e-6, 1e-5, 2e-5)
    assert (PAPER.batch_size, PAPER.epochs, PAPER.warmup, PAPER.weight_decay) == (64, 10, 100, 0.01)
    assert PAPER.steps(160) == 30
    assert (PAPER.max_length, PAPER.max_evaluations, PAPER.patience) == (256, None, None)


def test_the_description_has_what_was_changed() -> None:
    assert PAPER.description == "paper"
    assert PAPER.model_copy(update={"epochs": 3}).description == "paper, epochs=3"
    usual = Hyperparameters(learning_rates=(2e-5,))
    assert usual.description == "datacreate, lr 2e-05"
    assert usual.model_copy(update={"soft_labels": True}).description == usual.description
    changed = usual.model_copy(update={"lora": True, "batch_size": 8})
    assert changed.description == "datacreate, lr 2e-05, batch_size=8, lora"
    assert Hyperparameters(name="paper", epochs=3).description == "paper, epochs=3"


@pytest.mark.parametrize(
    ("family", "hidden_size", "rate"),
    [
        ("bert", 384, 1e-4),
        ("roberta", 768, 2e-5),
        ("roberta", 1024, 1e-5),
        ("deberta-v2", 1024, 1e-5),
        ("modernbert", 768, 5e-5),
        ("modernbert", 1024, 3e-5),
        ("unknown", None, 2e-5),
    ],
)
def test_the_learning_rate_suits_the_encoder(family: str, hidden_size: int | None, rate: float) -> None:
    config = {"model_type": family, "hidden_size": hidden_size}
    assert Hyperparameters().for_encoder(config).learning_rates == (rate,)
    assert Hyperparameters(lora=True).for_encoder(config).learning_rates == (10 * rate,)
    assert Hyperparameters(learning_rates=(3e-3,)).for_encoder(config).learning_rates == (3e-3,)
