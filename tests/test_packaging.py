"""The wheel works without the checkout, the pinned lists are complete, and scripts/setup chooses among them."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from datacreate.hardware import OLDEST_DRIVER

ROOT = Path(__file__).resolve().parent.parent


def files(*folders: str) -> set[str]:
    """The files in these folders of the checkout, as paths relative to it."""
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts}


SHIPPED = files("models", "schemas", "data")


def build(target: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


def test_the_wheel_has_every_file_that_the_package_reads(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if "dist-info" not in name}
    assert {f"datacreate/_shipped/{name}" for name in SHIPPED} <= names
    assert files("datacreate") <= names
    assert {name.split("/")[0] for name in names} == {"datacreate"}


def test_the_source_distribution_can_be_built_from(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert SHIPPED | {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_installed_package_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    command = [sys.executable, "-m", "datacreate", "models", "list"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    listed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "qwen2.5-coder-0.5b-instruct" in listed.stdout


def pins(name: str) -> dict[str, str]:
    """Package -> version, from a list in constraints/."""
    lines = (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    wanted = [line.partition(" ;")[0] for line in lines if line and not line.startswith("#")]
    assert [pin for pin in wanted if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
    return dict(pin.split("==") for pin in wanted)


def test_the_lists_pin_one_version_and_fit_each_other() -> None:
    lists = {name: pins(name) for name in ("llamacpp", "cpu", "gpu", "dev")}
    assert lists["llamacpp"].items() <= lists["cpu"].items()
    assert "xllamacpp" in lists["gpu"]
    assert lists["gpu"]["cuda-python"] == lists["gpu"]["cuda-bindings"]


def test_every_imported_library_is_in_the_smallest_list() -> None:
    imported: set[str] = set()
    for path in (ROOT / "datacreate").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    libraries = imported - sys.stdlib_module_names - {"datacreate", "vllm", "markitdown"}
    other_names = {"yaml": "pyyaml", "sklearn": "scikit-learn"}
    assert {other_names.get(name, name.replace("_", "-")) for name in libraries} <= pins("llamacpp").keys()


@pytest.mark.parametrize("recipe", ["Dockerfile", "datacreate.def"])
def test_a_container_recipe_copies_what_the_package_needs(recipe: str) -> None:
    text = (ROOT / "scripts" / "container" / recipe).read_text()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        assert name in text
    for name in ("constraints", "scripts", "models", "schemas", "data", "datacreate"):
        assert f"COPY {name} {name}\n" in text or f"    {name} /opt/datacreate/\n" in text


def setup(
    folder: Path, *options: str, uname: str = "Linux x86_64", bf16: bool = False, code: int = 1, **more: str
) -> str:
    """What scripts/setup prints on such a machine, where no environment can be made; `more` are programs there."""
    commands = {
        "uname": f"echo {uname}",
        "nvidia-smi": "exit 1",
        "grep": f'case "$*" in *avx512_bf16*) exit {int(not bf16)} ;; esac; exec {shutil.which("grep")} "$@"',
        "python3": 'case "$*" in "-c import sys"*) ;; -V) echo Python 3 ;; *) echo no disk; exit 1 ;; esac',
        "sbatch": "exit 1",
        "sinfo": "echo no configuration; exit 1",  # SLURM is installed, and is not used
    } | {name.replace("_", "-"): script for name, script in more.items()}
    for name, script in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": ""}
    command = [ROOT / "scripts" / "setup", "--venv", folder / "venv", *options]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == code
    return ended.stderr


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    ("options", "uname", "bf16", "chosen"),
    [
        ([], "Linux x86_64", False, "llamacpp"),
        ([], "Linux x86_64", True, "cpu"),
        (["--dev"], "Linux x86_64", False, "cpu"),  # a test starts vLLM's server
        (["--llamacpp"], "Linux x86_64", True, "llamacpp"),
        (["--gpu"], "Linux x86_64", False, "gpu"),
        ([], "Darwin arm64", True, "llamacpp"),
    ],
)
def test_setup_chooses_the_engines_for_the_machine(
    options: list[str], uname: str, bf16: bool, chosen: str, tmp_path: Path
) -> None:
    output = setup(tmp_path, *options, uname=uname, bf16=bf16)
    assert f"({chosen})" in output.splitlines()[0]
    assert ("untested" in output) == (uname != "Linux x86_64")
    assert "no disk" in output  # why it failed


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
def test_setup_asks_on_a_login_node_and_remembers_the_choice(tmp_path: Path) -> None:
    asked = setup(tmp_path, sinfo="echo 'gpu up 2 idle node[1-2]'", code=2)
    assert asked.count("\n") == 1
    assert "scripts/setup --gpu" in asked
    assert "scripts/setup --llamacpp" in asked
    cluster = {"sinfo": "echo 'gpu up 2 idle node[1-2]'"}
    assert "(gpu)" in setup(tmp_path, "--gpu", **cluster)
    assert "(cpu)" in setup(tmp_path, "--dev", **cluster)  # for the tests
    (tmp_path / "venv" / "platform").write_text("gpu\n")
    assert "(gpu)" in setup(tmp_path, **cluster)
    assert "(gpu)" in setup(tmp_path)
    assert "(llamacpp)" in setup(tmp_path, "--llamacpp")


@pytest.mark.parametrize(("driver", "noted"), [("575.57.08", True), ("580.82.07", False), ("No devices", False)])
def test_setup_says_that_the_driver_is_too_old_for_the_gpu_build(driver: str, noted: bool, tmp_path: Path) -> None:
    output = setup(tmp_path, nvidia_smi=f"echo '{driver}'")
    assert "(gpu)" in output
    assert (f"driver {driver}; the GPU build needs {OLDEST_DRIVER} or newer" in output) == noted


def test_setup_says_what_vllm_compiles_with_that_is_missing(tmp_path: Path) -> None:
    python = f'case "$*" in *sysconfig*) echo {tmp_path} ;; "-c import sys"*) ;; *) exit 1 ;; esac'
    lacking = f"install a C compiler and {tmp_path}/Python.h (Debian: g++ python3-dev)"
    assert lacking in setup(tmp_path, "--gpu", python3=python, gcc="")
    (tmp_path / "Python.h").touch()
    assert lacking not in setup(tmp_path, "--gpu", python3=python, gcc="")


def test_setup_refuses_vllm_where_it_is_not_pinned(tmp_path: Path) -> None:
    output = setup(tmp_path, "--gpu", uname="Linux aarch64")
    assert output.startswith("setup: vLLM is pinned for Linux on x86-64")
    assert output.count("\n") == 1
