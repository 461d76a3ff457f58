"""Hyperparameters of a training, by `train --recipe`: the defaults, and those of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from datacreate.settings import CommaList, OrOff, Settings, setting

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]

_SMALL_SIZE, _BASE_SIZE, _LARGE_SIZE = (384, 768, 1024)  # hidden sizes of encoders, by which learning rates differ

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "datacreate": {},
    "paper": {
        "learning_rates": (5e-6, 1e-5, 2e-5),
        "batch_size": 64,
        "epochs": 10,
        "warmup": 100,
        "max_length": 256,
        "max_evaluations": None,
        "patience": None,
    },
}
"""Name in `--recipe` -> the values that differ from the defaults of `Hyperparameters`.

`paper` has those of the reference implementation of Lee et al. (2023). It also keeps the epoch with the best accuracy
on the human dev split, where the defaults keep the checkpoint with the best score on a tenth of the rows.
"""


class Hyperparameters(Settings):
    """How an encoder is trained: everything but its rows and its seed."""

    name: Literal["datacreate", "paper"] = setting(
        "Hyperparameters; paper: those of the reference implementation.",
        "training",
        default="datacreate",
        flag="--recipe",
    )
    learning_rates: Annotated[tuple[Rate, ...], CommaList] = setting(
        "Learning rates; the best one of each seed is kept.",
        "training",
        default=(),
        metavar="RATE,...",
        shown_default="by the encoder's family and size",
    )
    batch_size: Count = setting("Rows per optimizer step.", "training", default=16)
    epochs: Count | None = setting("Passes over the rows.", "training", shown_default="by the number of rows")
    warmup: float = setting("Warm-up steps; below 1 a share of all steps.", "training", default=0.1, ge=0)
    weight_decay: float = setting("Weight decay.", "training", default=0.01, ge=0)
    max_length: Annotated[int, Field(gt=1)] | None = setting(
        "Longest input in tokens.", "training", shown_default="512 with a passage, else 256"
    )
    max_evaluations: Annotated[Count | None, OrOff] = setting(
        "Evaluations on the validation rows; off: one per epoch.", "training", default=10, metavar="N|off"
    )
    patience: Annotated[Count | None, OrOff] = setting(
        "Evaluations without improvement before early stopping.", "training", default=5, metavar="N|off"
    )
    lora: bool = setting("Train low-rank adapters instead of all weights.", "training", default=False)
    soft_labels: bool = setting(
        "Train on the verifier's probabilities where rows have them.", "training", default=False
    )

    @model_validator(mode="before")
    @classmethod
    def _with_recipe(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**RECIPES.get(str(values.get("name")), {}), **values}

    def steps(self, rows: int) -> int:
        """The number of optimizer steps for this many rows.

        Without `epochs`, fewer than 1,000 rows get 20 epochs, and more get 3 epochs and at least 1,000 steps.
        """
        steps_per_epoch = math.ceil(rows / self.batch_size)
        if self.epochs is not None:
            return self.epochs * steps_per_epoch
        return 20 * steps_per_epoch if rows < 1_000 else max(1_000, 3 * steps_per_epoch)

    def for_encoder(self, config: Mapping[str, Any]) -> Self:
        """A copy with the learning rate that suits an encoder, unless rates are given; `config` is its config.json.

        Larger encoders need smaller rates. Adapters, which start at zero, need ten times as much.
        """
        if self.learning_rates:
            return self
        hidden_size = int(config.get("hidden_size") or _BASE_SIZE)
        is_large = hidden_size >= _LARGE_SIZE
        if config.get("model_type") == "modernbert":
            rate = 3e-5 if is_large else 5e-5
        elif hidden_size <= _SMALL_SIZE:
            rate = 1e-4
        else:
            rate = 1e-5 if is_large else 2e-5
        return self.model_copy(update={"learning_rates": (rate * (10 if self.lora else 1),)})

    @property
    def description(self) -> str:
        """Name and changed values, by which reports group. Soft labels are left out: the condition names them."""
        defaults, words = Hyperparameters(name=self.name), [str(self.name)]
        for key, value in self:
            if value == getattr(defaults, key) or key == "soft_labels":
                continue
            if key == "learning_rates":
                words.append(f"lr {'/'.join(f'{rate:g}' for rate in self.learning_rates)}")
            else:
                words.append(key if value is True else f"{key}={value}")
        return ", ".join(words)
