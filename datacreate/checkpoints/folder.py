"""Folders of safetensors: is it a complete checkpoint, does it need foreign code, does it write text?"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from datacreate.errors import CheckpointError

# What a checkpoint consists of. Pickles (.bin, .pt) are left out: loading one runs its code. Python files
# are needed only with --trust-remote-code, and run only then.
KEPT = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py")
SKIPPED = ("original/*", "metal/*", "onnx/*", "openvino/*", "consolidated*")  # the same weights again

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spm.model", "*.tiktoken")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<number>\d{5})\.safetensors")
_SMALL_BYTES = 2 << 20
_SAMPLE_BYTES, _SAMPLES = 4096, 512


class Damaged(Exception):
    """A file is incomplete or unreadable; the message says which and how, the caller adds what to do."""


def check_loadable(folder: Path, trust_remote_code: bool = False) -> None:
    """Refuse a folder that is no checkpoint, has only pickled weights, or needs its publisher's Python code.

    Reads names, sizes and headers only. Raises CheckpointError; Damaged for an incomplete checkpoint.
    """
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names and "adapter_config.json" in names:
        raise CheckpointError(
            f"{folder}: a LoRA adapter, not a model; give its base with --model and this with --adapter"
        )
    if "config.json" not in names:
        raise CheckpointError(
            f"{folder}: no config.json; give the folder that holds config.json and the *.safetensors, or a "
            ".gguf file"
        )
    config = read_json(folder / "config.json")
    if "auto_map" in config and not trust_remote_code:
        # Slow to import, but few models have auto_map, and transformers knows most of them by now.
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        if config.get("model_type") not in CONFIG_MAPPING_NAMES:
            raise CheckpointError(
                f"{folder}: needs Python code of its publisher (auto_map): give --trust-remote-code to run it"
            )
    if not _matching(names, ("*.safetensors",)):
        hint = "pickled weights can run code: save the model again with save_pretrained"
        raise CheckpointError(
            f"{folder}: no *.safetensors file; {hint if _matching(names, _PICKLES) else 'download it again'}"
        )
    if not _matching(names, _TOKENIZERS):
        raise CheckpointError(
            f"{folder}: no tokenizer (tokenizer.json or the like); copy the model's own there"
        )
    shards = {found for name in names if (found := _SHARD.fullmatch(name))}
    wanted = {
        f"{m['stem']}-{i:05}-of-{m['number']}.safetensors"
        for m in shards
        for i in range(1, int(m["number"]) + 1)
    }
    if "model.safetensors.index.json" in names:
        try:
            wanted |= set(read_json(folder / "model.safetensors.index.json")["weight_map"].values())
        except (KeyError, TypeError, AttributeError) as error:
            raise Damaged("model.safetensors.index.json is not readable") from error
    if missing := sorted(wanted - names):
        raise Damaged(f"{missing[0]} is missing ({len(missing)} of {len(wanted)} shards)")
    for path in sorted(folder.glob("*.safetensors")):
        check_safetensors(path)


def check_writes(folder: Path) -> None:
    """Refuse a checkpoint that, by its config.json, does not write text: an encoder or an encoder-decoder."""
    config = read_json(folder / "config.json")
    kinds = [str(kind) for kind in config.get("architectures") or ()]
    writes = any(kind.endswith(("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")) for kind in kinds)
    if config.get("is_encoder_decoder") is True or (kinds and not writes):
        raise CheckpointError(
            f"{folder}: {', '.join(kinds)}, which cannot follow instructions; give an instruct model"
        )


def kept_files(folder: Path) -> dict[str, Path]:
    """The files of a checkpoint by name, without subfolders."""
    return {name: folder / name for name in _matching({path.name for path in folder.iterdir()}, KEPT)}


def _matching(names: set[str], patterns: tuple[str, ...]) -> list[str]:
    return [name for name in sorted(names) if any(fnmatch(name, pattern) for pattern in patterns)]


def check_safetensors(path: Path) -> None:
    """Compare the size that a safetensors header implies with the file's. Raises Damaged.

    The `safetensors` library checks the same, but imports numpy, which every command would wait for.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length if length < size else 0))
            ends = [int(entry["data_offsets"][1]) for key, entry in header.items() if key != "__metadata__"]
        except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise Damaged(f"{path.name} is truncated or has no readable safetensors header") from error
    if size != (expected := 8 + length + max(ends, default=0)):
        raise Damaged(f"{path.name} has {size:,} bytes; its header says {expected:,}")


def read_json(path: Path) -> dict[str, Any]:
    """A configuration file; raises Damaged if it is not a JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Damaged(f"{path.name} is not JSON") from error
    if not isinstance(found, dict):
        raise Damaged(f"{path.name} is not a JSON object")
    return found


def combined_sha256(sha256_by_name: Mapping[str, str]) -> str:
    """One SHA-256 for a set of them, in order of name."""
    digest = hashlib.sha256()
    for name, sha256 in sorted(sha256_by_name.items()):
        digest.update(f"{name}\0{sha256}\n".encode())
    return digest.hexdigest()


def quick_hash(files: Mapping[str, Path]) -> str:
    """A hash that identifies a model without reading all of it.

    Covers names and sizes, small files (up to 2 MiB) whole, and samples spread evenly over larger ones. A
    fine-tuned or merged model differs in many places; a single changed byte may go unnoticed.
    """
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        size = path.stat().st_size
        digest.update(f"{name}\0{size}\n".encode())
        with path.open("rb") as file:
            if size <= _SMALL_BYTES:
                digest.update(file.read())
                continue
            count = max(16, _SAMPLES // len(files))
            for i in range(count):
                file.seek(i * (size - _SAMPLE_BYTES) // (count - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
