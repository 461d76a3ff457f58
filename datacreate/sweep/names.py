"""Names in a plan: near ones for a misspelt one; checkpoints, as presets or as folders."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from datacreate.checkpoints import is_hub_id, sources_of
from datacreate.errors import CheckpointError

Kind = Literal["instruct", "encoder"]


def near(name: str, names: Iterable[str]) -> str:
    """A hint to put behind a name that is unknown; empty when nothing is near."""
    found = difflib.get_close_matches(name.lower(), list(names), n=3, cutoff=0.6)
    return f" (did you mean {', '.join(found)}?)" if found else ""


def checked_model(name: str, kind: Kind, folder: Path, *, served: bool = False) -> str:
    """A preset's name as it is spelled there, a Hub id, or the absolute path of a folder or GGUF file.

    A path is relative to `folder`, the plan's own. ValueError, with near names, for an unknown preset
    or one of the other kind; whether a checkpoint is here is looked at later. A `served` model may have
    any name.
    """
    place = folder / Path(name).expanduser()
    is_path = name.startswith((".", "~", os.sep)) or name.endswith(".gguf")
    if is_path or (os.sep in name and place.is_dir()):
        return str(place.resolve())
    try:
        preset, _ = sources_of(name)
    except CheckpointError as error:
        if served and name.strip():
            return name
        raise ValueError(str(error)) from None
    if preset and preset.kind != kind:
        raise ValueError(
            f"{name} is of kind {preset.kind}, and {kind} is needed here: "
            "`datacreate models list` shows which is which"
        )
    return preset.name if preset and not is_hub_id(name) else name


def short_name(model: str) -> str:
    """The name of a checkpoint in names of files: its preset's, or its folder's."""
    return re.sub(r"[^\w.+-]+", "_", Path(model).name)


def distinct(models: Sequence[str]) -> None:
    """ValueError if two checkpoints would have the same name in names of files."""
    seen: dict[str, str] = {}
    for model in models:
        if (other := seen.setdefault(short_name(model), model)) != model:
            raise ValueError(f"{other} and {model} have the same last name; rename one of the folders")
