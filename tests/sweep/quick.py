"""The real command with a scripted engine, and with models that are trained and measured in no time.

`python -m tests.sweep.quick sweep PLAN` is `datacreate sweep PLAN`, its steps are run the same way.
Rows are read and drawn as ever; a model is an empty file. $QUICK_CALLS names a file to which every step
adds its arguments.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from datacreate.cli.main import main
from datacreate.errors import TrainingError

COMMAND = (sys.executable, "-m", "tests.sweep.quick")


def train(config: Any, progress: Any = None) -> list[Any]:
    from datacreate.finetuning.rows import read_source, training_set

    sources = [read_source(source) for source in config.sources]
    training_set(sources, count=config.count, sample_seed=config.sample_seed)
    for seed in config.seeds:
        folder = config.out / f"seed-{seed}"
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / "model.json").write_text("{}")
            (folder / "model.safetensors").write_text("weights")
    told = {"selection_score": None, "step": 1, "steps": 1, "learning_rate": 0.1, "seconds": 0.0}
    return [SimpleNamespace(seed=seed, **told) for seed in config.seeds]


def evaluate(folder: Path, names: Sequence[str], split: str, progress: Any = None) -> list[Any]:
    for name in names:
        place = folder / "evaluations" / f"{name}-{split}"
        if (place / "evaluation.json").exists():
            continue
        if not (folder / "model.safetensors").exists():
            raise TrainingError(f"{folder}: cannot be loaded; its weights are gone")
        place.mkdir(parents=True)
        (place / "evaluation.json").write_text("{}")
    return []


if __name__ == "__main__":
    if "QUICK_CALLS" in os.environ and sys.argv[1] != "sweep":
        with Path(os.environ["QUICK_CALLS"]).open("a") as calls:
            calls.write(" ".join(sys.argv[1:]) + "\n")
    os.environ["RANK"] = "0"  # one process, without asking torch for its number
    verb = sys.argv[1]
    if verb == "sweep":
        running = import_module("datacreate.sweep.running")
        running.COMMAND = COMMAND
    elif verb == "create":
        sys.argv += ["--verify", "off"]  # random words, which nobody can verify
        engine = import_module("tests.driver").engine_of(json.loads(os.environ.get("SCRIPTED", "{}")))
        import_module("datacreate.models").make_engine = lambda *_, **__: engine
    else:
        import_module("datacreate.finetuning.train").train = train
        import_module("datacreate.finetuning.evaluate").evaluate = evaluate
    sys.argv[0] = "datacreate"
    main()
