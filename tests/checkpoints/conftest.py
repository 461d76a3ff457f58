"""A package index of tiny wheels, and a home of its own for every test.

The real pip reads the wheels: `PIP_FIND_LINKS` points at them, `PIP_NO_INDEX` keeps it off all else.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from datacreate.checkpoints import Preset


def safetensors_bytes(seed: int = 0, floats: int = 256) -> bytes:
    """A safetensors file with one float32 tensor."""
    body = struct.pack(f"<{floats}f", *(float(seed + i) for i in range(floats)))
    entry = {"dtype": "F32", "shape": [floats], "data_offsets": [0, len(body)]}
    header = json.dumps({"weight": entry}).encode()
    return struct.pack("<Q", len(header)) + header + body


def checkpoint_files(seed: int = 0) -> dict[str, bytes]:
    """What a complete checkpoint consists of, in small."""
    return {
        "config.json": b'{"model_type": "bert"}',
        "tokenizer.json": b"{}",
        "model.safetensors": safetensors_bytes(seed),
        "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
    }


def hashes(files: dict[str, bytes]) -> dict[str, str]:
    return {name: sha256(content).hexdigest() for name, content in files.items()}


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zipped(files: dict[str, bytes]) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


@dataclass
class Index:
    """The folder that pip finds its wheels in."""

    folder: Path

    def add(self, package: str, files: dict[str, bytes], version: str = "1.0") -> Path:
        module = package.replace("-", "_")
        info = f"{module}-{version}.dist-info"
        meta = {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": b"",
        }
        wheel = self.folder / f"{module}-{version}-py3-none-any.whl"
        wheel.write_bytes(zipped(files | meta))
        return wheel


@dataclass
class Heard:
    """A Progress that remembers."""

    calls: list[tuple[str, int, int]] = field(default_factory=list)

    def __call__(self, stage: str, done: int, total: int, unit: str) -> None:
        self.calls.append((stage, done, total))

    @property
    def stages(self) -> list[str]:
        return list(dict.fromkeys(stage for stage, _, _ in self.calls))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "home"
    place.mkdir()
    monkeypatch.setenv("DATACREATE_HOME", str(place))
    return place


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return Index(folder)


@pytest.fixture
def heard() -> Heard:
    return Heard()


MakePreset = Callable[..., Preset]


def make_preset(*sources: dict[str, Any], **settings: Any) -> Preset:
    """A preset called `tiny` with these sources."""
    usual = {
        "name": "tiny",
        "kind": "encoder",
        "description": "d",
        "parameters": "1M",
        "license": "MIT",
        "size_bytes": 2000,
    }
    return Preset.model_validate(usual | settings | {"sources": list(sources)})


def pieces_source(index: Index, files: dict[str, bytes] | None = None, count: int = 3) -> dict[str, Any]:
    """A checkpoint, zipped and cut into packages `piece-1` ... of the index."""
    files = checkpoint_files() if files is None else files
    whole = zipped({f"inner/{name}": content for name, content in files.items()} | {"inner/run.py": b"boom"})
    step = -(-len(whole) // count)
    for i in range(count):
        index.add(f"piece-{i + 1}", {f"piece_{i + 1}/data/x.zip.{i}": whole[i * step : (i + 1) * step]})
    return {
        "packages": [f"piece-{{1..{count}}}"],
        "version": "1.0",
        "member": "*/data/x.zip.*",
        "file": "x.zip",
        "folder": "inner",
        "sha256": hashes(files),
    }
