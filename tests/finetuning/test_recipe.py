"""Schedules and names of recipes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from datacreate.finetuning.recipe import PAPER, Recipe, make_recipe


@given(st.integers(1, 100_000))
def test_small_sets_get_20_epochs_and_large_ones_1000_steps_or_3_epochs(rows: int) -> None:
    epoch = -(-rows // 16)
    assert Recipe().steps(rows) == (20 * epoch if rows < 1000 else max(1000, 3 * epoch))


def test_the_papers_recipe() -> None:
    assert PAPER.learning_rates == (5e-6, 1e-5, 2e-5)
    assert (PAPER.batch_size, PAPER.epochs, PAPER.warmup_steps, PAPER.weight_decay) == (64, 10, 100, 0.01)
    assert PAPER.input_tokens(True) == PAPER.input_tokens(False) == 256
    assert PAPER.steps(160) == 30
    assert (PAPER.max_evaluations, PAPER.patience, PAPER.show_context) == (None, None, False)


def test_the_description_has_what_was_changed() -> None:
    assert PAPER.description == "paper"
    assert PAPER.model_copy(update={"epochs": 3}).description == "paper, epochs=3"
    assert Recipe().description == Recipe(soft_labels=True).description == "datacreate, lr 2e-05"
    assert Recipe(lora=True, batch_size=8).description == "datacreate, lr 2e-05, batch_size=8, lora"
    assert Recipe(lora=True, lora_rank=4).description == "datacreate, lr 2e-05, lora, lora_rank=4"


def test_the_learning_rate_is_the_encoders() -> None:
    assert make_recipe("all-minilm-l6-v2").learning_rates == (1e-4,)
    assert make_recipe("/some/folder").learning_rates == (2e-5,)
    assert make_recipe("/some/folder", lora=True).learning_rates == (2e-4,)
    assert make_recipe("/some/folder", name="paper", epochs=3).description == "paper, epochs=3"


@pytest.mark.parametrize(
    "wrong", [{"learning_rates": ()}, {"learning_rates": (float("nan"),)}, {"epochs": 0}, {"epoch": 3}]
)
def test_impossible_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate(wrong)
