"""Where a training goes on: the last checkpoint that can be trusted, and what a full disk becomes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datacreate.errors import StorageError
from datacreate.files import storage_error


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is whole, and whose best model is; None to begin anew."""
    whole = {
        int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*") if _is_whole(path)
    }
    for step in sorted(whole, reverse=True):
        best = _state(whole[step]).get("best_global_step")
        if not best or best in whole:
            return whole[step]
    return None


def passes_of(checkpoint: Path | None) -> int:
    """How many whole passes over the rows a checkpoint has behind it."""
    return int(_state(checkpoint)["epoch"]) if checkpoint else 0


def _state(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state


def _is_whole(checkpoint: Path) -> bool:
    """Whether nothing was cut off: the state, written last, the tensors, and what is a zip file in them."""
    from safetensors import SafetensorError, safe_open

    try:
        _state(checkpoint)
        weights = list(checkpoint.glob("*.safetensors"))
        for path in weights:
            with safe_open(path, framework="pt"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    zipped = [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt"]
    random_states = list(checkpoint.glob("rng_state*.pth"))
    return bool(weights and random_states) and all(map(zipfile.is_zipfile, [*zipped, *random_states]))


@contextmanager
def room_for(folder: Path) -> Iterator[None]:
    """Raise StorageError when the disk does not take what the block writes into the folder."""
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise storage_error(folder, error) from None
    except (RuntimeError, SafetensorError) as error:
        # torch and safetensors hide the reason behind errors of their own; the same file of torch's reads.
        said = str(error)
        if ("inline_container" not in said or "Reader" in said) and "os error" not in said:
            raise
        raise StorageError(
            f"{folder}: the disk is full or cannot be written; fix that and run the same command to go on"
        ) from None
