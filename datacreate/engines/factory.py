"""Creates engines from the user's settings: clients of running servers, or servers on this machine.

`start_shared_server` runs one server for others (`datacreate serve`), with the settings that `create` uses.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import Any, Literal

from datacreate.checkpoints import Checkpoint, LaunchSettings, Thinking, resolve, served_checkpoint
from datacreate.engines.addresses import KEY, Address, Addresses, ServerSource, api_key
from datacreate.engines.chat_api import ChatApi
from datacreate.engines.engine import Engine
from datacreate.engines.engine_kind import EngineKind, GpuNeed, ServerCommand, Workload
from datacreate.engines.local_servers import LocalServer, LocalServers, free_port
from datacreate.engines.settings import ENGINES, EngineName, EngineOptions
from datacreate.errors import EngineError, UsageError
from datacreate.files import replace_file, storage_error
from datacreate.hardware import check_build, gpu_memory, slurm_job, visible_gpus
from datacreate.messages import Notify, no_notify

_BUSY = 256
"""Examples for which a GPU is started, with `--replicas auto`; a large one takes more requests at once."""


def resolve_checkpoint(name: str, options: EngineOptions) -> Checkpoint:
    """Resolve an instruct model; with --url it need not be on this machine. Raises CheckpointError."""
    if options.uses_running_servers:
        return served_checkpoint(name)
    return resolve(name, "instruct", trust_remote_code=options.trust_remote_code)


def only_model(
    options: EngineOptions, notify: Notify = no_notify, template_kwargs: Mapping[str, Any] | None = None
) -> str:
    """The name of the single model of the servers. ServersUnavailable if none answers; EngineError if several."""
    api = ChatApi((), template_kwargs or {})
    with closing(Engine(Addresses(options.urls), api, options, notify)) as engine:
        return str(engine.settings["model"])


@dataclass(frozen=True)
class LocalModel:
    """A model, and the settings of its servers. Several may share this machine."""

    checkpoint: Checkpoint
    options: EngineOptions
    verifies: bool = False  # it scores labels and writes nothing


def make_engine(
    model: LocalModel,
    *,
    count: int,
    log: Path | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
    thinking: Thinking | None = None,
    sharing: Sequence[LocalModel] = (),
    notify: Notify = no_notify,
) -> Engine:
    """Create the engine of a model; it starts no server before it is used.

    `thinking`: how the model thinks; None: as its preset says. `sharing`: all models that share this machine, this one
    included; () if it is alone. `count`: how many examples the run creates.
    """
    names = (model.checkpoint.name, str(model.checkpoint.path))
    thinking = thinking or model.checkpoint.thinking or Thinking(disable={})
    api = ChatApi(names, template_kwargs or {}, thinking)
    if model.options.uses_running_servers:
        source: ServerSource = Addresses(model.options.urls)
    else:
        source = local_servers(model, count=count, log=log, sharing=sharing, notify=notify)
    return Engine(source, api, model.options, notify)


def local_servers(
    model: LocalModel,
    *,
    count: int,
    log: Path | None,
    sharing: Sequence[LocalModel] = (),
    notify: Notify,
) -> LocalServers:
    """The servers of a model on this machine, not started yet. Arguments as in `make_engine`."""
    work = Workload(count, max(1, len(sharing)), scores=model.verifies, notify=notify)

    def commands() -> list[ServerCommand]:
        placement = placements(sharing, count, notify).get(model.checkpoint.sha256, Placement())
        return server_commands(model, work, placement, model.options.replicas)

    return LocalServers(commands, log, notify)


def check_engine(requested: EngineName, notify: Notify) -> None:
    """Note or raise, as `check_build` does, that an engine's build does not suit this machine."""
    if requested == "auto" or ENGINES[requested].uses_torch:
        check_build(notify)


def choose_engine(checkpoint: Checkpoint, requested: EngineName, count: int) -> EngineKind:
    """Choose the engine for `count` examples of a checkpoint.

    EngineError if no installed engine loads it, or in a SLURM job if the build does not suit the node.
    """
    check_engine(requested, no_notify)
    if requested != "auto":
        return ENGINES[requested]
    if suited := suited_engine(gguf=checkpoint.gguf is not None, long_run=Workload(count).is_long):
        return suited
    if checkpoint.gguf is None:
        raise EngineError(
            f"{checkpoint.name}: only vLLM loads safetensors, and it is not installed; use a GGUF file "
            "(see `datacreate models list`), or install vLLM: scripts/setup --cpu"
        )
    raise EngineError("no engine is installed; run scripts/setup, or pip install 'datacreate[llamacpp]'")


def suited_engine(*, gguf: bool, long_run: bool) -> EngineKind | None:
    """The engine that `--engine auto` uses; None if no installed engine loads the model."""
    ranks = {kind: kind.suitability(gguf=gguf, long_run=long_run) for kind in ENGINES.values()}
    best = max(ranks, key=ranks.__getitem__)
    return best if ranks[best] else None


@dataclass(frozen=True)
class Placement:
    """The GPUs of a model, () for all, and the share of their memory that it may use; None: as its settings say."""

    gpus: tuple[str, ...] = ()
    share: float | None = None


