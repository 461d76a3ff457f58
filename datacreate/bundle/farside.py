"""The far side of a bundle: check it, put its files in place, make the environment.

This module, contents.py and placing.py are copied into every bundle, for a machine that has Python and
nothing of ours. So they import the standard library alone, and `datacreate bundle verify | install` run
this same code.

DIR/manifest.json     what there is: path, size, sha256, kind; the pieces of what was split
DIR/install.sh, .py   where to begin; DIR/installer/ is this code
DIR/wheels/           the environment, this project included
DIR/project/          this project's files, for its scripts
DIR/checkpoints/, locks/, presets/, benchmarks/   as they lie in the home
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

from datacreate.bundle.contents import Contents, Refused, Say, pour, problems, read
from datacreate.bundle.placing import fill_home, groups, require_empty, unpack, write


def default_home() -> Path:
    """The home as datacreate finds it on Linux."""
    chosen = os.environ.get("DATACREATE_HOME")
    data = os.environ.get("XDG_DATA_HOME", "").strip() or "~/.local/share"
    return (Path(chosen) if chosen else Path(data) / "datacreate").expanduser()


def install(folder: Path, to: Path, venv: Path | None, home: Path | None, say: Say) -> list[str]:
    """Everything in its place; the commands to type next. Refused says why not; what was done is kept.

    What is there already and whole is left alone, so that the same call goes on after a stop.
    """
    folder, to = folder.resolve(), to.expanduser().absolute()
    venv = (venv or to / ".venv").expanduser().absolute()
    home = (home or default_home()).expanduser().absolute()
    contents = read(folder)
    python = _suited(contents, say)
    found = list(problems(folder, contents, say, hashing=False))
    if to == folder or folder in to.parents:
        raise Refused(
            f"{to} is inside the bundle: choose a folder elsewhere for the project's files with --to"
        )
    require_empty(contents, to)
    wrong = [line for line in found if not line.endswith(": remove it")]
    if wrong:
        more = f" (and {len(wrong) - 1} more: `bundle verify` names them)" if len(wrong) > 1 else ""
        raise Refused(f"{folder}: {wrong[0]}{more}")
    try:
        _require_room(contents, to, venv, home)
        for entry in contents.entries:
            if entry.kind == "wheel":
                say(f"checking {entry.path}")
                pour(folder, entry, None)
        fill_home(folder, contents, home, say)
        unpack(folder, contents, to, say)
        if contents.environment_bytes:
            _make_environment(folder, contents, to, venv, python, say)
    except OSError as error:
        where = error.filename or home
        raise Refused(
            f"cannot write {where}: {error.strerror or error}; fix that, or choose other folders "
            "(--to, --venv, --home), and run the same command again",
            75,
        ) from None
    return _next(contents, to, venv, home)


def _suited(contents: Contents, say: Say) -> str:
    """The Python to build on; Refused where this machine is not the one the bundle was made for."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Refused(
            f"this bundle is for Linux on x86_64, not for {platform.system()} on {platform.machine()}: "
            "its wheels do not run here"
        )
    library, version = platform.libc_ver()
    if contents.glibc and (library != "glibc" or _numbers(version) < _numbers(contents.glibc)):
        raise Refused(
            f"this bundle needs glibc {contents.glibc}, and here is {library or 'none'} {version}".rstrip()
            + ": install it on a newer Linux, or in a container of one"
        )
    python = sys.executable
    here = "{}.{}".format(*sys.version_info[:2])
    if here != contents.python:
        python = shutil.which(f"python{contents.python}") or ""
        if not python:
            raise Refused(
                f"this bundle is for Python {contents.python}, and this is {platform.python_version()}: "
                f"install Python {contents.python}, or make the bundle with --python {here}"
            )
    elif sys.prefix != sys.base_prefix:
        # A venv of a venv would lead into the outer one when that is moved or removed.
        python = str(Path(sys.base_prefix, "bin", f"python{contents.python}"))
        python = python if Path(python).exists() else sys.executable
    tried = subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True)
    if contents.environment_bytes and tried.returncode:
        raise Refused(f"{python} cannot make environments: install its venv module (Debian: python3-venv)")
    if contents.platform == "gpu" and not Path("/dev/nvidia0").exists():
        say("note: no NVIDIA GPU here; the environment is for machines that have one")
    return python


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def _require_room(contents: Contents, to: Path, venv: Path, home: Path) -> None:
    """Refused, with the numbers, where a disk is too small for what is not there yet."""
    needs: list[tuple[Path, int]] = []
    for group, entries in groups(contents).items():
        if not (home / group).is_dir():
            needs.append((home, sum(entry.size for entry in entries)))
    joined = sum(entry.size for entry in contents.entries if entry.kind == "wheel" and entry.pieces)
    if not list(venv.glob("base.stamp")):
        needs += [(venv, contents.environment_bytes), (to, joined)]
    by_disk: dict[int, tuple[Path, int]] = {}
    for path, need in needs:
        there = next(parent for parent in (path, *path.parents) if parent.exists())
        disk = there.stat().st_dev
        by_disk[disk] = (by_disk.get(disk, (there, 0))[0], by_disk.get(disk, (there, 0))[1] + need)
    for there, need in by_disk.values():
        free = shutil.disk_usage(there).free
        if need > free:
            raise Refused(
                f"not enough room in {there}: {need / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB "
                "are free; make room there, or choose other folders (--to, --venv, --home), and run the same "
                "command again",
                75,
            )


