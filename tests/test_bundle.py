"""scripts/bundle with a small project and local wheels: what it makes installs without an index."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "datacreate"
version = "0.1.0"
[project.scripts]
datacreate = "datacreate:main"
"""


def write_wheel(folder: Path, name: str, version: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A user whose pip knows one folder of wheels, with a model, a Hub model and a benchmark."""
    home = tmp_path_factory.mktemp("home")
    (home / "wheels").mkdir()
    write_wheel(home / "wheels", "torch", "2.0")
    write_wheel(home / "wheels", "needed", "1.0")
    for path in (
        "data/checkpoints/tiny/model.safetensors",
        "data/benchmarks/csqa/manifest.json",
        "hub/models--org--name/blobs/1234",
    ):
        (home / path).parent.mkdir(parents=True)
        (home / path).write_text(path)
    (home / "hub/models--org--name/model.safetensors").symlink_to("blobs/1234")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    return kept | {
        "HOME": str(home),
        "PYTHON": sys.executable,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(home / "wheels"),
        "DATACREATE_HOME": str(home / "data"),
        "HF_HUB_CACHE": str(home / "hub"),
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project like this one, but small."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "constraints").mkdir()
    (folder / "scripts").mkdir()
    (folder / "datacreate").mkdir()
    for name in ("bundle", "setup", "uv-settings"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts" / name)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "datacreate" / "__init__.py").write_text("def main():\n    print('datacreate 0.1.0')\n")
    (folder / "constraints" / "llamacpp.txt").write_text("# small\nneeded==1.0\ntorch==2.0\n")
    (folder / "constraints" / "dev.txt").write_text("")
    return folder


def run(*command: object, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def bundle(project: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stick") / "bundle"
    options = ("--model", "tiny", "--model", "org/name", "--benchmark", "all")
    ended = run(project / "scripts" / "bundle", *options, folder, environment=environment)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bundles are for Linux")
@pytest.mark.slow
def test_a_bundle_installs_without_an_index(bundle: Path, environment: dict[str, str], tmp_path: Path) -> None:
    target = {"HOME": str(tmp_path), "PATH": environment["PATH"], "PYTHON": sys.executable}
    ended = run("sh", bundle / "install", environment=target)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    installed = tmp_path / "datacreate" / ".venv" / "bin" / "datacreate"
    assert run(installed, environment=target).stdout == "datacreate 0.1.0\n"
    data, hub = tmp_path / ".local/share/datacreate", tmp_path / ".cache/huggingface/hub"
    assert (data / "checkpoints/tiny/model.safetensors").is_file()
    assert (data / "benchmarks/csqa/manifest.json").is_file()
    assert (hub / "models--org--name/model.safetensors").read_text() == "hub/models--org--name/blobs/1234"


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_a_damaged_bundle_is_not_installed(
    bundle: Path, environment: dict[str, str], tmp_path: Path, damage: str
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy", symlinks=True))
    path = copy / "data/checkpoints/tiny/model.safetensors"
    if damage == "altered":
        path.write_text("data/checkpoints/tiny/model.safetensorz")
    else:
        path.unlink()
    ended = run("sh", copy / "install", "--to", environment=environment)
    assert (ended.returncode, ended.stderr) == (2, "install: --to needs a folder\n")
    ended = run("sh", copy / "install", "--to", tmp_path / "to", environment=environment)
    assert ended.returncode == 1
    assert "checkpoints/tiny/model.safetensors" in ended.stdout + ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("install: damaged or incomplete")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "absent"], "absent is not downloaded here: run datacreate models pull absent"),
        (["--benchmark", "piqa"], "the benchmark piqa is not imported here"),
    ],
)
def test_what_is_not_on_this_machine_is_an_error(
    project: Path, environment: dict[str, str], tmp_path: Path, options: list[str], message: str
) -> None:
    ended = run(project / "scripts" / "bundle", *options, tmp_path / "bundle", environment=environment)
    assert ended.returncode == 1
    assert message in ended.stderr
    assert not (tmp_path / "bundle" / "SHA256SUMS").exists()
