"""The wheel holds all that the package needs, and works away from the checkout."""

from __future__ import annotations

import os
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


def pip(*arguments: str | Path) -> None:
    """Run pip without any index: what is asked for is all here."""
    command = [sys.executable, "-m", "pip", *arguments, "--no-index", "--no-deps", "--quiet"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    [built] = folder.glob("datacreate-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package and nothing else of this project."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--target", folder, wheel)
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


def test_the_wheel_holds_the_templates_of_the_report(wheel: Path) -> None:
    templates = ROOT / "datacreate" / "reporting" / "templates"
    with zipfile.ZipFile(wheel) as archive:
        assert {f"datacreate/reporting/templates/{path.name}" for path in templates.iterdir()} <= set(
            archive.namelist()
        )


def test_the_source_distribution_can_be_built_from(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert shipped_files() | {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_installed_package_says_its_version(installed: Path) -> None:
    assert python(installed, "-m", "datacreate", "--version") == "datacreate 0.1.0"


def test_the_installed_package_finds_what_it_ships(installed: Path) -> None:
    look = "import datacreate.resources as r; print(r.shipped('schemas', 'multiple_choice.json'))"
    found = Path(python(installed, "-c", look))
    assert found.is_file()
    assert found.is_relative_to(installed)


def test_the_installed_package_loads_its_presets(installed: Path) -> None:
    assert "qwen2.5-coder-0.5b-instruct" in python(installed, "-m", "datacreate", "models", "list")


@pytest.mark.parametrize("platform", ["cpu", "gpu", "dev"])
def test_everything_is_pinned(platform: str) -> None:
    lines = (ROOT / "constraints" / f"{platform}.txt").read_text().splitlines()
    pins = [line.partition(" ;")[0] for line in lines if line and not line.startswith("#")]
    assert pins
    assert [pin for pin in pins if pin.count("==") != 1 or "+" in pin or "/" in pin] == []
