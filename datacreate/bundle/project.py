"""This project itself: its wheel, its files, and what begins the work on the far side."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from datacreate.bundle.filling import Filling
from datacreate.errors import BundleError
from datacreate.paths import shipped

_HERE = Path(__file__).parent
_FAR_SIDE = ("contents.py", "placing.py", "farside.py")


def root() -> Path:
    """The checkout; BundleError where datacreate runs from an installed wheel, which has no scripts."""
    found = shipped()
    if not (found / "constraints").is_dir() or not (found / "pyproject.toml").is_file():
        raise BundleError(
            f"{found}: not a checkout of the project, whose scripts and constraints a bundle carries: run "
            "`python -m datacreate bundle make` in one"
        )
    return found


def build(filling: Filling, checkout: Path, *, wheel: bool) -> None:
    """The source archive, and the wheel, by the build backend installed here; the same each time."""
    built = filling.work / "project"
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(built)]
    command += ["--target", "wheel"] if wheel else []
    with filling.storage_errors():
        built.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        words = (done.stderr.strip() or "it says nothing").splitlines()[-1]
        raise BundleError(
            f"hatchling cannot build {checkout}: {words}; scripts/setup installs what it needs, "
            "then run this again"
        )
    for file in sorted(built.iterdir()):
        kind, place = ("wheel", "wheels") if file.suffix == ".whl" else ("project", "project")
        filling.add(f"{place}/{file.name}", file, kind)


def add_installer(filling: Filling, python: str) -> None:
    """install.sh, install.py, and the code that both lead to."""
    script = (_HERE / "install.sh").read_text(encoding="utf-8").replace("@PYTHON@", python)
    texts = {"install.sh": script, "install.py": (_HERE / "launcher.py").read_text(encoding="utf-8")}
    for package in ("installer/datacreate", "installer/datacreate/bundle"):
        # Empty: what a far side's own datacreate would find in these must not come along.
        texts[f"{package}/__init__.py"] = ""
    for name in _FAR_SIDE:
        texts[f"installer/datacreate/bundle/{name}"] = (_HERE / name).read_text(encoding="utf-8")
    with filling.storage_errors():
        filling.work.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            written = filling.work / "text"
            written.write_text(text, encoding="utf-8")
            filling.add(path, written, "installer")
