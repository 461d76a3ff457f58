"""How long is trained, and what settings are called in a report."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from datacreate.finetuning.recipe import PAPER, Lora, Recipe, default_recipe


def test_a_small_set_has_a_fixed_schedule_and_a_large_one_a_thousand_steps_or_three_passes() -> None:
    usual = Recipe()
    assert usual.steps(160) == 20 * 10
    assert usual.steps(999) == 20 * 63
    assert usual.steps(1000) == 1000
    assert usual.steps(16_000) == 3000


@given(st.integers(1, 100_000))
def test_at_least_a_thousand_steps_or_twenty_passes(rows: int) -> None:
    usual = Recipe()
    assert usual.steps(rows) >= min(1000, 20 * -(-rows // 16))


def test_the_papers_settings_are_its_own() -> None:
    assert PAPER.learning_rates == (5e-6, 1e-5, 2e-5)
    assert (PAPER.batch_size, PAPER.epochs, PAPER.warmup_steps, PAPER.weight_decay) == (64, 10, 100, 0.01)
    assert PAPER.tokens(True) == PAPER.tokens(False) == 256
    assert PAPER.steps(160) == 30
    assert (PAPER.max_evaluations, PAPER.patience, PAPER.show_context) == (None, None, False)


def test_passages_get_512_tokens() -> None:
    assert Recipe().tokens(True) == 512
    assert Recipe().tokens(False) == 256
    assert Recipe(max_length=100).tokens(True) == 100


def test_what_was_changed_is_part_of_the_name() -> None:
    assert PAPER.description == "paper"
    assert PAPER.model_copy(update={"epochs": 3}).description == "paper, epochs=3"
    assert Recipe().description == "datacreate, lr 2e-05"
    assert Recipe(lora=Lora(), batch_size=8).description == "datacreate, lora, lr 2e-05, batch_size=8"
    assert Recipe(lora=Lora(rank=4, alpha=8)).description == "datacreate, lora rank=4 alpha=8, lr 2e-05"


def test_the_learning_rate_is_the_encoders_own() -> None:
    assert default_recipe("all-minilm-l6-v2").learning_rates == (1e-4,)
    assert default_recipe("/some/folder").learning_rates == (2e-5,)
    assert default_recipe("/some/folder", lora=True).learning_rates == (2e-4,)


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rates": ()},
        {"learning_rates": (0.0,)},
        {"learning_rates": (float("nan"),)},
        {"batch_size": 0},
        {"epochs": 0},
        {"max_length": 1},
        {"epoch": 3},
    ],
)
def test_settings_that_train_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate(wrong)
