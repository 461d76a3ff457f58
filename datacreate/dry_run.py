"""What `create`, `improve` and `train` would do, without starting a server or writing a file."""

from __future__ import annotations

from typing import Any

from datacreate.engines.factory import choose_engine
from datacreate.errors import DatacreateError
from datacreate.filters.registry import FILTERS
from datacreate.finetuning.records import TrainingDirectory
from datacreate.finetuning.train import TrainConfig, prepare
from datacreate.formats.validate import shorten
from datacreate.hardware import check_build, visible_gpus
from datacreate.improve import ImproveConfig, creation_config, read_round
from datacreate.messages import Notify, no_notify
from datacreate.plan import make_plan, read_inputs
from datacreate.run_models import describe_recipe, engines_of, models_of, needs_embedder
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory


def describe_run(config: CreateConfig, notify: Notify = no_notify) -> dict[str, Any]:
    """What `create` would do with these settings, as JSON has it; None: decided when the servers are up.

    Raises the errors that `create` raises before it starts a server. Before an error about a model, `notify` gets how
    the examples are understood.
    """
    directory = RunDirectory(config.run_dir)
    inputs = read_inputs(config, directory)
    config = inputs.config
    stored, filters = inputs.stored, inputs.spec.filters
    models = None
    if not config.uses_running_servers or "model" in config.model_fields_set:  # else only the servers know it
        try:
            models = models_of(config, inputs.verify, needs_embedder(config), no_notify)
        except DatacreateError:
            for note in inputs.inferred.notes:
                notify(note)
            raise
    if stored and models:
        with engines_of(models, config, directory, None, no_notify) as unstarted:
            make_plan(inputs, unstarted)  # which compares the settings
    engines = ["running servers"]
    if models and not config.uses_running_servers:
        engines = [choose_engine(model, config.engine, config.count).name for model in models.generators]
    attributes = {each.name: list(each.shares) for each in inputs.spec.attributes}
    accepted = directory.stats().accepted if stored else 0
    notes = [describe_recipe(config, inputs.verify, inputs.inferred.format, models), *inputs.inferred.notes]
    verifier = models.verifier.name if models and models.verifier else config.verifier
    is_verified = inputs.verify != "off" and not (models and not models.verifier)
    return {
        "run_dir": str(directory.path),
        "state": "new" if stored is None else "finished" if accepted == config.count else "resumes",
        "accepted": accepted,
        "count": config.count,
        "examples": len(inputs.spec.examples),
        "format": inputs.inferred.format.name,
        "notes": notes,
        **({"corpus": inputs.passages.counts} if inputs.passages else {}),
        **({"instruction": shorten(" ".join(config.instruction.split()))} if config.instruction else {}),
        **({"attributes": attributes} if attributes else {}),
        "strategy": config.strategy,
        "models": [model.name for model in models.generators] if models else None,
        "engines": engines,
        "servers": list(config.urls),
        "embedding_model": config.embedding_model if needs_embedder(config) else "none",
        "verification": {"mode": inputs.verify, "model": verifier} if is_verified else "off",
        "filters": [each.name for each in FILTERS if each.is_on(filters)],
        "decontaminate": list(filters.decontaminate or ()),
        "num_examples": stored.spec.num_examples if stored else config.num_examples,
        "concurrency": stored.spec.concurrency if stored else config.concurrency,
    }


def describe_round(config: ImproveConfig) -> dict[str, Any]:
    """What `improve` would do, as JSON has it. Raises the errors that it raises before it trains or starts a server."""
    round_ = read_round(config)
    plan = describe_run(creation_config(config, round_.read_parents()))
    if config.directory.parents_path.is_file():
        return plan
    steps = [round_.training.recipe.steps(len(trained)) for trained, _ in round_.splits]
    return plan | {
        "encoder": str(round_.encoder),
        "task": round_.training.task.description,
        "student_steps": steps,
    }


def describe_training(config: TrainConfig) -> dict[str, Any]:
    """What `train` would do, as JSON has it. Raises the errors that `train` raises before it trains."""
    notes: list[str] = []
    check_build(notes.append)
    prepared, directory = prepare(config, notes.append), TrainingDirectory(config.out)
    training = prepared.training
    directory.check(training)
    left = [seed for seed in config.seeds if not directory.model(seed).is_dir()]
    return {
        "out": str(config.out),
        "condition": training.condition.name,
        "benchmark": training.condition.benchmark or "none",
        "notes": notes,
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
