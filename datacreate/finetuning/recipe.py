"""How an encoder is trained: the default recipe, and the paper's."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from datacreate.checkpoints import find_preset
from datacreate.errors import CheckpointError

LEARNING_RATE = 2e-5
"""For encoders without a preset."""

LORA_FACTOR = 10
"""Adapters start at zero and are few: their learning rate is this many times the encoder's."""

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Lora(BaseModel):
    """A low-rank adapter on every linear layer (Hu et al., 2021), merged into the weights at the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=16, gt=0)
    alpha: int = Field(default=32, gt=0)
    dropout: float = Field(default=0.05, ge=0, lt=1)


class Recipe(BaseModel):
    """All hyperparameters of a training except rows, encoder and seed.

    The paper trains 10 epochs with 100 warm-up steps at any size, so WinoGrande's 160 rows get 30 steps.
    The default recipe trains sets below 1,000 rows for 20 epochs, and larger ones for at least 1,000
    steps and 3 epochs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["datacreate", "paper"] = "datacreate"
    learning_rates: tuple[Rate, ...] = Field(default=(LEARNING_RATE,), min_length=1)  # the best one is kept
    batch_size: int = Field(default=16, gt=0)  # rows per optimizer step
    epochs: int | None = Field(default=None, gt=0)  # None: by the number of rows
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)  # of all steps
    warmup_steps: int | None = Field(default=None, ge=0)  # overrides warmup_ratio
    weight_decay: float = Field(default=0.01, ge=0)
    max_length: int | None = Field(default=None, gt=1)  # tokens; None: 512 with a passage, else 256
    show_context: bool = True  # whether multiple choice sees the passage of a question that has one
    max_evaluations: int | None = Field(default=10, gt=0)  # on the selection rows; None: one per epoch
    patience: int | None = Field(default=5, gt=0)  # evaluations without improvement before early stopping
    lora: Lora | None = None
    soft_labels: bool = False  # train on the verifier's probabilities where a row has them

    def steps(self, rows: int) -> int:
        """Optimizer steps for that many rows."""
        epoch = math.ceil(rows / self.batch_size)
        if self.epochs is not None:
            return self.epochs * epoch
        return 20 * epoch if rows < 1_000 else max(1_000, 3 * epoch)

    def input_tokens(self, with_passage: bool) -> int:
        """Longest input in tokens, before the encoder's own limit."""
        return self.max_length or (512 if with_passage else 256)

    @property
    def description(self) -> str:
        """Name and changed values, by which reports group. Soft labels are part of the condition instead."""
        base = PAPER if self.name == "paper" else Recipe(learning_rates=self.learning_rates)
        parts: list[str] = [self.name]
        if self.lora:
            default = Lora()
            changes = [f"{key}={value:g}" for key, value in self.lora if value != getattr(default, key)]
            parts.append(" ".join(["lora", *changes]))
        if self.name != "paper":
            parts.append(f"lr {'/'.join(f'{rate:g}' for rate in self.learning_rates)}")
        named = ("name", "lora", "soft_labels")
        parts += [f"{k}={v}" for k, v in self if k not in named and v != getattr(base, k)]
        return ", ".join(parts)


PAPER = Recipe(
    name="paper",
    learning_rates=(5e-6, 1e-5, 2e-5),
    batch_size=64,
    epochs=10,
    warmup_steps=100,
    max_length=256,
    show_context=False,
    max_evaluations=None,
    patience=None,
)
"""The reference implementation: the best epoch by accuracy on the human dev split."""


def default_recipe(encoder: str, *, lora: bool = False) -> Recipe:
    """The default recipe with the learning rate of the encoder's preset, scaled up for adapters."""
    try:
        rate = find_preset(encoder).learning_rate or LEARNING_RATE
    except CheckpointError:  # a folder without a preset
        rate = LEARNING_RATE
    return Recipe(learning_rates=(rate * (LORA_FACTOR if lora else 1),))
