"""What a site's jobs ask of SLURM, typed; a misspelt key is told in one line."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from datacreate.errors import SiteError
from datacreate.paths import data_dir, shipped
from datacreate.settings import SettingsError

VARIABLE = "DATACREATE_SITE"

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<rest>\d+(?::\d+){0,2})")
_ENDLESS = ("UNLIMITED", "INFINITE")


def _seconds(time: str) -> float:
    """SLURM's `minutes`, `m:s`, `h:m:s`, `d-h`, `d-h:m` and `d-h:m:s` in seconds. ValueError."""
    if time.upper() in _ENDLESS:
        return float("inf")
    found = _TIME.fullmatch(time)
    if found is None:
        raise ValueError(f"{time!r} is no time; write it as SLURM does: 90 (minutes), 12:00:00 or 2-00:00:00")
    parts = [int(part) for part in found["rest"].split(":")]
    if found["days"] is not None or len(parts) == 3:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    else:
        hours, minutes, seconds = (0, *parts, 0)[:3]
    return ((int(found["days"] or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _time(value: str) -> str:
    _seconds(value)
    return value


def _like(pattern: str, example: str) -> AfterValidator:
    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(f"{value!r} is not of the form {example}")
        return value

    return AfterValidator(check)


def _words(value: str) -> str:
    try:
        shlex.split(value)
    except ValueError:
        raise ValueError("a quotation mark in it is not closed") from None
    return value


Positive = Annotated[int, Field(gt=0)]


class JobSettings(BaseModel):
    """What one kind of job asks for. None leaves it to SLURM."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition: Annotated[str, _like(r"[^\s,]+(,[^\s,]+)*", "gpu, or gpu,long")] | None = None
    account: str | None = None
    qos: str | None = None
    gpus: Annotated[str, _like(r"([\w.-]+:)?\d+", "2, or a100:2")] = "0"  # of each job
    cpus: Positive | None = None
    memory: Annotated[str, _like(r"\d+[KMGT]?", "64G")] | None = None
    time: Annotated[str, AfterValidator(_time)] | None = None
    signal_seconds: Positive = 120  # how long before the time limit a job is told to stop
    restarts: Annotated[int, Field(ge=0)] = 50  # how often a job comes back before it gives up
    max_array: Positive | None = None  # tasks of an array that run at once
    options: tuple[Annotated[str, _like(r"--\S.*", "--constraint=h100")], ...] = ()  # more, for sbatch
    setup: str | None = None  # shell lines at the start of each job
    container: Annotated[str, AfterValidator(_words)] | None = None  # in front of every `datacreate`


class Site(JobSettings):
    """The whole file: what all jobs ask for, and what some ask for instead."""

    logs: str = "slurm-logs"  # folder of the jobs' output, seen from where they are submitted
    create: JobSettings = JobSettings()
    train: JobSettings = JobSettings()
    evaluate: JobSettings = JobSettings()
    report: JobSettings = JobSettings()
    sweep: JobSettings = JobSettings()
    serve: JobSettings = JobSettings()

    def job(self, name: str) -> JobSettings:
        """What the job of that name asks for: its own section over the rest of the file.

        Raises ValueError if the two together make no sense.
        """
        own = getattr(self, name).model_dump(exclude_unset=True)
        shared = self.model_dump(include=set(JobSettings.model_fields), exclude_unset=True)
        settings = JobSettings.model_validate({**shared, **own})
        if settings.time is not None and settings.signal_seconds >= _seconds(settings.time):
            where = f"{name}: " if {"time", "signal_seconds"} & own.keys() else ""
            raise ValueError(
                f"{where}signal_seconds: {settings.signal_seconds} s before the end of {settings.time} is "
                "before the start; lower it, or raise time"
            )
        return settings


JOBS = tuple(name for name, field in Site.model_fields.items() if field.annotation is JobSettings)


def site_path() -> Path:
    """Where the site's settings are looked for."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen).expanduser() if chosen else data_dir() / "site.yaml"


def load_site(path: Path | None = None) -> Site:
    """The settings in the file, by default `site_path()`. SiteError, naming file and key."""
    path = path or site_path()
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise SiteError(
            f"no site settings at {path}: copy {shipped('data', 'site.yaml')} there and fill it in, "
            f"or say where they are with ${VARIABLE}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SiteError(f"site settings {path}: cannot be read as text ({error})") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise SiteError(f"site settings {path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise SiteError(f"site settings {path}: no settings in it; a line each, such as `partition: gpu`")
    try:
        site = Site.model_validate(_filled(raw))
        for name in JOBS:
            _checked(site, name)
    except ValidationError as error:
        raise SiteError(f"site settings {path}: {_said(error)}") from None
    except ValueError as error:
        raise SiteError(f"site settings {path}: {error}") from None
    return site


def _checked(site: Site, name: str) -> None:
    try:
        site.job(name)
    except ValidationError as error:
        raise ValueError(f"{name}: {_said(error)}") from None


def _filled(raw: dict[Any, Any]) -> dict[str, Any]:
    """Without the keys that have no value."""
    told = {str(key): value for key, value in raw.items() if value != ""}
    return {key: _filled(value) if isinstance(value, dict) else value for key, value in told.items()}


class _Loader(yaml.BaseLoader):
    """YAML with every value as it is written, since 12:00:00 would be 43200; no key may be there twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value]
    for place, key in enumerate(keys):
        if key in keys[:place]:
            raise yaml.MarkedYAMLError(
                problem=f"key {key} is there twice", problem_mark=node.value[place][0].start_mark
            )
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _said(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    flaw = SettingsError.first(error)
    where = ".".join(part for part in flaw.place if isinstance(part, str))
    message = flaw.why
    if flaw.kind == "extra_forbidden":
        known = (JobSettings if len(flaw.place) > 1 else Site).model_fields
        message = f"there is no such key{near(str(flaw.place[-1]), known)}"
    elif flaw.kind != "value_error":
        message = f"{message}, not {str(flaw.given)[:60]!r}"
    return f"{where}{': ' if where else ''}{message}"


def near(name: str, known: Iterable[str]) -> str:
    """What to say of a name that is unknown: the nearest, or all there are."""
    names = list(known)
    found = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else f"; there are {', '.join(names)}"
