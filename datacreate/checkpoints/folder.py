"""Is this folder a checkpoint that loads, without running anybody's code?"""

from __future__ import annotations

import json
import struct
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from datacreate.errors import CheckpointError

# What a checkpoint consists of. Pickles (.bin, .pt) are left out: loading one runs its code.
KEPT = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.txt",
    "tokenizer.model",
    "*.tiktoken",
    "spm.model",
    "sentencepiece.bpe.model",
)
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spm.model", "*.tiktoken")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_LARGEST_HEADER_BYTES = 100_000_000  # what the safetensors library itself accepts


class Damaged(Exception):
    """A file is not what it was; the message says which and how, the caller says what to do."""


def is_kept(name: str) -> bool:
    """Whether a file of that name (no folders) belongs to a checkpoint."""
    return any(fnmatch(name, pattern) for pattern in KEPT)


def check_safetensors(path: Path) -> None:
    """Parse the header and compare the end of the last tensor with the file's length.

    Reads the header only (kilobytes). The `safetensors` library checks the same, but brings numpy
    along, which every run would wait for. Raises Damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, _LARGEST_HEADER_BYTES):
            raise Damaged(f"{path.name} is cut off or not a safetensors file")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise Damaged(f"{path.name} has no readable safetensors header") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise Damaged(f"{path.name} has {size:,} bytes where its header says {expected:,}")


def check_loadable(folder: Path) -> None:
    """Refuse a folder that is no checkpoint, is pickle-only, or wants remote code.

    Raises CheckpointError in one line; raises Damaged for a file that is broken.
    """
    names = {path.name for path in folder.iterdir()}

    def any_of(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch(name, pattern) for name in names for pattern in patterns)

    if "config.json" not in names:
        raise CheckpointError(
            f"{folder}: no config.json, so not a Hugging Face checkpoint; give the folder that holds "
            "config.json and the *.safetensors"
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise Damaged("config.json is not JSON") from error
    if not isinstance(config, dict):
        raise Damaged("config.json is not a JSON object")
    if "auto_map" in config:
        raise CheckpointError(
            f"{folder}: config.json asks for Python code that came with the model (auto_map), which is "
            "never run here; use a model of an architecture that transformers itself has"
        )
    if not any_of(("*.safetensors",)):
        if any_of(_PICKLES):
            raise CheckpointError(
                f"{folder}: only pickled weights, which can run code when loaded; save it again with "
                "transformers' save_pretrained, which writes safetensors"
            )
        raise CheckpointError(f"{folder}: no *.safetensors file in it; is the download complete?")
    if not any_of(_TOKENIZERS):
        raise CheckpointError(
            f"{folder}: no tokenizer (tokenizer.json or the like); copy the model's own beside it"
        )
    check_shards(folder, names)
    for name in sorted(names):
        if name.endswith(".safetensors"):
            check_safetensors(folder / name)


def check_shards(folder: Path, names: set[str]) -> None:
    """Every shard the index names must be there; raises Damaged naming one that is not."""
    if "model.safetensors.index.json" not in names:
        return
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        shards = set(index["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged("model.safetensors.index.json is not readable") from error
    missing = sorted(shards - names)
    if missing:
        raise Damaged(f"{missing[0]} is missing ({len(missing)} of {len(shards)} shards)")
