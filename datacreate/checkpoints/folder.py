"""Checks of folders of safetensors (complete, loadable, writes text), and hashes that identify models."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from datacreate.checkpoints.presets import ModelKind
from datacreate.errors import CheckpointDamaged, CheckpointError

KEPT = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py")
"""The files of a checkpoint. Pickles (.bin, .pt) are left out: loading one runs its code. Python files are needed only
with --trust-remote-code, and run only then."""

SKIPPED = ("original/*", "metal/*", "onnx/*", "openvino/*", "consolidated*")  # copies of the weights

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spm.model", "*.tiktoken")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_SHARD = re.compile(r".+-\d{5}-of-(\d{5})\.safetensors")
_SMALL_BYTES = 2 << 20  # up to this size `quick_hash` reads a whole file
_SAMPLE_BYTES, _SAMPLES = 4096, 512  # the samples of all larger files of a model together
_MIN_SAMPLES = 16  # of one file


def check_loadable(folder: Path, kind: ModelKind, *, trust_remote_code: bool) -> None:
    """Refuse a folder that is not a checkpoint, has only pickled weights, or needs its publisher's Python code; as an
    instruct model also one that does not write text: an encoder or an encoder-decoder.

    Looks at names and config.json only. Raises CheckpointError.
    """
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names and "adapter_config.json" in names:
        raise CheckpointError(f"{folder}: a LoRA adapter; give its base with --model and this with --adapter")
    weights = _matching(names, ("*.safetensors",))
    if not weights and _matching(names, _PICKLES):
        raise CheckpointError(
            f"{folder}: no *.safetensors; pickled weights can run code: save the model again with save_pretrained"
        )
    needed = {"config.json": ("config.json",), "*.safetensors": ("*.safetensors",), "tokenizer": _TOKENIZERS}
    for name, patterns in needed.items():
        if not _matching(names, patterns):
            raise CheckpointError(f"{folder}: no {name}; give the folder of a complete checkpoint")
    shards = [shard for shard in map(_SHARD.fullmatch, weights) if shard]
    if shards and len(shards) < int(shards[0][1]):
        raise CheckpointDamaged(f"{folder}: {len(shards)} of {int(shards[0][1])} files of weights; copy it again")
    if empty := find_empty_weights(folder):
        raise CheckpointDamaged(f"{empty}: an empty file; copy or download it again")
    config = read_json(folder / "config.json")
    if "auto_map" in config and not trust_remote_code:
        # Slow to import, but few models have auto_map, and transformers knows most of them by now.
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        if str(config.get("model_type")) not in CONFIG_MAPPING_NAMES:
            raise CheckpointError(
                f"{folder}: needs Python code of its publisher (auto_map): give --trust-remote-code to run it"
            )
    listed = config.get("architectures")
    classes = list(map(str, listed)) if isinstance(listed, list) else []
    writes = any(name.endswith(("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")) for name in classes)
    if kind == "instruct" and (config.get("is_encoder_decoder") is True or (classes and not writes)):
        raise CheckpointError(
            f"{folder}: {', '.join(classes)}, which cannot follow instructions; give an instruct model"
        )


def find_empty_weights(location: Path) -> Path | None:
    """The first empty file of weights in a folder, or the GGUF file at `location` if it is empty; None if none is.

    A link to a file that was removed from the Hub's cache also counts as empty.
    """
    weights = [*location.glob("*.safetensors"), *location.glob("*.gguf")] or [location]
    return next((path for path in weights if not (path.exists() and path.stat().st_size)), None)


def kept_files(folder: Path) -> dict[str, Path]:
    """The files of a checkpoint by name, without subfolders."""
    return {name: folder / name for name in _matching({path.name for path in folder.iterdir()}, KEPT)}


def _matching(names: set[str], patterns: tuple[str, ...]) -> list[str]:
    return [name for name in sorted(names) if any(fnmatch(name, pattern) for pattern in patterns)]


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a configuration file. CheckpointDamaged if it has none."""
    try:
        return {**json.loads(path.read_text(encoding="utf-8"))}
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointDamaged(f"{path}: not a JSON object; copy or download it again") from error


def combined_sha256(sha256_by_name: Mapping[str, str]) -> str:
    """The SHA-256 of several SHA-256, in the order of their names."""
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
            count = max(_MIN_SAMPLES, _SAMPLES // len(files))
            for i in range(count):
                file.seek(i * (size - _SAMPLE_BYTES) // (count - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
