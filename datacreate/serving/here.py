"""vLLM on this machine: as a preset and the user say, in as many copies as it has room for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from datacreate.checkpoints import Checkpoint, read_adapter, resolve, with_adapter
from datacreate.checkpoints.preset import EngineSettings
from datacreate.engines.base import Engine
from datacreate.engines.placing import Devices, devices_for
from datacreate.engines.replicas import Replicas
from datacreate.errors import EngineError, UsageError
from datacreate.flaws import Flaw
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from datacreate.serving.seat import ALONE, Seat

if TYPE_CHECKING:
    from datacreate.engines.loading import Loading

SHARED_GPU = 0.9
"""The share of a GPU's memory that the engines of a run divide among them, unless somebody says otherwise."""


def vllm_engine(
    checkpoint: Checkpoint, config: CreateConfig, directory: RunDirectory, seat: Seat = ALONE
) -> Engine:
    """The default engine: vLLM, with the preset's settings; the user's are for what writes.

    UsageError if this machine has no room for so many replicas.
    """
    from datacreate.engines.loading import Loading, compiles
    from datacreate.engines.rendering import Renderer

    settings = checkpoint.engine_settings
    template = dict(checkpoint.chat_template)
    told: dict[str, Any] = {}
    if settings.enforce_eager is None:
        told["enforce_eager"] = not compiles(config.count)
    if seat.engines > 1:
        told["gpu_memory_utilization"] = round(
            (settings.gpu_memory_utilization or SHARED_GPU) / seat.engines, 3
        )
    if seat.writes:
        template |= config.chat_template
        told |= {
            name: value
            for name in EngineSettings.model_fields
            if (value := getattr(config, name, None)) is not None
        }
    settings = _engine_settings(settings, told)
    loading = Loading(checkpoint, Renderer(checkpoint, template), settings, shares_cores=seat.engines > 1)
    return _replicated(loading, config, directory, seat)


def _replicated(loading: Loading, config: CreateConfig, directory: RunDirectory, seat: Seat) -> Engine:
    """So many of it as the user asked for, or as this machine and the count call for.

    `auto` leaves out GPUs that others have filled, and starts no more engines than the count would
    fill at one request an example.
    """
    from datacreate.engines.vllm import VllmEngine

    groups = devices_for(config.replicas, loading.device, loading.gpus)
    if len(groups) > 1:
        _ = loading.max_context  # a checkpoint that cannot be read is one error, not one of each engine
    if config.replicas == "auto" and len(groups) > 1:
        free = (devices for devices in groups if _fits(loading.on(devices), seat.note))
        groups = tuple(islice(free, ceil(config.count / loading.capacity))) or (Devices(),)
    if len(groups) == 1:
        on = loading.on(groups[0]) if groups[0].gpus else loading
        return VllmEngine(on, directory.log_of(seat.name))
    logs = [directory.log_of(f"{seat.name}.{number}") for number in range(1, len(groups) + 1)]
    engines = [VllmEngine(loading.on(devices), log) for devices, log in zip(groups, logs, strict=True)]
    return Replicas(engines, seat.note)


def _fits(loading: Loading, note: Callable[[str], None]) -> bool:
    try:
        loading.check()
    except EngineError as error:
        note(f"{loading.devices} is left out: {str(error).partition(';')[0]}")
        return False
    return True


def loading_to_serve(
    model: str, adapter: Path | None, remote_code: bool, settings: Mapping[str, Any]
) -> tuple[Loading, str]:
    """How a model is to be loaded for a server, and the name to serve it under.

    Raises CheckpointError, UsageError for a setting that is out of range.
    """
    from datacreate.engines.loading import WORTH_COMPILING, Loading, compiles
    from datacreate.engines.rendering import Renderer

    checkpoint = resolve(model, "instruct", remote_code=remote_code)
    if adapter is not None:
        checkpoint = with_adapter(checkpoint, read_adapter(adapter))
    own = checkpoint.engine_settings
    told = {name: value for name, value in settings.items() if value is not None}
    if own.enforce_eager is None:  # a server is for long work
        told.setdefault("enforce_eager", not compiles(WORTH_COMPILING))
    return Loading(checkpoint, Renderer(checkpoint), _engine_settings(own, told)), checkpoint.name


def _engine_settings(own: EngineSettings, told: Mapping[str, Any]) -> EngineSettings:
    """The preset's settings, and over them those that were told."""
    try:
        return EngineSettings(**{**own.model_dump(), **told})
    except ValidationError as error:
        raise UsageError(Flaw.first(error).on_command_line({})) from None
