"""The real command with a scripted client and with training and evaluation that take no time.

`python -m tests.sweep.quick sweep PLAN` is `datacreate sweep PLAN`; its steps run the same way.
Rows are really read and sampled; a model is an empty file. Every step adds its arguments to the file
$QUICK_CALLS.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from datacreate.cli.main import main
from datacreate.errors import TrainingError
from datacreate.sweep.folder import last_line, run_process
from tests.support.inprocess import scripted_client, typed

COMMAND = (sys.executable, "-m", "tests.sweep.quick")


def train(config: Any, progress: Any = None) -> list[Any]:
    from datacreate.finetuning.training_rows import make_training_set, read_source

    sources = [read_source(source) for source in config.sources]
    make_training_set(sources, count=config.count, sample_seed=config.sample_seed)
    for seed in config.seeds:
        folder = config.out / f"seed-{seed}"
        if not (folder / "model.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "model.safetensors").write_text("weights")
            (folder / "model.json").write_text("{}")
    values = {"validation_score": None, "step": 1, "steps": 1, "learning_rate": 0.1, "seconds": 0.0}
    return [SimpleNamespace(seed=seed, **values) for seed in config.seeds]


def predict(this: Any, *_: Any) -> list[Any]:
    """Students that are sure of nothing."""
    from datacreate.commands.improve import PredictedRow

    rows = [example.values for example in this.prepared.rows]
    return [PredictedRow(row, ("True", "False"), at % 2, (0.5, 0.5), None) for at, row in enumerate(rows)]


def evaluate(folder: Path, names: Sequence[str], split: str, notify: Any = None, **_: Any) -> list[Any]:
    for name in names:
        place = folder / "evaluations" / f"{name}-{split}"
        if (place / "evaluation.json").exists():
            continue
        if not (folder / "model.safetensors").exists():
            raise TrainingError(f"{folder}: cannot be loaded; its weights are gone")
        place.mkdir(parents=True, exist_ok=True)
        (place / "evaluation.json").write_text("{}")
    return []


@contextmanager
def quick(arguments: Sequence[str]) -> Iterator[None]:
    """Replace what takes time for a command with these arguments, and for its steps."""
    verb = arguments[0]
    if "QUICK_CALLS" in os.environ and verb != "sweep":
        with Path(os.environ["QUICK_CALLS"]).open("a") as calls:
            calls.write(" ".join(arguments) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        if verb == "sweep":
            patch.setattr("datacreate.sweep.run.COMMAND", COMMAND)
        elif verb in ("train", "evaluate"):
            double = {"train": train, "evaluate": evaluate}[verb]
            patch.setattr(import_module(f"datacreate.finetuning.{verb}"), verb, double)
        elif verb == "improve":
            patch.setattr("datacreate.commands.improve.ImproveInputs.predict", predict)
        with scripted_client(json.loads(os.environ.get("SCRIPTED", "{}"))):
            yield


def words(arguments: Sequence[str]) -> list[str]:
    """The arguments; created rows are not verified, because they are random words."""
    return [*arguments, *(["--verify", "off"] if arguments[0] == "create" else [])]


def run_here(
    command: Sequence[str], log: Path, poll: Callable[[str], bool], environment: Mapping[str, str]
) -> tuple[int, str]:
    """Like `run_process`, but runs `datacreate` in this process."""
    if tuple(command[: len(COMMAND)]) != COMMAND:
        return run_process(command, log, poll, environment)
    arguments = list(command[len(COMMAND) :])
    start = log.stat().st_size if log.exists() else 0
    with quick(arguments):
        ended = typed(*words(arguments))
    with log.open("a") as file:
        file.write(f"$ {' '.join(command)}\n{ended.out}{ended.err}")
    poll(last_line(log, start))
    return ended.code, last_line(log, start)


if __name__ == "__main__":
    with quick(sys.argv[1:]):
        sys.argv = ["datacreate", *words(sys.argv[1:])]
        main()
