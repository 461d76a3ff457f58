"""GGUF files: the parts of a model, what its header says, and the conversion to safetensors for vLLM.

The `gguf` package would take seconds to read a header: it turns each of 300,000 vocabulary entries into objects.

The conversion, in bfloat16 and only once, runs in a process of its own, so that its memory is free before the engine
starts. `data_dir()/dequantized/SHA256` has the result.

    python -m datacreate.checkpoints.gguf FILE FOLDER
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO

from datacreate.checkpoints.pull import raise_if_disk_full
from datacreate.errors import CheckpointDamaged, CheckpointError
from datacreate.files import atomic_replacement, data_dir, remove_temporary, storage_error
from datacreate.messages import Notify

SUFFIX = ".gguf"

_PART = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")
_STRING, _ARRAY = 8, 9  # types of values
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_MAX_LAYERS = 4096
_KV_BYTES = 4  # of a key and its value, in 16 bits each


@dataclass(frozen=True)
class GgufFile:
    """A GGUF model (of a split one the first part), and what its header says; None: it does not say."""

    path: Path
    general_type: str  # `model`, `adapter` (LoRA), `mmproj` or others
    size_bytes: int  # of all parts; also the memory that the weights take
    context_length: int | None
    kv_bytes_per_token: int  # keys and values in 16 bits; 0: unknown. An upper bound with sliding windows

    @property
    def model_name(self) -> str:
        """The file's name, without the number of the part."""
        return _PART.sub(r"\g<stem>", self.path.name).removesuffix(SUFFIX)


def read_gguf(path: Path) -> GgufFile:
    """Read the header of a GGUF file, for a part of a split model that of the first one.

    llama.cpp checks the rest: other parts and tensors. Raises CheckpointDamaged for a truncated header or
    another format.
    """
    files = parts(path)
    try:
        with files[0].open("rb") as file:
            if file.read(4) != b"GGUF":
                raise CheckpointDamaged(f"{path}: not a GGUF file; copy or download it again")
            file.seek(12, 1)  # the version, and the number of tensors
            size, count = files[0].stat().st_size, _read_scalar(file, "Q")
            values = {
                _read_value(file, size, _STRING): _read_value(file, size, _read_scalar(file, "I")) for _ in range(count)
            }
    except (struct.error, ValueError, KeyError, OverflowError, TypeError, RecursionError) as error:
        raise CheckpointDamaged(f"{path}: no complete GGUF header; copy or download it again") from error
    heads, width = _number(values, "attention.head_count"), _number(values, "embedding_length")
    head_size = _number(values, "attention.key_length") or (width // heads if width and heads else 0)
    kv_heads = _number(values, "attention.head_count_kv") or heads or 0
    return GgufFile(
        path=files[0],
        general_type=str(values.get("general.type", "model")),
        size_bytes=sum(part.stat().st_size for part in files),
        context_length=_number(values, "context_length"),
        kv_bytes_per_token=_KV_BYTES * (_number(values, "block_count") or 0) * kv_heads * head_size,
    )


def _number(values: dict[str, Any], key: str) -> int | None:
    """The value of a key of the model's architecture; if it has one per layer the largest. None without a number."""
    value = values.get(f"{values.get('general.architecture')}.{key}")
    if isinstance(value, list):
        value = max((layer for layer in value if isinstance(layer, int)), default=None)
    return value if isinstance(value, int) else None


def parts(path: Path) -> list[Path]:
    """The files of a GGUF model in order: itself, or all parts (`NAME-00001-of-00003.gguf`) that are there."""
    part = _PART.fullmatch(path.name)
    pattern = f"{escape(part['stem'])}-?????-of-{part['count']}{SUFFIX}" if part else escape(path.name)
    return sorted(path.parent.glob(pattern)) or [path]


def gguf_in(folder: Path) -> Path | None:
    """The GGUF model in a folder; None if there is none. CheckpointError if there are several."""
    # A projector (mmproj) for images lies next to its model.
    models = {parts(path)[0] for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("mmproj")}
    if len(models) > 1:
        names = ", ".join(sorted(path.name for path in models))
        raise CheckpointError(f"{folder}: several GGUF models ({names}); give the path of one of them")
    return models.pop() if models else None


def _read_scalar(file: BinaryIO, code: str) -> Any:
    """The next number in a file; `code` is its type, as `struct` names it."""
    return struct.unpack(f"<{code}", file.read(struct.calcsize(code)))[0]


def _read_value(file: BinaryIO, size: int, value_type: int) -> Any:
    """The next value in the header of a file of `size` bytes; None for the vocabulary and other long lists."""
    if value_type == _STRING:
        return file.read(min(size, _read_scalar(file, "Q"))).decode("utf-8", "replace")
    if value_type != _ARRAY:
        return _read_scalar(file, _SCALARS[value_type])
    item_type, count = _read_scalar(file, "I"), _read_scalar(file, "Q")
    if item_type == _STRING:  # the vocabulary: skipped, in as few steps as possible
        unpack, read, seek = struct.Struct("<Q").unpack, file.read, file.seek
        for _ in range(count):
            seek(min(size, unpack(read(8))[0]), 1)
        return None
    if count > _MAX_LAYERS:  # a value per token, not per layer
        file.seek(count * struct.calcsize(_SCALARS[item_type]), 1)
        return None
    return [_read_value(file, size, item_type) for _ in range(count)]


def dequantized(path: Path, name: str, sha256: str, notify: Notify) -> Path:
    """The folder with the safetensors of a GGUF model, which are made the first time.

    `name` is that of the model for messages, `sha256` identifies it. Raises CheckpointError if the conversion fails,
    and StorageError if the disk is full.
    """
    from filelock import FileLock

    folder = data_dir() / "dequantized" / sha256[:16]
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    with FileLock(folder.parent.with_suffix(".lock")):
        remove_temporary(folder.parent)
        if folder.is_dir():  # another process made it meanwhile
            return folder
        notify(f"converting {name}, since vLLM reads no GGUF files (once)")
        with atomic_replacement(folder) as new:
            command = [sys.executable, "-m", __name__, str(path), str(new)]
            child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if child.returncode:
                raise_if_disk_full(child.stderr, folder)
                reason = (child.stderr.strip().splitlines() or ["killed, probably out of memory"])[-1].strip()
                problem = f"cannot convert {path.name} for vLLM: {reason}"
                raise CheckpointError(f"{problem}; use --engine llamacpp")
    return folder


def _convert(source: Path, folder: Path) -> None:
    """Write the safetensors and the tokenizer of a GGUF file into a folder."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    gguf.GGUFReader = cache(gguf.GGUFReader)  # slow, and transformers would read the file three times
    local: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **local)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True), **local
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # written as 0600; the data directory may be shared


if __name__ == "__main__":
    _convert(*map(Path, sys.argv[1:]))
