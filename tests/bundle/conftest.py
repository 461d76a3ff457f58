"""A small project, a small index and a small home: all that a bundle carries, in kilobytes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from datacreate.bundle import Contents, RequestedSettings, Target, make
from datacreate.checkpoints import pull
from tests.benchmarks.conftest import claims, imported
from tests.checkpoints.conftest import Index, checkpoint_files, hashes, make_preset, write_files

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "{}.{}".format(*sys.version_info[:2])

_PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "datacreate"
version = "7.1"
requires-python = ">=3.11"

[project.scripts]
datacreate = "datacreate:main"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a checkpoint called tiny and a benchmark, creak."""
    place = tmp_path / "home"
    monkeypatch.setenv("DATACREATE_HOME", str(place))
    files = checkpoint_files()
    source = write_files(tmp_path / "source", files)
    preset = make_preset({"path": str(source), "sha256": hashes(files)})
    monkeypatch.setattr("datacreate.bundle.gather.find_preset", lambda name: preset)
    pull(preset)
    imported(tmp_path / "reference", "creak", {"test": claims(6)})
    return place


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """The wheels that the small project is pinned to."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    index = Index(folder)
    for package in ("torch", "alpha", "beta"):
        index.add(package, {f"{package}.py": b"# " + package.encode() * 300})
    return index


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the real scripts."""
    place = tmp_path / "checkout"
    (place / "datacreate").mkdir(parents=True)
    (place / "constraints").mkdir()
    (place / "scripts").mkdir()
    (place / "pyproject.toml").write_text(_PYPROJECT)
    (place / "datacreate" / "__init__.py").write_text("def main():\n    print('datacreate 7.1')\n")
    pins = "# small\ntorch==1.0\nalpha==1.0\nbeta==1.0\nnever==1.0 ; python_version >= '4'\n"
    (place / "constraints" / "cpu.txt").write_text(pins)
    (place / "constraints" / "dev.txt").write_text("")
    for script in ("setup", "demo"):
        shutil.copy(ROOT / "scripts" / script, place / "scripts")
    monkeypatch.setattr("datacreate.bundle.project.shipped", lambda: place)
    return place


WISHES = RequestedSettings(Target("cpu", PYTHON), encoders=("tiny",), benchmarks=("creak",))

Make = Callable[..., Contents]


@pytest.fixture
def bundled(home: Path, index: Index, checkout: Path, tmp_path: Path) -> Make:
    """Makes a bundle in `tmp_path / "bundle"` with these wishes changed."""
    return lambda **changed: make(tmp_path / "bundle", replace(WISHES, **changed))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "bundle"


@pytest.fixture
def plain(bundled: Make, out: Path) -> Path:
    """A bundle without wheels, in pieces of 500 bytes: quickly made."""
    bundled(wheels=False, piece_bytes=500)
    return out


def said(line: str) -> None:
    """Nobody listens."""
