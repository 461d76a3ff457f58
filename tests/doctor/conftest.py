"""A machine in order: a home with a model, an encoder and a benchmark, libraries as pinned, a compiler."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from datacreate.checkpoints import find_preset, manifest
from datacreate.checkpoints.hashes import spec
from datacreate.checkpoints.manifest import FileRecord, Manifest
from datacreate.cli.doctor import doctor
from datacreate.doctor.software import pins
from tests.benchmarks.conftest import choices, imported
from tests.checkpoints.conftest import checkpoint_files, hashes, write_files

MODEL, ENCODER = "qwen2.5-coder-1.5b-instruct", "all-mpnet-base-v2"

GIB = 1024**3


def put(home: Path, name: str) -> Path:
    """A tiny checkpoint in the home, as a pull of that preset leaves it."""
    files = checkpoint_files()
    folder = write_files(home / "checkpoints" / find_preset(name).name, files)
    sha256 = hashes(files)
    records = {each: FileRecord(size=len(files[each]), sha256=sha256[each]) for each in files}
    told = {"name": name, "spec": spec(sha256), "source": "a test", "arrived": {}, "files": records}
    manifest.write(folder, Manifest(**told, when="2026-01-01T00:00:00+00:00", versions={}))
    return folder


@dataclass(frozen=True)
class Seen:
    """What `datacreate doctor --json` said."""

    code: int
    document: dict[str, Any]

    @property
    def lines(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.document["lines"]
        return found

    def line(self, name: str, section: str | None = None) -> dict[str, Any]:
        """The one line of that name."""
        [line] = [line for line in self.lines if line["name"] == name and section in (None, line["section"])]
        return line

    @property
    def red(self) -> dict[str, str]:
        """Name -> the command that fixes it."""
        return {line["name"]: line["fix"] for line in self.lines if line["state"] == "red"}


def look(*arguments: object) -> Seen:
    """`datacreate doctor --json`, with whatever comes behind."""
    ended = CliRunner().invoke(doctor, ["--json", *map(str, arguments)])
    if ended.exception and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return Seen(ended.exit_code, json.loads(ended.stdout))


def screen(*arguments: object) -> str:
    """What stands on the screen."""
    return CliRunner().invoke(doctor, list(map(str, arguments))).stdout


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Package -> version that its metadata tells; a test may change or remove some."""
    real, told = metadata.version, {"xllamacpp": "2026.10.11549", "vllm": "", **pins("cpu")}

    def version(name: str) -> str:
        found = told.get(name)
        if found is None and name not in pins("cpu"):
            return real(name)
        if not found:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)
    return told


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Put a shell script on the PATH, which holds nothing else but a g++."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put_program(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    put_program("g++", "exit 0")
    return put_program


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Say how many GiB are free."""

    def free(gib: float) -> None:
        found = SimpleNamespace(available=int(gib * GIB), total=64 * GIB, percent=1.0)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: found)

    free(48.0)
    return free


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packages: object, programs: object, memory: object
) -> Path:
    """The home of a machine in order."""
    place = tmp_path / "home"
    monkeypatch.setenv("DATACREATE_HOME", str(place))
    for name in (
        "SLURM_JOB_ID",
        "SLURM_ARRAY_TASK_ID",
        "SLURM_JOB_PARTITION",
        "SLURM_JOB_NODELIST",
        "DATACREATE_SITE",
    ):
        monkeypatch.delenv(name, raising=False)
    put(place, MODEL)
    put(place, ENCODER)
    splits = {"train": choices(8, 5), "dev": choices(4, 5, 50), "test": choices(4, 5, 90)}
    imported(tmp_path / "reference", "csqa", splits)
    return place
