"""Creates engines from the user's settings: clients of running servers, or servers on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from math import ceil
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from datacreate.checkpoints import Checkpoint, EngineSettings, resolve, served
from datacreate.engines.addresses import Addresses
from datacreate.engines.base import Engine
from datacreate.engines.client import HttpEngine
from datacreate.engines.llamacpp import llamacpp_command
from datacreate.engines.local import LocalServers, ServerCommand
from datacreate.engines.pool import Limits
from datacreate.engines.protocol import ChatApi
from datacreate.engines.settings import VLLM_ONLY, EngineKind, EngineOptions
from datacreate.engines.vllm import GPU_SHARE, WORTH_COMPILING, vllm_command
from datacreate.errors import EngineError, UsageError
from datacreate.hardware import suited_engine, visible_gpus
from datacreate.settings import SettingsError


def checkpoint_of(name: str, options: EngineOptions) -> Checkpoint:
    """Resolve an instruct model; with --url it need not be on this machine. Raises CheckpointError."""
    if options.served:
        return served(name)
    return resolve(name, "instruct", trust_remote_code=options.trust_remote_code)


def only_model(options: EngineOptions, notify: Callable[[str], None]) -> str:
    """The name of the single model of the servers. ServersUnavailable if none answers; EngineError if several."""
    with closing(_remote_engine(ChatApi(()), options, notify)) as engine:
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
    notify: Callable[[str], None] = lambda _: None,
) -> Engine:
    """Create the engine of a checkpoint; it starts no server before it is used.

    `main`: the user's engine settings apply to this model, not only its preset's. `models`: how many models
    share this machine. `count`: how many examples the run creates.
    """
    protocol = ChatApi(
        (checkpoint.name, str(checkpoint.path)), {**checkpoint.chat_template, **(template_kwargs or {})}
    )
    if options.served:
        return _remote_engine(protocol, options, notify)
    own = options if main else EngineOptions(engine=options.engine)
    servers = local_servers(checkpoint, own, count=count, log=log, models=models, notify=notify)
    return HttpEngine(servers, protocol, Limits(max_context=own.max_model_len), notify)


def local_servers(
    checkpoint: Checkpoint,
    options: EngineOptions,
    *,
    count: int,
    log: Path | None,
    models: int,
    notify: Callable[[str], None],
) -> LocalServers:
    """The servers of a checkpoint on this machine, not started yet. Arguments as in `make_engine`."""
    return LocalServers(lambda: _commands(checkpoint, options, count, models, notify), log, notify)


def _remote_engine(protocol: ChatApi, options: EngineOptions, notify: Callable[[str], None]) -> HttpEngine:
    source = Addresses(options.urls)
    limits = Limits(
        answer_seconds=options.request_timeout,
        no_server_seconds=300.0 if options.wait is None else options.wait,
        # At the start only a folder of servers is waited for, unless --wait is set.
        at_start=options.wait is not None or options.servers > 1 or source.changes,
        servers=options.servers,
        capacity=options.max_num_seqs,
        max_context=options.max_model_len,
    )
    return HttpEngine(source, protocol, limits, notify)


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
    checkpoint: Checkpoint, options: EngineOptions, more: tuple[str, ...] = ()
) -> ServerCommand:
    """The command with which `datacreate serve` starts a model. UsageError, EngineError, CheckpointError."""
    settings = _settings(checkpoint, options, 1)
    if choose(checkpoint, options.engine, WORTH_COMPILING) == "vllm":
        return vllm_command(checkpoint, settings, more=more)
    if more:
        raise UsageError(f"{more[0]}: only vLLM's server accepts further options after --")
    return _llamacpp_command(checkpoint, options, settings)


def _llamacpp_command(
    checkpoint: Checkpoint, options: EngineOptions, settings: EngineSettings
) -> ServerCommand:
    if flag := options.changed(VLLM_ONLY):
        raise UsageError(f"{flag}: only vLLM has this setting; remove it, or use --engine vllm")
    return llamacpp_command(checkpoint, settings)


def _commands(
    checkpoint: Checkpoint, options: EngineOptions, count: int, models: int, notify: Callable[[str], None]
) -> list[ServerCommand]:
    """A command per server: one on a CPU, one per group of GPUs (no more than `count` examples need)."""
    settings = _settings(checkpoint, options, models)
    if choose(checkpoint, options.engine, count) == "llamacpp":
        return [_llamacpp_command(checkpoint, options, settings)]
    if checkpoint.gguf is not None:
        notify(f"vLLM reads no GGUF files: converting {checkpoint.name} (once)")
    commands: list[ServerCommand] = []
    groups = gpu_groups(options.replicas, settings.tensor_parallel_size)
    for gpus in groups:
        try:
            command = vllm_command(checkpoint, settings, count=count, gpus=gpus, shares_cores=models > 1)
            commands.append(command)
        except EngineError as error:
            if options.replicas != "auto" or (gpus == groups[-1] and not commands):
                raise
            notify(f"skipping GPU {','.join(gpus)}: {str(error).partition(';')[0]}")
    enough = max(1, ceil(count / commands[0].capacity)) if options.replicas == "auto" else len(commands)
    return commands[:enough]


def _settings(checkpoint: Checkpoint, options: EngineOptions, models: int) -> EngineSettings:
    """The preset's settings, overridden by the user's."""
    own = checkpoint.engine_settings
    if models > 1:
        share = round((own.gpu_memory_utilization or GPU_SHARE) / models, 3)
        own = own.model_copy(update={"gpu_memory_utilization": share})
    try:
        return EngineSettings(**{**own.model_dump(), **options.given(EngineSettings.model_fields)})
    except ValidationError as error:
        raise UsageError(SettingsError.first(error).on_command_line({})) from None


def gpu_groups(replicas: int | Literal["auto"], gpus_each: int) -> tuple[tuple[str, ...], ...]:
    """The GPUs of each server, `gpus_each` per server. One empty group means all visible GPUs.

    `auto` is one server per complete group of GPUs. UsageError if there are too few GPUs.
    """
    gpus = visible_gpus() if replicas != 1 else ()
    groups = tuple(tuple(gpus[at : at + gpus_each]) for at in range(0, len(gpus) - gpus_each + 1, gpus_each))
    if replicas == 1 or (replicas == "auto" and len(groups) < 2):
        return ((),)
    if replicas != "auto" and replicas > len(groups):
        each = f", and each server uses {gpus_each} of them (--tensor-parallel-size)" if gpus_each > 1 else ""
        raise UsageError(
            f"--replicas {replicas}: {len(gpus)} GPUs are visible{each}; use {max(1, len(groups))}"
            f"{' or fewer' if len(groups) > 1 else ''}, or add GPUs to CUDA_VISIBLE_DEVICES"
        )
    return groups if replicas == "auto" else groups[:replicas]
