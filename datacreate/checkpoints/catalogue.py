"""The presets: a YAML file each, named after it; those that are shipped, and those that were imported."""

from __future__ import annotations

import difflib
from pathlib import Path

import yaml
from pydantic import ValidationError

from datacreate.checkpoints.preset import Preset
from datacreate.errors import CheckpointError
from datacreate.paths import home, shipped


def shipped_presets() -> Path:
    """The folder of the presets that come with datacreate."""
    return shipped("models")


def own_presets() -> Path:
    """The folder of the presets that `models import` made; it need not exist."""
    return home() / "presets"


def load_presets(folder: Path | None = None) -> dict[str, Preset]:
    """All presets of `folder` (by default the shipped and the imported ones) by name, in order of name.

    Raises CheckpointError naming the file and the key when one is wrong.
    """
    return {path.stem: _load(path) for path in _files(folder)}


def _files(folder: Path | None) -> list[Path]:
    found: dict[str, Path] = {}
    for place in [folder] if folder else [own_presets(), shipped_presets()]:
        found |= {path.stem: path for path in place.glob("*.yaml")}
    return [found[name] for name in sorted(found)]


def find_preset(name: str, folder: Path | None = None) -> Preset:
    """The preset of that name; upper and lower case are the same.

    Reads only that preset's file, since every run begins here. Raises CheckpointError with
    near names when there is none.
    """
    for place in [folder] if folder else [shipped_presets(), own_presets()]:
        path = place / f"{name.lower()}.yaml"
        if path.name == f"{name.lower()}.yaml" and "/" not in name and path.is_file():
            return _load(path)
    names = [path.stem for path in _files(folder)]
    # A Hub id is what people paste: look for its last part.
    near = difflib.get_close_matches(name.lower().rsplit("/", 1)[-1], names, n=3, cutoff=0.5)
    meant = f" (did you mean {', '.join(near)}?)" if near else ""
    raise CheckpointError(f"unknown model {name!r}{meant}: `datacreate models list` shows all presets")


def _load(path: Path) -> Preset:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
        if not isinstance(raw, dict):
            raise CheckpointError(
                f"preset {path}: not a mapping of settings; see the other presets beside it"
            )
        return Preset.model_validate({"name": path.stem, **raw})
    except yaml.YAMLError as error:
        raise CheckpointError(f"preset {path}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the preset"
        raise CheckpointError(f"preset {path}: {where}: {first['msg']}") from error