def placements(models: Sequence[LocalModel], count: int, notify: Notify) -> dict[str, Placement]:
    """Where each of several models runs, by its `sha256`; {} if they reserve no GPU memory.

    Raises EngineError, with the numbers, if they do not fit together.
    """
    needs: list[GpuNeed] = []
    for model in models if len(models) > 1 else ():
        engine = choose_engine(model.checkpoint, model.options.engine, count)
        need = engine.gpu_need(model.checkpoint, _settings(model), notify)
        if need is None:
            return {}
        needs.append(need)
    generators = [number for number, model in enumerate(models) if not model.verifies]
    placed = place(needs, generators, visible_gpus(), _largest_gpu_gib()) if needs else []
    return {model.checkpoint.sha256: where for model, where in zip(models, placed, strict=bool(needs))}


def _largest_gpu_gib() -> float | None:
    """The memory of the largest GPU; None if it is not known."""
    return max((gib for _, gib in gpu_memory()), default=None)


def place(
    needs: Sequence[GpuNeed], generators: Sequence[int], gpus: Sequence[str], gib: float | None
) -> list[Placement]:
    """Place several models on GPUs with `gib` of memory each (None: not known); `generators`: their indices.

    If they fit on a GPU together, each uses all GPUs: it gets the memory that it needs, and the generators get the rest
    in equal parts, for more requests at once. Otherwise each gets GPUs of its own, in proportion to its weights, which
    decide the time per token. EngineError if there are too few.
    """
    share, needed = needs[0].max_share, sum(need.min_gib for need in needs)
    total = gib or needed / share
    usable = share * total
    if gib is None or needed <= usable:
        rest = (usable - needed) / len(generators)
        parts = [need.min_gib + rest * (number in generators) for number, need in enumerate(needs)]
        return [Placement(share=int(1000 * part / total) / 1000) for part in parts]
    numbers = [need.gpus for need in needs]
    if sum(numbers) > len(gpus) or any(need.min_gib > usable for need in needs):
        names = " and ".join(f"{need.model} ({need.min_gib:.1f} GiB)" for need in needs)
        later = f"datacreate filter RUN_DIR --verifier {needs[-1].model} --out FILE"
        verify_later = f"; or use --verify off, then `{later}`" if len(generators) < len(needs) else ""
        raise EngineError(
            f"{names} need {needed:.1f} GiB on each GPU, and {usable:.1f} of {total:.1f} GiB may be used; use "
            "smaller or quantized models (--quantization, --verifier-quantization), or more GPUs "
            f"(--tensor-parallel-size, --verifier-tensor-parallel-size){verify_later}"
        )
    while fitting := [i for i, need in enumerate(needs) if sum(numbers) + need.gpus <= len(gpus)]:
        least_served = min(fitting, key=lambda i: numbers[i] / (needs[i].weights_gib * needs[i].gpus))
        numbers[least_served] += needs[least_served].gpus
    ends = zip(numbers, accumulate(numbers), strict=True)
    return [Placement(tuple(gpus[end - number : end]), share) for number, end in ends]


def _settings(model: LocalModel) -> LaunchSettings:
    """The preset's settings, overridden by the user's."""
    preset = model.checkpoint.preset
    of_preset = preset.engine if preset else LaunchSettings()
    return of_preset.model_copy(update=model.options.given(LaunchSettings.model_fields))


def server_commands(
    model: LocalModel,
    work: Workload,
    placement: Placement | None = None,
    replicas: int | Literal["auto"] = 1,
) -> list[ServerCommand]:
    """The commands of `replicas` servers; `auto`: one per group of GPUs, no more than its examples need.

    `placement`: where they run if other models share the machine. Raises UsageError, EngineError, CheckpointError.
    """
    placement = placement or Placement()
    engine = choose_engine(model.checkpoint, model.options.engine, work.count)
    if problem := model.options.unsupported(engine):
        raise UsageError(problem)
    settings = _settings(model)
    if placement.share is not None:
        settings = settings.model_copy(update={"gpu_memory_utilization": placement.share})
    else:
        settings = _on_enough_gpus(engine, model, settings, work.notify)
    each = settings.tensor_parallel_size or 1
    groups = gpu_groups(replicas, each, placement.gpus) if "replicas" in engine.own_settings else ((),)
    commands = [engine.command(model.checkpoint, settings, replace(work, gpus=gpus)) for gpus in groups]
    busy = min(commands[0].slots, _BUSY)
    return commands[: max(1, ceil(work.count / busy))] if replicas == "auto" else commands


