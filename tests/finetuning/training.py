"""What the tests of training share: quick settings, and how to look at a model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from datacreate.finetuning.directory import Model
from datacreate.finetuning.settings import Settings
from datacreate.finetuning.train import TrainConfig, train

QUICK: dict[str, Any] = {"learning_rates": (3e-3,), "epochs": 4}


def config(source: object, out: Path, encoder: str, **changes: Any) -> TrainConfig:
    """The training most tests start from; what is no word of TrainConfig's goes into its settings."""
    told = {name: changes.pop(name) for name in list(changes) if name in TrainConfig.__dataclass_fields__}
    settings = told.pop("settings", None) or Settings(**QUICK | changes)
    sources = tuple(map(str, source)) if isinstance(source, list) else (str(source),)
    return TrainConfig(sources=sources, out=out, encoder=encoder, settings=settings, **told)


def trained(source: object, out: Path, encoder: str, **changes: Any) -> Model:
    """The model of a training with one seed."""
    [model] = train(config(source, out, encoder, **changes))
    return model


def weights(folder: Path) -> str:
    """The hash of a model's weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


class Heard:
    """A `Progress` that remembers; `at_step` is called after so many steps in all."""

    def __init__(self, stop_at: int | None = None, at_step: Any = None) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[str, int, int]] = []
        self._stop_at, self._at_step = stop_at, at_step

    def notify(self, text: str) -> None:
        self.notes.append(text)

    def step(self, what: str, done: int, total: int, score: float | None) -> None:
        self.steps.append((what, done, total))
        if len(self.steps) == self._stop_at:
            self._at_step()
