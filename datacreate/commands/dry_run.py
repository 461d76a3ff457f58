"""Describes what `create`, `improve` and `train` would do, without starting a server or writing a file."""

from __future__ import annotations

from typing import Any

from datacreate.commands.improve import ImproveConfig, make_creation_config, read_improve_inputs
from datacreate.creation.plan import RunInputs, make_plan, read_inputs
from datacreate.creation.recipe import describe_recipe
from datacreate.creation.run_models import RunModels, clients_of, models_of
from datacreate.engines.factory import choose_engine
from datacreate.errors import DatacreateError
from datacreate.filters import FILTERS
from datacreate.finetuning.records import TrainingDirectory
from datacreate.finetuning.train import TrainConfig, prepare
from datacreate.formats.example import shorten
from datacreate.hardware import check_build, visible_gpus
from datacreate.messages import Notify, no_notify
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory


def describe_run(config: CreateConfig, notify: Notify = no_notify) -> dict[str, Any]:
    """Describes what `create` would do with these settings, as JSON; null if that is decided when servers are up.

    Raises the errors that `create` raises before it starts a server. Before an error about a model, `notify` gets the
    notes about the format.
    """
    directory = RunDirectory(config.run_dir)
    inputs = read_inputs(config)
    config = inputs.config
    models = _find_models(inputs, notify)
    if inputs.stored and models:
        with clients_of(models, config, None, no_notify) as unstarted:
            make_plan(inputs, unstarted)  # which compares the settings
    accepted, state = 0, "new"
    if inputs.stored:
        accepted = directory.stats().accepted
        state = "finished" if accepted == config.count else "resumes"
    notes = [describe_recipe(config, inputs.verify, inputs.inferred.format, models), *inputs.inferred.notes]
    content = {
        "corpus": inputs.passages and inputs.passages.counts,
        "instruction": shorten(" ".join((config.instruction or "").split())),
        "attributes": {each.name: list(each.shares) for each in inputs.spec.attributes},
    }
    return {
        "run_dir": str(directory.path),
        "state": state,
        "accepted": accepted,
        "count": config.count,
        "examples": len(inputs.spec.examples),
        "format": inputs.inferred.format.name,
        "notes": notes,
        **{name: value for name, value in content.items() if value},
        "strategy": config.strategy,
        **_describe_models(inputs, models),
        "filters": [each.name for each in FILTERS if each.is_on(inputs.spec.filters)],
        "decontaminate": list(inputs.spec.filters.decontaminate or ()),
        "num_examples": inputs.stored.spec.num_examples if inputs.stored else config.num_examples,
        "concurrency": inputs.stored.spec.concurrency if inputs.stored else config.concurrency,
    }


def _find_models(inputs: RunInputs, notify: Notify) -> RunModels | None:
    """The checkpoints of a run; None if only remote servers know the model. See `describe_run` about `notify`."""
    config = inputs.config
    if config.uses_remote_servers and "model" not in config.model_fields_set:
        return None
    try:
        return models_of(config, inputs.verify, no_notify, needs_embedder=config.needs_embedder)
    except DatacreateError:
        for note in inputs.inferred.notes:
            notify(note)
        raise


def _describe_models(inputs: RunInputs, models: RunModels | None) -> dict[str, Any]:
    config, engines, verifier = inputs.config, ["remote servers"], inputs.config.verifier
    if models and not config.uses_remote_servers:
        engines = [choose_engine(model, config.engine, config.count).name for model in models.generators]
    is_verified = inputs.verify != "off"
    if models:
        is_verified = is_verified and models.verifier is not None
        verifier = models.verifier.name if models.verifier else verifier
    return {
        "models": [model.name for model in models.generators] if models else None,
        "engines": engines,
        "servers": list(config.url),
        "embedding_model": config.embedding_model if config.needs_embedder else "none",
        "verification": {"mode": inputs.verify, "model": verifier} if is_verified else "off",
    }


def describe_improve(config: ImproveConfig) -> dict[str, Any]:
    """Describes what `improve` would do, as JSON. Raises what it raises before it trains or starts a server."""
    improve_inputs = read_improve_inputs(config)
    plan = describe_run(make_creation_config(config, improve_inputs.read_parents()))
    if config.directory.parents_path.is_file():
        return plan
    prepared, training = improve_inputs.prepared, improve_inputs.prepared.training
    steps = [training.hyperparameters.steps(len(trained)) for trained, _ in improve_inputs.splits]
    return plan | {"encoder": str(prepared.encoder), "task": training.head.description, "student_steps": steps}


def describe_training(config: TrainConfig) -> dict[str, Any]:
    """Describes what `train` would do, as JSON. Raises the errors that `train` raises before it trains."""
    notes: list[str] = []
    check_build(notes.append)
    prepared, directory = prepare(config, notes.append), TrainingDirectory(config.out)
    training = prepared.training
    directory.check(training)
    untrained = [seed for seed in config.seeds if not directory.model(seed).is_dir()]
    return {
        "out": str(config.out),
        "condition": training.condition.name,
        "benchmark": training.condition.benchmark or "none",
        "notes": notes,
        "task": training.head.description,
        "encoder": str(prepared.encoder),
        "recipe": training.hyperparameters.description,
        "training_rows": len(prepared.rows),
        "selection": training.selection,
        "validation_rows": len(prepared.validation_rows),
        "steps": training.hyperparameters.steps(len(prepared.rows)),
        "seeds_to_train": untrained,
        "trials": len(untrained) * len(training.hyperparameters.learning_rates),
        "device": ", ".join(visible_gpus()) or "CPU",
    }
