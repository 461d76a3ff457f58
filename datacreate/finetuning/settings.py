"""How an encoder is trained: our settings, and the paper's."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from datacreate.checkpoints import sources_of
from datacreate.errors import CheckpointError
from datacreate.finetuning.record import Record

LEARNING_RATE = 2e-5
"""Where the encoder's preset names none."""

FIXED_EPOCHS = 20
"""Passes over a set of fewer than SMALL_SET rows."""

SMALL_SET = 1_000

LEAST_STEPS = 1_000
LEAST_EPOCHS = 3
"""A larger set is seen for this many passes, and for LEAST_STEPS at least."""


Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Lora(Record):
    """A low-rank adapter on every linear layer of the encoder (Hu et al., 2021), merged at the end."""

    rank: int = Field(default=16, gt=0)
    alpha: int = Field(default=32, gt=0)
    dropout: float = Field(default=0.05, ge=0, lt=1)


_USUAL_LORA = Lora()


class Settings(Record):
    """Everything that decides a training besides rows, encoder and seed.

    The paper trains for 10 epochs with 100 warm-up steps, whatever the size: WinoGrande's 160 rows
    get 20 steps in all. Ours trains small sets on a fixed schedule and large ones for 1,000 steps or more.
    """

    name: Literal["datacreate", "paper"] = "datacreate"
    learning_rates: tuple[Rate, ...] = Field(default=(LEARNING_RATE,), min_length=1)  # tried in turn
    batch_size: int = Field(default=16, gt=0)  # rows a step, all devices together
    epochs: int | None = Field(default=None, gt=0)  # None: by the size of the set
    warmup_share: float = Field(default=0.1, ge=0, le=1)  # of all steps
    warmup_steps: int | None = Field(default=None, ge=0)  # in the place of a share
    weight_decay: float = Field(default=0.01, ge=0)
    max_length: int | None = Field(default=None, gt=1)  # tokens; None: 512 with a passage, else 256
    show_context: bool = True  # whether multiple choice sees the passage of a question that has one
    checks: int | None = Field(default=10, gt=0)  # how often the model is judged; None: after each epoch
    patience: int | None = Field(default=5, gt=0)  # checks without a better model before it stops
    lora: Lora | None = None
    soft_labels: bool = False  # a verifier's probabilities are learned, where a row has them

    def steps(self, rows: int) -> int:
        """Optimiser steps for so many rows."""
        a_pass = math.ceil(rows / self.batch_size)
        if self.epochs is not None:
            return self.epochs * a_pass
        return FIXED_EPOCHS * a_pass if rows < SMALL_SET else max(LEAST_STEPS, LEAST_EPOCHS * a_pass)

    def tokens(self, with_passage: bool) -> int:
        """The longest input, before the encoder's own limit."""
        return self.max_length or (512 if with_passage else 256)

    @property
    def described(self) -> str:
        """The name that reports group by: what was changed is said. Soft labels name the arm instead."""
        usual = PAPER if self.name == "paper" else Settings(learning_rates=self.learning_rates)
        rates = (
            [] if self.name == "paper" else [f"lr {'/'.join(f'{rate:g}' for rate in self.learning_rates)}"]
        )
        changed = [
            f"{field}={getattr(self, field)}"
            for field in Settings.model_fields
            if field not in ("name", "lora", "soft_labels") and getattr(self, field) != getattr(usual, field)
        ]
        lora = []
        if self.lora:
            odd = [f"{name}={value:g}" for name, value in self.lora if value != getattr(_USUAL_LORA, name)]
            lora = [" ".join(["lora", *odd])]
        return ", ".join([self.name, *lora, *rates, *changed])


PAPER = Settings(
    name="paper",
    learning_rates=(5e-6, 1e-5, 2e-5),
    batch_size=64,  # 4 rows, accumulated 16 times
    epochs=10,
    warmup_steps=100,
    max_length=256,
    show_context=False,
    checks=None,
    patience=None,
)
"""As the reference implementation trains; the best epoch by accuracy on the human dev split."""


LORA_TIMES = 10
"""Adapters begin at zero and are few: they want a rate so many times that of all weights."""


def usual_settings(encoder: str, *, lora: bool = False) -> Settings:
    """Ours, with the learning rate that the encoder's preset names, for all weights or for adapters."""
    try:
        preset, _ = sources_of(encoder)
    except CheckpointError:  # a folder of the user's own
        preset = None
    named = preset.learning_rate if preset else None
    return Settings(learning_rates=((named or LEARNING_RATE) * (LORA_TIMES if lora else 1),))