def _on_enough_gpus(
    engine: EngineKind, model: LocalModel, settings: LaunchSettings, notify: Notify
) -> LaunchSettings:
    """The settings of a model that is alone, with as many GPUs per server as it needs if the user gives no number.

    If it seems to fit on none, it gets the largest number, and vLLM decides. EngineError, with the numbers, if its
    weights alone do not fit.
    """

    def need_on(gpus: int) -> GpuNeed | None:
        changed = settings.model_copy(update={"tensor_parallel_size": gpus})
        return engine.gpu_need(model.checkpoint, changed, notify)

    need, number, gib = need_on(settings.tensor_parallel_size or 1), len(visible_gpus()), _largest_gpu_gib()
    if need is None or gib is None or not number:
        return settings
    usable = need.max_share * gib
    if model.options.tensor_parallel_size is None and (need.min_gib > usable or need.gpus > number):
        sizes = filter(need.splits_over, range(1, number + 1))
        for found in filter(None, map(need_on, sizes)):
            need = found
            if need.min_gib <= usable:
                break
    if need.least_weights_gib > usable and not settings.quantization:
        raise EngineError(
            f"the weights of {need.model} take at least {need.least_weights_gib:.1f} GiB on each of {need.gpus} GPUs, "
            f"and {usable:.1f} of {gib:.1f} GiB may be used; use more GPUs (--tensor-parallel-size), or a smaller "
            "or quantized model (--quantization fp8_per_tensor)"
        )
    if need.min_gib <= usable and need.gpus != (settings.tensor_parallel_size or 1):
        notify(f"{need.model}: --tensor-parallel-size {need.gpus} suits these GPUs")
    return settings.model_copy(update={"tensor_parallel_size": need.gpus})


def gpu_groups(
    replicas: int | Literal["auto"], gpus_each: int, own: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], ...]:
    """The GPUs of each server, `gpus_each` per server. One empty group means all visible GPUs.

    `auto` is one server per complete group of GPUs; `own`: the GPUs to use, () for all that are visible. UsageError if
    there are too few GPUs.
    """
    gpus = own or (visible_gpus() if replicas != 1 else ())
    groups = tuple(tuple(gpus[at : at + gpus_each]) for at in range(0, len(gpus) - gpus_each + 1, gpus_each))
    if not own and (replicas == 1 or (replicas == "auto" and len(groups) < 2)):
        return ((),)
    if replicas != "auto" and replicas > len(groups):
        raise UsageError(
            f"--replicas {replicas}: {len(gpus)} GPUs can be used, and each server uses {gpus_each} "
            f"(--tensor-parallel-size); use at most {max(1, len(groups))}, or add GPUs to CUDA_VISIBLE_DEVICES"
        )
    return groups if replicas == "auto" else groups[:replicas]


@contextmanager
def start_shared_server(
    checkpoint: Checkpoint,
    options: EngineOptions,
    extra_arguments: Sequence[str],
    notify: Notify,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    register_dir: Path | None = None,
) -> Iterator[LocalServer]:
    """Start a server and yield it when it is ready; it is registered until the block ends, then stopped.

    `extra_arguments` are for the engine's server. The API key is $DATACREATE_API_KEY. An address that other machines
    can reach needs one; a server that registers makes its own and registers it, too. Raises UsageError for an invalid
    argument or an address that cannot be used, EngineError if the server ends before it is ready.
    """
    key, port, local = api_key(), free_port(host, port), _is_loopback(host)
    own = "" if key or local or not register_dir else secrets.token_urlsafe(32)
    if not (key or own or local):
        raise UsageError(
            f"--host {host}: give --register-dir, or set ${KEY}, here and for clients: without a key "
            "everybody in the network could use this server"
        )
    if register_dir and local:
        notify(f"{host}: only this machine can reach the server; name a reachable address with --host")
    # As for a small run: how many examples its clients want is not known, and llama.cpp starts in seconds.
    engine = choose_engine(checkpoint, options.engine, 1)
    copies = engine.count_copies(extra_arguments) if extra_arguments else 1
    if register_dir:  # created before the model is loaded, so that clients can wait for it
        try:
            register_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(register_dir, error) from None
    notify(f"preparing {checkpoint.name}")
    chosen = options.model_copy(update={"engine": engine.name})
    [command] = server_commands(LocalModel(checkpoint, chosen), Workload(notify=notify))
    command = replace(command, slots=command.slots * copies, arguments=(*command.arguments, *extra_arguments))
    server = LocalServer(command, key or own, None, host, port)
    notify(f"starting {engine.title} for {command.model}")
    try:
        server.launch()
        server.until_ready()
        with _registered(server.address.model_copy(update={"key": own}), register_dir):
            yield server
    finally:
        server.stop()


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


@contextmanager
def _registered(address: Address, folder: Path | None) -> Iterator[None]:
    """Register the address: a file in the folder, removed at the end; only its owner can read one with a key."""
    if folder is None:
        yield
        return
    # A restarted task of a job array replaces the file of its dead node.
    job = slurm_job() or ""
    name = f"job-{job}" if "_" in job else re.sub(r"[^\w.]+", "-", address.url.partition("://")[2]).strip("-")
    text, path = address.model_dump_json(exclude_defaults=True) + "\n", folder / f"{name}.json"
    replace_file(path, text, mode=0o600 if address.key else 0o666)
    try:
        yield
    finally:
        with suppress(OSError):
            if path.read_text(encoding="utf-8") == text:  # otherwise a restart of the same job owns it
                path.unlink()
