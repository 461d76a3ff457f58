"""Makes the clients of models from the options of a run, and decides what runs where on this machine.

In the order of the file: `make_client` connects to remote servers, or to local ones that start at the first use.
`choose_engine` chooses vLLM or llama.cpp. `place_models` divides the GPUs among the models, and `make_server_commands`
among the servers of one model. `start_shared_server` starts a server for other processes (`datacreate serve`).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from math import ceil
from pathlib import Path
from typing import Any, Literal

from datacreate.checkpoints.checkpoint import Checkpoint, find_served_checkpoint, resolve
from datacreate.checkpoints.presets import ServerSettings, Thinking
from datacreate.engines import ENGINES, EngineName, EngineOptions
from datacreate.engines.chat_api import ChatApi
from datacreate.engines.engine import Engine, GpuNeed, ServerCommand, Workload
from datacreate.engines.model_client import ModelClient
from datacreate.engines.server_sources import (
    API_KEY_VARIABLE,
    Address,
    LocalServer,
    LocalServers,
    RemoteServers,
    ServerSource,
    api_key,
    free_port,
)
from datacreate.errors import EngineError, UsageError
from datacreate.files import replace_file, storage_error
from datacreate.hardware import check_build, gpu_memory, slurm_job, visible_gpus
from datacreate.messages import Notify, no_notify

_EXAMPLES_PER_SERVER = 256
"""`--replicas auto` starts a server for this many examples, or for as many as it has slots if these are fewer."""


def resolve_checkpoint(name: str, options: EngineOptions) -> Checkpoint:
    """Resolve an instruct model; with --url it need not be on this machine. Raises CheckpointError."""
    if options.uses_remote_servers:
        return find_served_checkpoint(name)
    return resolve(name, "instruct", trust_remote_code=options.trust_remote_code)


def only_model(
    options: EngineOptions, notify: Notify = no_notify, template_kwargs: Mapping[str, Any] | None = None
) -> str:
    """The name of the only model that the servers of --url have. EngineError if they have several,
    ServersUnavailable if none answers."""
    api = ChatApi((), template_kwargs or {})
    with closing(ModelClient(RemoteServers(options.url), api, options, notify)) as client:
        return str(client.settings["model"])


@dataclass(frozen=True)
class LocalModel:
    """A model and the options of its servers."""

    checkpoint: Checkpoint
    options: EngineOptions
    only_scores: bool = False  # it scores labels and writes nothing


def make_client(
    model: LocalModel,
    *,
    count: int,
    log: Path | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
    thinking: Thinking | None = None,
    sharing: Sequence[LocalModel] = (),
    notify: Notify = no_notify,
) -> ModelClient:
    """Create the client of a model; it starts no server before it is used.

    `count`: how many examples the run creates. `log`: the file for the output of its server; None: a temporary file.
    `thinking`: how the model thinks; None: as its preset says. `sharing`: all models that share this machine, this one
    included; () if it is alone.
    """
    names = (model.checkpoint.name, str(model.checkpoint.path))
    thinking = thinking or model.checkpoint.thinking or Thinking(disable={})
    api = ChatApi(names, template_kwargs or {}, thinking)
    if model.options.uses_remote_servers:
        source: ServerSource = RemoteServers(model.options.url)
    else:
        source = make_local_servers(model, count=count, log=log, sharing=sharing, notify=notify)
    return ModelClient(source, api, model.options, notify)


def make_local_servers(
    model: LocalModel, *, count: int, log: Path | None, sharing: Sequence[LocalModel] = (), notify: Notify
) -> LocalServers:
    """The servers of a model on this machine, not started yet. Arguments as in `make_client`."""

    def commands() -> list[ServerCommand]:
        models = sharing or [model]
        work = place_models(models, count, notify)[models.index(model)]
        return make_server_commands(model, work, model.options.replicas)

    return LocalServers(commands, log, notify)


def check_engine(requested: EngineName, notify: Notify) -> None:
    """Call `check_build` if the requested engine needs a build that suits this machine."""
    if requested == "auto" or ENGINES[requested].uses_torch:
        check_build(notify)


def choose_engine(checkpoint: Checkpoint, requested: EngineName, count: int) -> Engine:
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


def suited_engine(*, gguf: bool, long_run: bool) -> Engine | None:
    """The engine that `--engine auto` uses, the first fast one; None if no installed engine loads the model."""
    for speed in ("fast", "slow"):
        for engine in ENGINES.values():
            if engine.speed(gguf=gguf, long_run=long_run) == speed:
                return engine
    return None


def place_models(models: Sequence[LocalModel], count: int, notify: Notify) -> list[Workload]:
    """The `Workload` of each model; with its share of the GPUs if several models reserve GPU memory.

    If they fit on a GPU together, each uses all GPUs: it gets the memory that it needs, and the generators get the rest
    in equal parts, for more requests at once. Otherwise each gets GPUs of its own. EngineError, with the numbers, if
    there are too few, or if a model cannot be split over those of its settings; UsageError if there are too few for
    --replicas.
    """
    works = [Workload(count, len(models), only_scores=model.only_scores, notify=notify) for model in models]
    if len(models) < 2:
        return works
    needs: list[GpuNeed] = []
    gpus, gpu_gib = visible_gpus(), _largest_gpu_gib()
    for model in models:
        engine = choose_engine(model.checkpoint, model.options.engine, count)
        need = engine.gpu_need(model.checkpoint, _settings(model), notify)
        if need is None:
            return works
        if gpus and need.gpus > len(gpus):
            raise EngineError(
                f"{model.checkpoint.name}: --tensor-parallel-size {need.gpus} needs {need.gpus} GPUs, only {len(gpus)} "
                f"{'is' if len(gpus) == 1 else 'are'} visible; use a smaller one (a --verifier has "
                "--verifier-tensor-parallel-size), or add GPUs to CUDA_VISIBLE_DEVICES"
            )
        needs.append(need)
    max_share, needed = needs[0].max_share, sum(need.min_gib for need in needs)
    total = gpu_gib or needed / max_share
    usable = max_share * total
    if gpu_gib is None or needed <= usable:
        extra = (usable - needed) / sum(not model.only_scores for model in models)
        for index, (model, need) in enumerate(zip(models, needs, strict=True)):
            gib = need.min_gib + (0.0 if model.only_scores else extra)
            works[index] = replace(works[index], gpu_share=int(1000 * gib / total) / 1000)
    elif sum(need.gpus for need in needs) > len(gpus) or any(need.min_gib > usable for need in needs):
        gibs = zip(models, needs, strict=True)
        names = " and ".join(f"{model.checkpoint.name} ({need.min_gib:.1f} GiB)" for model, need in gibs)
        later = f"datacreate filter RUN_DIR --verifier {models[-1].checkpoint.name} --out FILE"
        verify_later = f"; or use --verify off, then `{later}`" if models[-1].only_scores else ""
        raise EngineError(
            f"{names} need {needed:.1f} GiB on each GPU, and {usable:.1f} of {total:.1f} GiB may be used; use "
            "smaller or quantized models (--quantization, --verifier-quantization), or more GPUs "
            f"(--tensor-parallel-size, --verifier-tensor-parallel-size){verify_later}"
        )
    else:
        for index, gpu_count in enumerate(_gpu_counts(needs, len(gpus))):
            works[index] = replace(works[index], gpus=gpus[:gpu_count], gpu_share=max_share)
            gpus = gpus[gpu_count:]
    for model, need, work in zip(models, needs, works, strict=True):
        group_gpus(model.options.replicas, need.gpus, work.gpus)  # refuses --replicas before the first server starts
    return works


def _gpu_counts(needs: Sequence[GpuNeed], gpus: int) -> list[int]:
    """How many GPUs of its own each model gets: at least what it needs, and the rest so that GPUs are in proportion to
    weights, which decide the time per token."""
    counts = [need.gpus for need in needs]
    while fitting := [index for index, need in enumerate(needs) if need.gpus <= gpus - sum(counts)]:
        least_served = min(fitting, key=lambda index: counts[index] / (needs[index].weights_gib * needs[index].gpus))
        counts[least_served] += needs[least_served].gpus
    return counts


def _largest_gpu_gib() -> float | None:
    """The memory of the largest GPU; None if it is not known."""
    return max((gib for _, gib in gpu_memory()), default=None)


def _settings(model: LocalModel) -> ServerSettings:
    """The preset's settings, overridden by the user's."""
    preset = model.checkpoint.preset
    recommended = preset.engine if preset else ServerSettings()
    return recommended.model_copy(
        update=model.options.model_dump(include=set(ServerSettings.model_fields), exclude_none=True)
    )


def make_server_commands(model: LocalModel, work: Workload, replicas: int | Literal["auto"] = 1) -> list[ServerCommand]:
    """The commands of `replicas` servers; `auto`: one per group of GPUs, no more than its examples need.

    Raises UsageError, EngineError, CheckpointError.
    """
    engine = choose_engine(model.checkpoint, model.options.engine, work.count)
    if problem := model.options.unsupported(engine):
        raise UsageError(problem)
    settings = _settings(model)
    if work.gpu_share is not None:
        settings = settings.model_copy(update={"gpu_memory_utilization": work.gpu_share})
    else:
        settings = _on_enough_gpus(engine, model, settings, work.notify)
    groups: list[tuple[str, ...]] = [()]
    if "replicas" in engine.own_options:
        groups = group_gpus(replicas, settings.tensor_parallel_size or 1, work.gpus)
    commands = [engine.command(model.checkpoint, settings, replace(work, gpus=gpus)) for gpus in groups]
    if replicas == "auto":
        examples_per_server = min(commands[0].slots, _EXAMPLES_PER_SERVER)
        return commands[: max(1, ceil(work.count / examples_per_server))]
    return commands


def _on_enough_gpus(engine: Engine, model: LocalModel, settings: ServerSettings, notify: Notify) -> ServerSettings:
    """The settings of a model that is alone, with as many GPUs per server as it needs if the user gives no number.

    If it seems to fit on no number of GPUs, it gets the largest one, and vLLM decides. EngineError, with the numbers,
    if its weights alone do not fit.
    """
    name, gpus, gpu_gib = model.checkpoint.name, len(visible_gpus()), _largest_gpu_gib()
    need = engine.gpu_need(model.checkpoint, settings, notify)
    if need is None or gpu_gib is None or not gpus:
        return settings
    usable = need.max_share * gpu_gib
    if model.options.tensor_parallel_size is None and (need.min_gib > usable or need.gpus > gpus):
        for size in range(1, gpus + 1):
            split = settings.model_copy(update={"tensor_parallel_size": size})
            with suppress(EngineError):  # it cannot be split over this many GPUs
                need = engine.gpu_need(model.checkpoint, split, notify) or need
            if need.min_gib <= usable:
                break
    if need.min_weights_gib > usable and not settings.quantization:
        raise EngineError(
            f"the weights of {name} take at least {need.min_weights_gib:.1f} GiB on each of {need.gpus} GPUs, "
            f"and {usable:.1f} of {gpu_gib:.1f} GiB may be used; use more GPUs (--tensor-parallel-size), or a smaller "
            "or quantized model (--quantization fp8_per_tensor)"
        )
    if need.min_gib <= usable and need.gpus != (settings.tensor_parallel_size or 1):
        notify(f"{name}: --tensor-parallel-size {need.gpus} suits these GPUs")
    return settings.model_copy(update={"tensor_parallel_size": need.gpus})


def group_gpus(replicas: int | Literal["auto"], group_size: int, gpus: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The GPUs of each server, `group_size` per server. One empty group means all visible GPUs.

    `auto` is one server per complete group of GPUs; `gpus`: those to use, () for all that are visible. UsageError if
    there are too few GPUs.
    """
    usable = gpus or visible_gpus()
    starts = range(0, len(usable) - group_size + 1, group_size)
    groups = [usable[start : start + group_size] for start in starts]
    count = max(1, len(groups)) if replicas == "auto" else replicas
    if count == 1 and not gpus:
        return [()]
    if count > len(groups):
        raise UsageError(
            f"--replicas {count} needs {count * group_size} GPUs ({group_size} for each server: "
            f"--tensor-parallel-size), only {len(usable)} can be used; use at most {max(1, len(groups))}, or add "
            "GPUs to CUDA_VISIBLE_DEVICES"
        )
    return groups[:count]


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
    can reach needs one; a server that registers makes its own and also registers it. Raises UsageError for an invalid
    argument or an address that cannot be used, EngineError if the server ends before it is ready.
    """
    user_key, port, is_local = api_key(), free_port(host, port), _is_loopback(host)
    registered_key = ""
    if not (user_key or is_local):
        if not register_dir:
            raise UsageError(
                f"--host {host}: give --register-dir, or set ${API_KEY_VARIABLE}, here and for clients: without a key "
                "everybody in the network could use this server"
            )
        registered_key = secrets.token_urlsafe(32)
    if register_dir and is_local:
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
    options = options.model_copy(update={"engine": engine.name})
    [command] = make_server_commands(LocalModel(checkpoint, options), Workload(notify=notify))
    command = replace(command, slots=command.slots * copies, arguments=(*command.arguments, *extra_arguments))
    server = LocalServer(command, user_key or registered_key, None, host, port)
    notify(f"starting {engine.title} for {command.model}")
    try:
        server.launch()
        server.wait_until_ready()
        with _registered(server.address.model_copy(update={"key": registered_key}), register_dir):
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
    """Register the address in this block: a file in the folder. If it has a key, only its owner can read it."""
    if folder is None:
        yield
        return
    # A restarted task of a job array replaces the file of its dead node.
    job = slurm_job() or ""
    host_and_port = re.sub(r"[^\w.]+", "-", address.url.partition("://")[2]).strip("-")
    path = folder / (f"job-{job}.json" if "_" in job else f"{host_and_port}.json")
    text = address.model_dump_json(exclude_defaults=True) + "\n"
    replace_file(path, text, mode=0o600 if address.key else 0o666)
    try:
        yield
    finally:
        with suppress(OSError):
            if path.read_text(encoding="utf-8") == text:  # otherwise a restart of the same job owns it
                path.unlink()
