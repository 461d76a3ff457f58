"""The wheel holds all that the package needs, and works away from the checkout."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ("models", "schemas", "data")


def shipped_files() -> set[str]:
    """Paths under models/, schemas/ and data/, as in the checkout."""
    files = (path for folder in SHIPPED for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


def build(target: str, folder: Path) -> Path:
    """Build a wheel or a source distribution of the checkout."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package and nothing else of this project."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)  # all that installing a wheel of pure Python does
    return folder


def python(installed: Path, *arguments: str) -> str:
    """Run Python on the installed package, in a folder far from the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    told = subprocess.run(
        [sys.executable, *arguments],
        cwd=installed.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout.strip()


def test_the_wheel_holds_every_shipped_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    prefix = "datacreate/_shipped/"
    assert {name.removeprefix(prefix) for name in names if name.startswith(prefix)} == shipped_files()
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"datacreate"}


def test_the_wheel_holds_the_templates(wheel: Path) -> None:
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "datacreate").rglob("*.j2")}
    with zipfile.ZipFile(wheel) as archive:
        assert templates
        assert templates <= set(archive.namelist())


def test_the_source_distribution_can_be_built_from(tmp_path: Path) -> None:
    archive = build("sdist", tmp_path)
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert shipped_files() | {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_installed_package_says_its_version(installed: Path) -> None:
    assert python(installed, "-m", "datacreate", "--version") == "datacreate 0.1.0"


def test_the_installed_package_finds_what_it_ships(installed: Path) -> None:
    look = "import datacreate.paths as r; print(r.shipped('schemas', 'multiple_choice.json'))"
    found = Path(python(installed, "-c", look))
    assert found.is_file()
    assert found.is_relative_to(installed)


def test_the_installed_package_loads_its_presets(installed: Path) -> None:
    assert "qwen2.5-coder-0.5b-instruct" in python(installed, "-m", "datacreate", "models", "list")


def pins(name: str) -> dict[str, str]:
    """Package -> version, from a list in constraints/."""
    lines = (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    wanted = [line.partition(" ;")[0] for line in lines if line and not line.startswith("#")]
    assert wanted
    assert [pin for pin in wanted if pin.count("==") != 1 or "+" in pin or "/" in pin] == []
    return dict(pin.split("==") for pin in wanted)


@pytest.mark.parametrize("name", ["llamacpp", "cpu", "gpu", "dev"])
def test_everything_is_pinned(name: str) -> None:
    assert pins(name)


def test_an_environment_with_vllm_holds_the_one_without() -> None:
    assert pins("llamacpp").items() <= pins("cpu").items()
    assert "xllamacpp" in pins("gpu")


def test_the_python_bindings_of_cuda_are_of_one_version() -> None:
    gpu = pins("gpu")
    assert gpu["cuda-python"] == gpu["cuda-bindings"]


def test_what_is_imported_is_installed_without_vllm() -> None:
    """Every library that datacreate imports is in the list of the smallest environment."""
    imported: set[str] = set()
    for path in (ROOT / "datacreate").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    foreign = imported - sys.stdlib_module_names - {"datacreate", "vllm"}
    other_names = {"yaml": "pyyaml", "sklearn": "scikit-learn"}
    packages = {other_names.get(module, module.replace("_", "-")) for module in foreign}
    assert packages <= pins("llamacpp").keys()


def setup(folder: Path, *options: str, uname: str = "Linux x86_64", bf16: bool = False) -> str:
    """What scripts/setup says on a machine of that kind, where no environment can be made."""
    commands = {
        "uname": f"echo {uname}",
        "nvidia-smi": "exit 1",
        "grep": f'case "$*" in *avx512_bf16*) exit {int(not bf16)} ;; esac; exec {shutil.which("grep")} "$@"',
        "python3": 'case "$*" in "-c import sys"*) ;; -V) echo Python 3 ;; *) echo no disk; exit 1 ;; esac',
    }
    for name, script in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": ""}
    command = [ROOT / "scripts" / "setup", "--venv", folder / "venv", *options]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    return told.stderr


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    ("options", "uname", "bf16", "chosen"),
    [
        ([], "Linux x86_64", False, "llamacpp"),
        ([], "Linux x86_64", True, "cpu"),
        (["--dev"], "Linux x86_64", False, "cpu"),  # a test starts vLLM's own server
        (["--llamacpp"], "Linux x86_64", True, "llamacpp"),
        (["--gpu"], "Linux x86_64", False, "gpu"),
        ([], "Darwin arm64", True, "llamacpp"),
        (["--dev"], "Darwin arm64", False, "llamacpp"),
    ],
)
def test_setup_installs_what_suits_the_machine(
    options: list[str], uname: str, bf16: bool, chosen: str, tmp_path: Path
) -> None:
    said = setup(tmp_path, *options, uname=uname, bf16=bf16)
    assert f"datacreate environment for this machine ({chosen})" in said
    assert ("Not tested on this platform" in said) == (uname != "Linux x86_64")
    assert "no disk" in said  # why a stage failed


@pytest.mark.parametrize("option", ["--cpu", "--gpu"])
def test_setup_says_where_vllm_does_not_install(option: str, tmp_path: Path) -> None:
    said = setup(tmp_path, option, uname="Linux aarch64")
    assert said.startswith("setup: the builds of vLLM pinned here are for Linux on x86-64")
    assert said.count("\n") == 1
