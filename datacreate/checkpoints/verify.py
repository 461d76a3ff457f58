"""Is what lies in the data directory still what was put there, and what the preset promises?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datacreate.checkpoints import lock, manifest, places
from datacreate.checkpoints.folder import Damaged
from datacreate.checkpoints.hashes import sha256_of
from datacreate.checkpoints.preset import Preset
from datacreate.checkpoints.progress import ByteCount, Progress, silent
from datacreate.errors import CheckpointError

State = Literal["present", "absent", "damaged"]


@dataclass(frozen=True)
class VerifyReport:
    """What a full verification found; `problems` is empty exactly when all is well."""

    name: str
    state: State
    problems: tuple[str, ...]
    hashed_bytes: int

    @property
    def good(self) -> bool:
        return self.state == "present"


def state(preset: Preset) -> State:
    """The cheap look (names, sizes, headers); milliseconds, whatever the size.

    What an earlier version converted from a GGUF counts as absent: the GGUF itself is needed.
    """
    folder = places.finished(preset.name)
    if not folder.is_dir():
        return "absent"
    try:
        found = manifest.read(folder)
        if found.converted_from:
            return "absent"
        manifest.check_sizes(folder, found, preset.trust_remote_code)
    except (Damaged, CheckpointError):
        return "damaged"
    return "present"


def verify(preset: Preset, progress: Progress = silent) -> VerifyReport:
    """Hash every byte: the files against the manifest, what arrived against preset and lock."""
    folder = places.finished(preset.name)
    if not folder.is_dir():
        problem = f"not here: run `datacreate models pull {preset.name}`"
        return VerifyReport(preset.name, "absent", (problem,), 0)
    problems: list[str] = []
    done = 0
    try:
        found = manifest.read(folder)
    except Damaged as damage:
        return VerifyReport(preset.name, "damaged", (str(damage),), 0)
    if found.converted_from:
        problem = f"converted by an earlier version: run `datacreate models pull {preset.name}`"
        return VerifyReport(preset.name, "absent", (problem,), 0)
    try:
        manifest.check_sizes(folder, found, preset.trust_remote_code)
    except (Damaged, CheckpointError) as damage:
        problems.append(str(damage))
    count = ByteCount(progress, "verifying", sum(record.size for record in found.files.values()))
    for name, record in found.files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
            continue
        if sha256_of(path, count) != record.sha256:
            problems.append(f"{name} is not what was pulled (its sha256 differs)")
        done += record.size
    expected = {*found.files, manifest.NAME}
    present = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    problems += [f"{name} was not part of it" for name in sorted(present) if name not in expected]
    problems += _broken_promises(preset, found)
    unique = tuple(dict.fromkeys(problems))
    return VerifyReport(preset.name, "damaged" if unique else "present", unique, done)


def _broken_promises(preset: Preset, found: manifest.Manifest) -> list[str]:
    """What arrived against the sha256 that the preset names for that source, or the first pull locked."""
    promised: dict[str, str] = {}
    for source in preset.sources:
        if source.label == found.source:
            promised |= source.sha256
    locked = lock.read(preset)
    if locked is not None:
        promised |= locked.sha256
    arrived = {name: record.sha256 for name, record in found.arrived.items()}
    return [
        f"{name} arrived with another sha256 than the preset promises"
        for name, sha256 in promised.items()
        if arrived.get(name) != sha256
    ]
