"""Further options of `create` and `train` in a plan: the same names, the same rules.

Those of the engine (which servers are asked, how a model is loaded) are for the zero-shot step, too, and
decide no result: a sweep whose servers have moved goes on where it was.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datacreate.engines.settings import EngineOptions
from datacreate.runs.config import CreateConfig
from datacreate.settings import SettingsError
from datacreate.settings import as_arguments as settings_arguments
from datacreate.sweep.names import checked_model, near

_THE_PLANS = frozenset(
    "example benchmark example_seed count run_dir strategy model format labels ranges seed".split()
)
"""What the grid itself says, or what a benchmark has of its own."""

CREATE_OPTIONS = tuple(name for name in CreateConfig.model_fields if name not in _THE_PLANS)


class TrainOptions(BaseModel):
    """Of `datacreate train`; None leaves its own default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rates: tuple[float, ...] | None = Field(default=None, min_length=1)
    epochs: int | None = Field(default=None, gt=0)
    batch_size: int | None = Field(default=None, gt=0)
    device_batch_size: int | None = Field(default=None, gt=0)
    max_length: int | None = Field(default=None, gt=1)
    lora: bool = False
    lora_rank: int | None = Field(default=None, gt=0)
    soft_labels: bool = False  # of arms with created rows: human rows have no verdicts


def checked_create(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The options as `CreateConfig` takes them; ValueError for an unknown or a wrong one."""
    for name in given:
        if name in _THE_PLANS:
            raise ValueError(f"{name} is the plan's own to say, and no option of `create` here")
        if name not in CREATE_OPTIONS:
            raise ValueError(f"no option {name!r}{near(name, CREATE_OPTIONS)}")
    if isinstance(given.get("urls"), (list, tuple)):
        given = {**given, "urls": [_url(str(url), folder) for url in given["urls"]]}
    if "embedding_model" in given:
        name = checked_model(str(given["embedding_model"]), "encoder", folder)
        given = {**given, "embedding_model": name}
    try:
        config = CreateConfig(benchmark="any", count=1, run_dir=Path(), **given)
    except ValidationError as error:
        flaw = SettingsError.first(error)
        raise ValueError(f"{flaw.key}={flaw.given!r}: {flaw.why}" if flaw.place else flaw.why) from None
    # Ordered by declaration: the order in the file changes no command.
    return {name: getattr(config, name) for name in CREATE_OPTIONS if name in given}


def _url(url: str, folder: Path) -> str:
    """An address as it is; a folder of servers, relative to `folder`, as an absolute path."""
    place = folder / Path(url).expanduser()
    is_folder = url.startswith((".", "~", os.sep)) or (url.strip() and place.is_dir())
    return str(place.resolve()) if is_folder else url


def engine_options(create: dict[str, Any]) -> EngineOptions:
    """How these options of `create` have models asked. Raises pydantic's error if they are wrong."""
    return EngineOptions(**{name: create[name] for name in create if name in EngineOptions.model_fields})


def engine_arguments(create: dict[str, Any]) -> tuple[str, ...]:
    """The same for the command line, of `create` and of `evaluate --zero-shot`."""
    return create_arguments({name: create[name] for name in create if name in EngineOptions.model_fields})


def deciding_arguments(create: dict[str, Any]) -> tuple[str, ...]:
    """All others: they decide what is created."""
    return create_arguments({name: create[name] for name in create if name not in EngineOptions.model_fields})


def similarity_encoder(create: dict[str, Any]) -> str:
    """The sentence encoder that `create` compares with under these options."""
    return str(create.get("embedding_model", CreateConfig.model_fields["embedding_model"].default))


def create_arguments(options: dict[str, Any]) -> tuple[str, ...]:
    """What `checked_create` gives -> arguments of `create`."""
    return tuple(settings_arguments(CreateConfig, options))


def as_arguments(options: dict[str, Any]) -> tuple[str, ...]:
    """Options by name -> what the command line is told: `--max-num-seqs 32`."""
    told: list[str] = []
    for name, value in options.items():
        flag = _flag(name)
        if isinstance(value, bool):
            told += [flag] if value else []
        elif isinstance(value, (tuple, list)):
            told += [flag, ",".join(map(str, value))]
        elif value is not None:
            told += [flag, str(value)]
    return tuple(told)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
