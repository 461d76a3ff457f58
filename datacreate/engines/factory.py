"""Creates engines from the user's settings: clients of running servers, or servers on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Literal

from datacreate.checkpoints import Checkpoint, EngineSettings, resolve, served
from datacreate.engines.addresses import Addresses
from datacreate.engines.client import Engine
from datacreate.engines.llamacpp import llamacpp_command
from datacreate.engines.local import LocalServers, ServerCommand
from datacreate.engines.protocol import ChatApi
from datacreate.engines.settings import VLLM_ONLY, EngineKind, EngineOptions
from datacreate.engines.vllm import WORTH_COMPILING, vllm_command
from datacreate.errors import EngineError, UsageError
from datacreate.hardware import suited_engine, visible_gpus
from datacreate.messages import Notify, no_notify

_GPU_SHARE = 0.9  # of a GPU's memory, which vLLM uses by default


def checkpoint_of(name: str, options: EngineOptions) -> Checkpoint:
    """Resolve an instruct model; with --url it need not be on this machine. Raises CheckpointError."""
    if options.served:
        return served(name)
    return resolve(name, "instruct", trust_remote_code=options.trust_remote_code)


def only_model(
    options: EngineOptions, notify: Notify = no_notify, template_kwargs: Mapping[str, Any] | None = None
) -> str:
    """The name of the single model of the servers. ServersUnavailable if none answers; EngineError if several."""
    protocol = ChatApi((), template_kwargs or {})
    with closing(Engine(Addresses(options.urls), protocol, options, notify)) as engine:
        return str(engine.settings["model"])


def make_engine(
    checkpoint: Checkpoint,
    options: EngineOptions,
    *,
    count: int,
    log: Path | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
    main: bool = True,
    models: int = 1,
    notify: Notify = no_notify,
) -> Engine:
    """Create the engine of a checkpoint; it starts no server before it is used.

    `main`: the user's engine settings apply to this model, not only its preset's. `models`: how many models
    share this machine. `count`: how many examples the run creates.
    """
    protocol = ChatApi(
        (checkpoint.name, str(checkpoint.path)), {**checkpoint.chat_template, **(template_kwargs or {})}
    )
    if options.served:
        return Engine(Addresses(options.urls), protocol, options, notify)
    own = options if main else EngineOptions(engine=options.engine)
    servers = local_servers(checkpoint, own, count=count, log=log, models=models, notify=notify)
    return Engine(servers, protocol, own, notify)


def local_servers(
    checkpoint: Checkpoint,
    options: EngineOptions,
    *,
    count: int,
    log: Path | None,
    models: int,
    notify: Notify,
) -> LocalServers:
    """The servers of a checkpoint on this machine, not started yet. Arguments as in `make_engine`."""
    return LocalServers(lambda: _commands(checkpoint, options, count, models, notify), log, notify)


def choose(checkpoint: Checkpoint, requested: EngineKind, count: int) -> Literal["vllm", "llamacpp"]:
    """Choose the engine for `count` examples of a checkpoint. EngineError if no installed engine loads it."""
    if requested == "vllm" or requested == "llamacpp":
        return requested
    if suited := suited_engine(gguf=checkpoint.gguf is not None, long_run=count >= WORTH_COMPILING):
        return suited
    if checkpoint.gguf is None:
        raise EngineError(
            f"{checkpoint.name}: only vLLM loads safetensors, and it is not installed; use a GGUF file "
            "(see `datacreate models list`), or install vLLM: scripts/setup --cpu"
        )
    raise EngineError("no engine is installed; run scripts/setup, or pip install 'datacreate[llamacpp]'")


def server_command(
    checkpoint: Checkpoint,
    options: EngineOptions,
    *,
    count: int = WORTH_COMPILING,
    models: int = 1,
    gpus: tuple[str, ...] = (),
    notify: Notify = no_notify,
) -> ServerCommand:
    """The command that starts one server of a model, on these GPUs (empty: all).

    The preset's settings are overridden by the user's. Raises UsageError, EngineError, CheckpointError.
    """
    settings = _settings(checkpoint, options, models)
    if choose(checkpoint, options.engine, count) == "vllm":
        shares_cores = models > 1
        return vllm_command(checkpoint, settings, notify, count=count, gpus=gpus, shares_cores=shares_cores)
    if flag := options.changed(VLLM_ONLY):
        raise UsageError(f"{flag}: only vLLM has this setting; remove it, or use --engine vllm")
    return llamacpp_command(checkpoint, settings)


def _settings(checkpoint: Checkpoint, options: EngineOptions, models: int) -> EngineSettings:
    own = checkpoint.engine_settings
    share = round((own.gpu_memory_utilization or _GPU_SHARE) / models, 3) if models > 1 else None
    changes = {"gpu_memory_utilization": share} if share else {}
    return own.model_copy(update=changes | options.given(EngineSettings.model_fields))


def _commands(
    checkpoint: Checkpoint, options: EngineOptions, count: int, models: int, notify: Notify
) -> list[ServerCommand]:
    """A command per server: one on a CPU, one per group of GPUs (no more than `count` examples need)."""
    groups: tuple[tuple[str, ...], ...] = ((),)
    if choose(checkpoint, options.engine, count) == "vllm":
        groups = gpu_groups(options.replicas, _settings(checkpoint, options, models).tensor_parallel_size)
    command = partial(server_command, checkpoint, options, count=count, models=models, notify=notify)
    first = command(gpus=groups[0])
    needed = max(1, ceil(count / first.slots)) if options.replicas == "auto" else len(groups)
    return [first, *(command(gpus=gpus) for gpus in groups[1:needed])]


def gpu_groups(replicas: int | Literal["auto"], gpus_each: int) -> tuple[tuple[str, ...], ...]:
    """The GPUs of each server, `gpus_each` per server. One empty group means all visible GPUs.

    `auto` is one server per complete group of GPUs. UsageError if there are too few GPUs.
    """
    gpus = visible_gpus() if replicas != 1 else ()
    groups = tuple(tuple(gpus[at : at + gpus_each]) for at in range(0, len(gpus) - gpus_each + 1, gpus_each))
    if replicas == 1 or (replicas == "auto" and len(groups) < 2):
        return ((),)
    if replicas != "auto" and replicas > len(groups):
        raise UsageError(
            f"--replicas {replicas}: {len(gpus)} GPUs are visible, and each server uses {gpus_each} "
            f"(--tensor-parallel-size); use at most {max(1, len(groups))}, or add GPUs to CUDA_VISIBLE_DEVICES"
        )
    return groups if replicas == "auto" else groups[:replicas]
