"""A preset's name, a folder or a GGUF file -> a checkpoint that can be loaded, at the start of every run.

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
from datacreate.checkpoints.gguf_file import SUFFIX, content_identity, gguf_in, model_name
from datacreate.checkpoints.hashes import quick_identity
from datacreate.checkpoints.writes import check_gguf_kind, check_writes
from datacreate.errors import CheckpointError

_OTHER = {"instruct": "an instruct model", "encoder": "an encoder"}


def resolve(
    name_or_path: str,
    kind: Literal["instruct", "encoder"],
    presets: Path | None = None,
    *,
    trust_remote_code: bool = False,
) -> Checkpoint:
    """Find and check a checkpoint; `presets` is the folder of presets, by default the shipped ones.

    A name without a slash that a preset has is that preset; otherwise an existing folder, of safetensors
    or with one GGUF in it, or a `.gguf` file. A publisher's code may run only if the preset says so and
    `trust_remote_code` is given. Raises CheckpointError: unknown,
    not pulled yet, of the other kind, damaged, or not safe to load.
    """
    place = Path(name_or_path).expanduser()
    is_path = name_or_path.startswith((".", "~", os.sep)) or name_or_path.endswith(SUFFIX)
    if is_path or (os.sep in name_or_path and place.is_dir()):
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
    if preset.trust_remote_code and not trust_remote_code:
        raise CheckpointError(
            f"{preset.name} needs Python code of its publisher's to run here: say --trust-remote-code to let it, "
            "or take another model"
        )
    folder = places.finished(preset.name)
    if not folder.is_dir():
        raise CheckpointError(f"{preset.name} is not here yet: run `datacreate models pull {preset.name}`")
    sha256, gguf = _pulled(folder, preset.name, preset.trust_remote_code)
    return Checkpoint(
        preset.name, folder, sha256, preset, trust_remote_code=preset.trust_remote_code, gguf=gguf
    )


def served(name_or_path: str) -> Checkpoint:
    """What a server has under that name: the checkpoint here if it is here, else the name alone."""
    try:
        return resolve(name_or_path, "instruct", trust_remote_code=True)
    except CheckpointError:
        pass
    try:
        preset = find_preset(name_or_path)
    except CheckpointError:
        preset = None
    return Checkpoint(name_or_path, Path(name_or_path), UNSEEN + name_or_path, preset)


def _pulled(folder: Path, name: str, trust_remote_code: bool = False) -> tuple[str, Path | None]:
    """Identity and GGUF file (if it is one) of a folder that `pull` made."""
    try:
        found = manifest.read(folder)
        if found.converted_from:
            raise CheckpointError(
                f"{name} was converted by an earlier version; GGUF files are now used as they are: "
                f"run `datacreate models pull {name}`"
            )
        manifest.check_sizes(folder, found, trust_remote_code)
    except Damaged as damage:
        raise CheckpointError(
            f"checkpoint {name} is damaged ({damage}): run `datacreate models pull {name} --force`"
        ) from damage
    return found.spec, found.gguf(folder)


def _local(place: Path, kind: Literal["instruct", "encoder"]) -> Checkpoint:
    """A folder or GGUF file of the user's own; one that `pull` made keeps the identity it was given there."""
    is_file = place.suffix == SUFFIX and place.is_file()
    if not is_file and not place.is_dir():
        what = "file" if place.suffix == SUFFIX else "folder"
        raise CheckpointError(
            f"{place}: no such {what}; give a preset's name, a .gguf file or the folder of a Hugging Face "
            "checkpoint"
        )
    place = place.resolve()
    folder = place.parent if is_file else place
    try:
        if (folder / manifest.NAME).is_file():
            sha256, gguf = _pulled(folder, folder.name)
            if not is_file or place == gguf:
                return _of_kind(Checkpoint(folder.name, folder, sha256, None, gguf=gguf), kind)
        own: Path | None = place
        if not is_file:
            own = None if any(folder.glob("*.safetensors")) else gguf_in(folder)
        if own is not None:
            sha256 = content_identity(own)
            return _of_kind(Checkpoint(model_name(own), folder, sha256, None, gguf=own), kind)
        check_loadable(folder)
        names = [path.name for path in folder.iterdir() if path.is_file() and is_kept(path.name)]
        return _of_kind(Checkpoint(folder.name, folder, quick_identity(folder, names), None), kind)
    except Damaged as damage:
        raise CheckpointError(f"checkpoint {place} is damaged: {damage}; copy or save it again") from damage


def _of_kind(checkpoint: Checkpoint, kind: Literal["instruct", "encoder"]) -> Checkpoint:
    """The checkpoint itself if it is of that kind, as far as it says; else CheckpointError."""
    if checkpoint.gguf is not None:
        check_gguf_kind(checkpoint.gguf, kind)
    elif kind == "instruct":
        check_writes(checkpoint.path)
    return checkpoint
