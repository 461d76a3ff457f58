"""A model of the user's own, brought into the data directory under a name: a GGUF file or a folder.

It becomes a preset there (presets/NAME.yaml), which is then pulled like any other: copied and hashed. So it
is listed and verified like the shipped ones. To use a file once, give it with --model instead.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import yaml

from datacreate.checkpoints import places
from datacreate.checkpoints.catalogue import own_presets, shipped_presets
from datacreate.checkpoints.gguf_file import SUFFIX, model_name
from datacreate.checkpoints.preset import PathSource, Preset
from datacreate.checkpoints.progress import Progress, silent
from datacreate.checkpoints.pull import pull
from datacreate.errors import CheckpointError
from datacreate.settings import SettingsError


def import_model(
    source: Path,
    name: str | None = None,
    kind: Literal["instruct", "encoder"] = "instruct",
    license: str = "unknown",
    progress: Progress = silent,
    free_bytes: Callable[[], int] = places.free_bytes,
) -> Preset:
    """Copy a model into the data directory as a preset, by default named after the file or folder.

    Raises CheckpointError if there is no such model, it cannot be loaded, or the name is a shipped
    preset's; StorageError when the disk is full or read-only. What fails leaves no preset behind.
    """
    source = source.expanduser().absolute()
    if not source.is_dir() and not (source.is_file() and source.suffix == SUFFIX):
        raise CheckpointError(
            f"{source}: neither a .gguf file nor a folder; import takes one file or one checkpoint's folder"
        )
    is_file = source.is_file()
    name = name or re.sub(r"[^a-z0-9._-]+", "-", (model_name(source) if is_file else source.name).lower())
    if (shipped_presets() / f"{name}.yaml").is_file():
        raise CheckpointError(f"{name} is a shipped preset's name; choose another with --name")
    preset = _preset(name, source, kind, license)
    path = own_presets() / f"{preset.name}.yaml"
    with places.storage_errors():
        # Imported again it may be another, of the same names and sizes: nothing of an earlier one counts.
        places.locked_hashes(preset.name).unlink(missing_ok=True)
        shutil.rmtree(places.downloads(preset.name), ignore_errors=True)
        pull(preset, progress, force=True, free_bytes=free_bytes)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        document = preset.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
        part.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
        part.replace(path)
    return preset


def _preset(name: str, source: Path, kind: Literal["instruct", "encoder"], license: str) -> Preset:
    from pydantic import ValidationError

    files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    try:
        return Preset(
            name=name,
            kind=kind,
            description=f"imported from {source.name}",
            license=license,
            size_bytes=max(1, sum(path.stat().st_size for path in files)),
            untested=True,  # nobody vouches for its hashes: the first import locks them
            sources=(PathSource(path=str(source)),),
        )
    except ValidationError as error:
        raise CheckpointError(
            f"{name!r} cannot be a model's name ({SettingsError.first(error).why}); choose another with --name"
        ) from error