def _make_environment(folder: Path, contents: Contents, to: Path, venv: Path, python: str, say: Say) -> None:
    """scripts/setup does it, as everywhere, from these wheels alone."""
    joined = to / ".wheels"
    command = ["bash", str(to / "scripts" / "setup"), f"--{contents.platform}", "--venv", str(venv)]
    command += ["--wheels", str(folder / "wheels")]
    try:
        for entry in contents.entries:
            if entry.kind == "wheel" and entry.pieces:
                say(f"joining {entry.path}")
                write(folder, entry, joined / PurePosixPath(entry.path).name)
        if joined.is_dir():
            command += ["--wheels", str(joined)]
        made = subprocess.run(command, env={**os.environ, "PYTHON": python}, stdin=subprocess.DEVNULL)
    finally:
        shutil.rmtree(joined, ignore_errors=True)
    if made.returncode:
        raise Refused(
            f"the environment {venv} is not ready (scripts/setup says why above); the rest is in place: fix "
            "that and run the same command again"
        )


def _next(contents: Contents, to: Path, venv: Path, home: Path) -> list[str]:
    """Two commands to type, after the settings that they want."""
    lines = [f"cd {shlex.quote(str(to))}"]
    if home != default_home().absolute():
        lines.append(f"export DATACREATE_HOME={shlex.quote(str(home))}")
    elsewhere = "" if venv == to / ".venv" else shlex.quote(str(venv))
    lines.append(f"{elsewhere or '.venv'}/bin/datacreate doctor")
    if contents.models:
        demo = f"scripts/demo --{contents.platform} --offline --model {contents.models[0]}"
        lines.append(demo + (f" --venv {elsewhere}" if elsewhere else ""))
    return lines


def main(folder: Path) -> int:
    """`python3 install.py`, in the bundle."""
    parser = argparse.ArgumentParser(description="Check this bundle and install datacreate from it.")
    parser.add_argument(
        "--to", type=Path, default=Path("datacreate"), help="the project's files (default: ./datacreate)"
    )
    parser.add_argument("--venv", type=Path, help="the environment (default: .venv there)")
    parser.add_argument("--home", type=Path, help="checkpoints and benchmarks (default: datacreate's usual)")
    parser.add_argument("--verify", action="store_true", help="only compare every byte with the manifest")
    wanted = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    try:
        if wanted.verify:
            contents = read(folder)
            good = True
            for line in problems(folder, contents, lambda _: None):
                good = False
                print(line)
            if good:
                print(f"good: {len(contents.entries)} files")
            return 0 if good else 1
        lines = install(folder, wanted.to, wanted.venv, wanted.home, say)
    except Refused as refused:
        say(f"install: {refused}")
        return refused.exit_code
    except KeyboardInterrupt:
        say("install: stopped; run the same command to go on")
        return 75
    print("installed; now:", *lines, sep="\n  ")
    return 0
