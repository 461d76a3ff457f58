"""Is this folder a checkpoint that loads, without running anybody's code?"""

from __future__ import annotations

import json
import re
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
CODE = "*.py"
"""A publisher's own code; part of a checkpoint only where its preset lets it run."""
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spm.model", "*.tiktoken")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_ONE_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<number>\d{5})\.safetensors")
_LARGEST_HEADER_BYTES = 100_000_000  # what the safetensors library itself accepts


class Damaged(Exception):
    """A file is not what it was; the message says which and how, the caller says what to do."""


def is_kept(name: str, code: bool = False) -> bool:
    """Whether a file of that name (no folders) belongs to a checkpoint, one with code of its own or not."""
    return any(fnmatch(name, pattern) for pattern in KEPT) or (code and fnmatch(name, CODE))


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
            ends = [int(entry["data_offsets"][1]) for key, entry in header.items() if key != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise Damaged(f"{path.name} has no readable safetensors header") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise Damaged(f"{path.name} has {size:,} bytes where its header says {expected:,}")


def check_loadable(folder: Path, trust_remote_code: bool = False) -> None:
    """Refuse a folder that is no checkpoint, is pickle-only, or wants remote code where that is not allowed.

    Raises CheckpointError in one line; raises Damaged for a file that is broken.
    """
    names = {path.name for path in folder.iterdir()}

    def any_of(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch(name, pattern) for name in names for pattern in patterns)

    if "config.json" not in names and "adapter_config.json" in names:
        raise CheckpointError(
            f"{folder}: a LoRA adapter for {_base_of(folder)}, not a whole model; use --model with that base "
            f"and --adapter {folder}"
        )
    if "config.json" not in names:
        raise CheckpointError(
            f"{folder}: no config.json, so not a Hugging Face checkpoint; give the folder that holds "
            "config.json and the *.safetensors, or a .gguf file"
        )
    # A tokenizer.json needs no code, whatever the file beside it says.
    told = ["config.json", *({"tokenizer_config.json"} & names if "tokenizer.json" not in names else ())]
    asking = next((name for name in told if "auto_map" in read_config(folder, name)), None)
    if asking and not trust_remote_code:
        raise CheckpointError(
            f"{folder}: {asking} asks for Python code that came with the model (auto_map), which is "
            "never run here unless a preset says trust_remote_code and the command --trust-remote-code; "
            "use a model of an architecture that transformers itself has"
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


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """What a configuration file holds; raises Damaged if that is no object."""
    try:
        config = json.loads((folder / name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise Damaged(f"{name} is not JSON") from error
    if not isinstance(config, dict):
        raise Damaged(f"{name} is not a JSON object")
    return config


def _base_of(folder: Path) -> str:
    """What an adapter's configuration calls its base."""
    try:
        told = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return str(told["base_model_name_or_path"] or "a base that it does not name")
    except (OSError, ValueError, KeyError, TypeError):
        return "a base that it does not name"


def check_shards(folder: Path, names: set[str]) -> None:
    """Every shard that the index, or another shard's name, tells of must be there; raises Damaged."""
    matches = [found for name in names if (found := _ONE_SHARD.fullmatch(name))]
    for stem, number in sorted({(found["stem"], found["number"]) for found in matches}):
        wanted = {f"{stem}-{place:05}-of-{number}.safetensors" for place in range(1, int(number) + 1)}
        if absent := sorted(wanted - names):
            raise Damaged(f"{absent[0]} is missing ({len(absent)} of {len(wanted)} shards)")
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
