"""What `create` and `train` would do, without starting a server or writing a file."""

from __future__ import annotations

from typing import Any

from datacreate.engines.factory import choose
from datacreate.filters.held_out import held_out_sets
from datacreate.filters.registry import FILTERS, FilterSettings, is_on
from datacreate.finetuning.records import TRAINING, TrainingDirectory, read_training
from datacreate.finetuning.train import SilentProgress, TrainConfig, prepare
from datacreate.hardware import visible_gpus
from datacreate.messages import no_notify
from datacreate.plan import benchmarks_for_decontamination, make_plan, root_and_format
from datacreate.run_models import engines_of, models_of, needs_embedder, verify_mode
from datacreate.runs.config import CreateConfig, RunSpec
from datacreate.runs.directory import RunConfig, RunDirectory


def describe_run(config: CreateConfig) -> dict[str, Any]:
    """What `create` would do with these settings, as JSON has it; None: decided when the servers are up.

    Raises the errors that `create` raises before it starts a server.
    """
    embeds = needs_embedder(config)
    root, inferred = root_and_format(config)
    directory = RunDirectory(config.run_dir)
    stored = directory.read_config() if directory.exists else None
    if stored:
        stored.check_count(config.count, directory.path)
    models = None
    if not config.served or "model" in config.model_fields_set:  # else the servers have to be asked
        models = models_of(config, inferred, embeds, no_notify)
    spec = None
    if stored and models:
        with engines_of(models, config, directory, None, no_notify) as unstarted:
            spec = make_plan(config, root, inferred, models, unstarted, stored.spec).spec
        stored.spec.check_same(spec, directory.path)
    engines = ["openai"]
    if models and not config.served:
        engines = [choose(model, config.engine, config.count) for model in models.generators]
    accepted = directory.accepted() if stored else 0
    filters = _filters(config, spec)
    mode = verify_mode(config, inferred)
    verifier = models.verifier.name if models and models.verifier else config.verifier
    return {
        "run_dir": str(directory.path),
        "state": _state(stored, accepted, config.count),
        "accepted": accepted,
        "count": config.count,
        "format": inferred.format.name,
        "notes": list(inferred.notes),
        "strategy": config.strategy,
        "models": [model.name for model in models.generators] if models else None,
        "engines": engines,
        "servers": list(config.urls),
        "embedding_model": models.embedding_model.name if models and models.embedding_model else None,
        "verification": None if mode == "off" else {"mode": mode, "model": verifier},
        "filters": [part.filter_name for part in FILTERS if is_on(part, filters)],
        "decontaminate": list(filters.decontaminate or ()),
        "num_examples": spec.num_examples if spec else config.num_examples,
        "concurrency": spec.concurrency if spec else config.concurrency,
    }


def _filters(config: CreateConfig, spec: RunSpec | None) -> FilterSettings:
    if spec:
        return spec.filters
    held_out = held_out_sets(benchmarks_for_decontamination(config, None))
    names = tuple(dict.fromkeys(split.benchmark for split in held_out))
    return FilterSettings(**config.subset(FilterSettings) | {"decontaminate": names})


def _state(stored: RunConfig | None, accepted: int, count: int) -> str:
    if stored is None:
        return "new"
    return "finished" if accepted == count else "resumes"


def describe_training(config: TrainConfig) -> dict[str, Any]:
    """What `train` would do, as JSON has it. Raises the errors that `train` raises before it trains."""
    prepared, directory = prepare(config, SilentProgress()), TrainingDirectory(config.out)
    training = prepared.training
    if (config.out / TRAINING).is_file():
        read_training(config.out).check_same(training, config.out)
    left = [seed for seed in config.seeds if not directory.model(seed).is_dir()]
    return {
        "out": str(config.out),
        "condition": training.condition.name,
        "benchmark": training.condition.benchmark,
        "task": training.task.description,
        "encoder": str(prepared.encoder),
        "recipe": training.recipe.description,
        "training_rows": len(prepared.rows),
        "selection": training.selection,
        "selection_rows": len(prepared.selection_rows),
        "steps": training.recipe.steps(len(prepared.rows)),
        "seeds_to_train": left,
        "trials": len(left) * len(training.recipe.learning_rates),
        "device": ", ".join(visible_gpus()) or "CPU",
    }
