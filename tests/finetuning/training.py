"""What the tests of training share: short hyperparameters, and how to look at a model."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datacreate.engines.request import Completion, Request
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.records import TrainedModel
from datacreate.finetuning.train import PreparedTraining, TrainConfig, encode_inputs, make_training_spec, train
from datacreate.finetuning.training_rows import TrainingSet
from datacreate.finetuning.trials import TrialInputs
from datacreate.messages import Progress
from tests.finetuning.sets import ASKED, FOODS, TOOLS
from tests.support.scripted import written

SHORT: dict[str, Any] = {"learning_rates": (3e-3,), "epochs": 4}


def config(source: object, out: Path, encoder: str, **changes: Any) -> TrainConfig:
    """A short training with one seed; `changes` are fields of TrainConfig or of its hyperparameters."""
    named = {name: changes.pop(name) for name in list(changes) if name in TrainConfig.model_fields}
    base = {"seeds": (1,), "hyperparameters": Hyperparameters(**SHORT | changes)}
    sources = tuple(map(str, source)) if isinstance(source, list) else (str(source),)
    return TrainConfig(**base | {"sources": sources, "out": out, "encoder": encoder} | named)


def trained(source: object, out: Path, encoder: str, **changes: Any) -> TrainedModel:
    """The model of a training with one seed."""
    [model] = train(config(source, out, encoder, **changes))
    return model


def weights(folder: Path) -> str:
    """The hash of a model's weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def inputs_of(
    encoder: Path, rows: TrainingSet, hyperparameters: Hyperparameters, device_batch_size: int = 16
) -> TrialInputs:
    """The inputs of a trial without validation rows."""
    prepared = PreparedTraining(*make_training_spec(rows, str(encoder), hyperparameters), rows.examples, ())
    return encode_inputs(prepared, device_batch_size)


class Recorder(Progress):
    """Remembers the progress; `action` is called after `stop_at` steps in total."""

    def __init__(self, stop_at: int | None = None, action: Callable[[], object] = int) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[str, int, int]] = []
        self.scores: list[float | None] = []
        self._stop_at, self._action = stop_at, action

    def notify(self, text: str) -> None:
        self.notes.append(text)

    def step(self, what: str, done: int, total: int, score: float | None) -> None:
        self.steps.append((what, done, total))
        self.scores.append(score)
        if len(self.steps) == self._stop_at:
            self._action()


def sensible(request: Request) -> Completion:
    """Examples that can be learned: the right answer can be eaten."""
    rng = random.Random(f"{request.id}:{request.messages}")
    items = written(request, rng)
    for place, item in enumerate(items):
        _make_sense(item, rng, f"{request.id} {place}")
    text = json.dumps(items)
    return Completion(request.id, text, "stop", 50, len(text) // 4)


def _make_sense(item: Any, rng: random.Random, number: str) -> None:
    """Fill the fields that the schema leaves open: a claim, or a question and its options."""
    words = " ".join(rng.sample(ASKED, 4))
    strings = [at for at, value in enumerate(item) if isinstance(value, str)]
    lists = [at for at, value in enumerate(item) if isinstance(value, list)]
    if lists:  # the right option is generated first, and shuffled afterwards
        [options], [question] = lists, strings
        item[options] = [rng.choice(FOODS), *rng.sample(TOOLS, 4)]
        item[question] = f"{number} {words}"
        return
    [label] = [at for at, value in enumerate(item) if isinstance(value, bool)]
    [question] = strings
    item[question] = f"{number} {words} {rng.choice(FOODS if item[label] else TOOLS)}"
