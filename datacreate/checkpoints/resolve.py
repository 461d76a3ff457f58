"""A preset's name or a folder -> a checkpoint that can be loaded, at the start of every run.

Milliseconds, offline, without torch: sizes and headers are looked at, not contents. The
full check is `verify`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from datacreate.checkpoints import manifest, places
from datacreate.checkpoints.catalogue import find_preset
from datacreate.checkpoints.checkpoint import UNSEEN, Checkpoint
from datacreate.checkpoints.folder import Damaged, check_loadable, is_kept
from datacreate.checkpoints.hashes import quick_identity
from datacreate.checkpoints.writes import check_writes
from datacreate.errors import CheckpointError

_OTHER = {"instruct": "an instruct model", "encoder": "an encoder"}


def resolve(
    name_or_path: str,
    kind: Literal["instruct", "encoder"],
    presets: Path | None = None,
    *,
    remote_code: bool = False,
) -> Checkpoint:
    """Find and check a checkpoint; `presets` is the folder of presets, by default the shipped ones.

    A name without a slash that a preset has is that preset; otherwise an existing folder. A publisher's
    code may run only if the preset says so and `remote_code` is given. Raises CheckpointError: unknown,
    not pulled yet, of the other kind, damaged, or not safe to load.
    """
    place = Path(name_or_path).expanduser()
    if name_or_path.startswith((".", "~", os.sep)) or (os.sep in name_or_path and place.is_dir()):
        return _local(place, kind)
    try:
        preset = find_preset(name_or_path, presets)
    except CheckpointError:
        if place.is_dir():
            return _local(place, kind)
        raise
    if preset.kind != kind:
        raise CheckpointError(
            f"{preset.name} is {_OTHER[preset.kind]}, and {_OTHER[kind]} is needed here: "
            "`datacreate models list` shows which is which"
        )
    if preset.remote_code and not remote_code:
        raise CheckpointError(
            f"{preset.name} needs Python code of its publisher's to run here: say --remote-code to let it, "
            "or take another model"
        )
    folder = places.finished(preset.name)
    if not folder.is_dir():
        raise CheckpointError(f"{preset.name} is not here yet: run `datacreate models pull {preset.name}`")
    sha256 = _checked_identity(folder, preset.name, preset.remote_code)
    return Checkpoint(preset.name, folder, sha256, preset, remote_code=preset.remote_code)


def served(name_or_path: str) -> Checkpoint:
    """What a server has under that name: the checkpoint here if it is here, else the name alone."""
    try:
        return resolve(name_or_path, "instruct", remote_code=True)
    except CheckpointError:
        pass
    try:
        preset = find_preset(name_or_path)
    except CheckpointError:
        preset = None
    return Checkpoint(name_or_path, Path(name_or_path), UNSEEN + name_or_path, preset)


def _checked_identity(folder: Path, name: str, remote_code: bool = False) -> str:
    try:
        found = manifest.read(folder)
        manifest.check_sizes(folder, found, remote_code)
    except Damaged as damage:
        raise CheckpointError(
            f"checkpoint {name} is damaged ({damage}): run `datacreate models pull {name} --force`"
        ) from damage
    return found.identity


def _local(folder: Path, kind: Literal["instruct", "encoder"]) -> Checkpoint:
    """A folder of the user's own; one that `pull` made keeps the identity it was given there."""
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such folder; give a preset's name or a Hugging Face checkpoint's folder"
        )
    folder = folder.resolve()
    pulled = (folder / manifest.NAME).is_file()
    sha256 = _checked_identity(folder, folder.name) if pulled else None
    try:
        if sha256 is None:
            check_loadable(folder)
        if kind == "instruct":
            check_writes(folder)
    except Damaged as damage:
        raise CheckpointError(f"checkpoint {folder} is damaged: {damage}; copy or save it again") from damage
    if sha256 is None:
        names = [path.name for path in folder.iterdir() if path.is_file() and is_kept(path.name)]
        sha256 = quick_identity(folder, names)
    return Checkpoint(folder.name, folder, sha256, None)
