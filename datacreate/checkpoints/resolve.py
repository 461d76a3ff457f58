"""A preset's name or a folder -> a checkpoint that can be loaded, at the start of every run.

Milliseconds, offline, without torch: sizes and headers are looked at, not contents. The
full check is `verify`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datacreate.checkpoints import manifest, places
from datacreate.checkpoints.catalogue import find_preset
from datacreate.checkpoints.folder import Damaged, check_loadable, is_kept
from datacreate.checkpoints.hashes import quick_identity
from datacreate.checkpoints.preset import Preset
from datacreate.errors import CheckpointError

_OTHER = {"instruct": "an instruct model", "encoder": "an encoder"}


@dataclass(frozen=True)
class Checkpoint:
    """A folder that transformers and vLLM load.

    `sha256` is the identity of the model: of what was pulled, or of a local folder as
    `hashes.quick_identity` says. Two checkpoints with the same one are the same model.
    """

    name: str
    path: Path
    sha256: str
    preset: Preset | None


def resolve(
    name_or_path: str, kind: Literal["instruct", "encoder"], presets: Path | None = None
) -> Checkpoint:
    """Find and check a checkpoint; `presets` is the folder of presets, by default the shipped ones.

    A name without a slash that a preset has is that preset; otherwise an existing folder. Raises
    CheckpointError: unknown, not pulled yet, of the other kind, damaged, or not safe to load.
    """
    place = Path(name_or_path).expanduser()
    if name_or_path.startswith((".", "~", os.sep)) or (os.sep in name_or_path and place.is_dir()):
        return _local(place)
    try:
        preset = find_preset(name_or_path, presets)
    except CheckpointError:
        if place.is_dir():
            return _local(place)
        raise
    if preset.kind != kind:
        raise CheckpointError(
            f"{preset.name} is {_OTHER[preset.kind]}, and {_OTHER[kind]} is needed here: "
            "`datacreate models list` shows which is which"
        )
    folder = places.finished(preset.name)
    if not folder.is_dir():
        raise CheckpointError(f"{preset.name} is not here yet: run `datacreate models pull {preset.name}`")
    return Checkpoint(preset.name, folder, _checked_identity(folder, preset.name), preset)


def _checked_identity(folder: Path, name: str) -> str:
    try:
        found = manifest.read(folder)
        manifest.check_sizes(folder, found)
    except Damaged as damage:
        raise CheckpointError(
            f"checkpoint {name} is damaged ({damage}): run `datacreate models pull {name} --force`"
        ) from damage
    return found.identity


def _local(folder: Path) -> Checkpoint:
    """A folder of the user's own; one that `pull` made keeps the identity it was given there."""
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such folder; give a preset's name or a Hugging Face checkpoint's folder"
        )
    folder = folder.resolve()
    if (folder / manifest.NAME).is_file():
        return Checkpoint(folder.name, folder, _checked_identity(folder, folder.name), None)
    try:
        check_loadable(folder)
    except Damaged as damage:
        raise CheckpointError(f"checkpoint {folder} is damaged: {damage}; copy or save it again") from damage
    names = [path.name for path in folder.iterdir() if path.is_file() and is_kept(path.name)]
    return Checkpoint(folder.name, folder, quick_identity(folder, names), None)
