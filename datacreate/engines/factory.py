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
from datacreate.engines.devices import gpu_groups
from datacreate.engines.llamacpp import llamacpp_command
from datacreate.engines.local import LocalServers, ServerCommand
from datacreate.engines.pool import Timeouts
from datacreate.engines.protocol import Protocol
from datacreate.engines.settings import VLLM_ONLY, EngineKind, EngineOptions
from datacreate.engines.vllm import WORTH_COMPILING, vllm_command
from datacreate.errors import EngineError, UsageError
from datacreate.hardware import suited_engine
from datacreate.settings import SettingsError

_SHARED_GPU = 0.9
"""The share of a GPU's memory that the models of a run share by default."""


def checkpoint_of(name: str, options: EngineOptions) -> Checkpoint:
    """Resolve an instruct model; with --url it need not be on this machine. Raises CheckpointError."""
    return (
        served(name)
        if options.served
        else resolve(name, "instruct", trust_remote_code=options.trust_remote_code)
    )


def only_model(options: EngineOptions, notify: Callable[[str], None]) -> str:
    """The name of the single model of the servers. ServersGone if none answers, EngineError if several."""
    engine = HttpEngine(Addresses(options.urls), Protocol(()), timeouts=_timeouts(options), notify=notify)
    with closing(engine):
        return engine.model


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
    protocol = Protocol(
        (checkpoint.name, str(checkpoint.path)), {**checkpoint.chat_template, **(template_kwargs or {})}
    )
    if options.served:
        return HttpEngine(
            Addresses(options.urls),
            protocol,
            capacity=options.max_num_seqs,
            max_context=options.max_model_len,
            timeouts=_timeouts(options),
            notify=notify,
        )
    own = options if main else EngineOptions(engine=options.engine)
    servers = LocalServers(lambda: _commands(checkpoint, own, count, models, notify), log, notify)
    return HttpEngine(servers, protocol, max_context=own.max_model_len, notify=notify)


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
    if choose(checkpoint, options.engine, WORTH_COMPILING) == "vllm":
        return vllm_command(checkpoint, _settings(checkpoint, options, 1), more=more)
    if more:
        raise UsageError(f"{more[0]}: only vLLM's server accepts further options after --")
    _refuse_vllm_only(options)
    return llamacpp_command(checkpoint, _settings(checkpoint, options, 1))


def _commands(
    checkpoint: Checkpoint, options: EngineOptions, count: int, models: int, notify: Callable[[str], None]
) -> list[ServerCommand]:
    """A command per server: one on a CPU, one per group of GPUs (no more than `count` examples need)."""
    settings = _settings(checkpoint, options, models)
    if choose(checkpoint, options.engine, count) == "llamacpp":
        _refuse_vllm_only(options)
        return [llamacpp_command(checkpoint, settings)]
    if checkpoint.gguf is not None:
        notify(f"vLLM reads no GGUF files: converting {checkpoint.name} (once)")
    commands: list[ServerCommand] = []
    groups = gpu_groups(options.replicas, settings.tensor_parallel_size)
    for gpus in groups:
        try:
            commands.append(
                vllm_command(checkpoint, settings, count=count, gpus=gpus, shares_cores=models > 1)
            )
        except EngineError as error:
            if options.replicas != "auto" or (gpus == groups[-1] and not commands):
                raise
            notify(f"skipping GPU {','.join(gpus)}: {str(error).partition(';')[0]}")
    enough = max(1, ceil(count / commands[0].capacity)) if options.replicas == "auto" else len(commands)
    return commands[:enough]


def _refuse_vllm_only(options: EngineOptions) -> None:
    if flag := options.changed(VLLM_ONLY):
        raise UsageError(f"{flag}: only vLLM has this setting; remove it, or use --engine vllm")


def _settings(checkpoint: Checkpoint, options: EngineOptions, models: int) -> EngineSettings:
    """The preset's settings, overridden by the user's."""
    own = checkpoint.engine_settings
    if models > 1:
        share = round((own.gpu_memory_utilization or _SHARED_GPU) / models, 3)
        own = own.model_copy(update={"gpu_memory_utilization": share})
    try:
        return EngineSettings(**{**own.model_dump(), **options.given(EngineSettings.model_fields)})
    except ValidationError as error:
        raise UsageError(SettingsError.first(error).on_command_line({})) from None


def _timeouts(options: EngineOptions) -> Timeouts:
    """Timeouts of `options`. At the start only a folder of servers is waited for, unless --wait is set."""
    limit = {} if options.wait is None else {"no_server": options.wait}
    expects = options.wait is not None or options.servers > 1 or Addresses(options.urls).changes
    return Timeouts(answer=options.request_timeout, at_start=expects, servers=options.servers, **limit)
