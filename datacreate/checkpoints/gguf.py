"""GGUF files: is the file complete, and what does its header say about the model?

The `gguf` package would take seconds here, because it turns each of 300,000 vocabulary entries into objects.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from datacreate.errors import CheckpointError

SUFFIX = ".gguf"

_PART = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")
_UINT32, _STRING, _ARRAY, _UINT64 = 4, 8, 9, 10
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SCALARS = {kind: struct.Struct(f"<{code}") for kind, code in _FORMATS.items()}


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF model (all parts of a split one) says about itself; None: it does not say."""

    kind: str  # `model`, `adapter` (LoRA), `mmproj` or others
    architecture: str  # llama.cpp's name: qwen2, llama, gemma3
    size_bytes: int  # of all parts; also the memory that the weights take
    context_length: int | None
    chat_template: str | None
    kv_bytes_per_token: int  # keys and values in 16 bits; 0: unknown. An upper bound with sliding windows


def read_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF model and check that all tensors start within the file.

    `path` is the first part of a split model. Raises CheckpointError for a truncated file, another format,
    a missing part, or a later part.
    """
    files = [(part, part.stat()) for part in parts(path)]
    values, *_ = [_parse(part, status.st_size, status.st_mtime_ns) for part, status in files]
    architecture = str(values.get("general.architecture", ""))

    def number(key: str) -> int | None:
        found = values.get(f"{architecture}.{key}")
        if isinstance(found, list):  # one value per layer
            found = max(found, default=None)
        return found if isinstance(found, int) else None

    heads, width = number("attention.head_count"), number("embedding_length")
    head_size = number("attention.key_length") or (width // heads if width and heads else 0)
    kv_heads = number("attention.head_count_kv") or heads or 0
    return GgufHeader(
        kind=str(values.get("general.type", "model")),
        architecture=architecture,
        size_bytes=sum(status.st_size for _, status in files),
        context_length=number("context_length"),
        chat_template=values.get("tokenizer.chat_template"),
        kv_bytes_per_token=4 * (number("block_count") or 0) * kv_heads * head_size,
    )


def parts(path: Path) -> list[Path]:
    """All files of a GGUF model in order: itself, or `NAME-00001-of-00003.gguf` and the others.

    Raises CheckpointError for a later part, or if one is missing.
    """
    found = _PART.fullmatch(path.name)
    if found is None:
        return [path]
    if path.name != (first := _first_part(path.name)):
        raise CheckpointError(f"{path}: a later part of a split GGUF; give the first one, {first}")
    count = int(found["count"])
    wanted = [path.with_name(f"{found['stem']}-{i:05}-of-{count:05}{SUFFIX}") for i in range(1, count + 1)]
    if missing := [part for part in wanted if not part.is_file()]:
        raise CheckpointError(
            f"{path.parent}: {missing[0].name} is missing ({len(missing)} of {count} parts)"
        )
    return wanted


def _first_part(name: str) -> str:
    return _PART.sub(r"\g<stem>-00001-of-\g<count>.gguf", name)


def model_name(path: Path) -> str:
    """The name of the model in a GGUF file: the file's, without the number of the part."""
    return _PART.sub(r"\g<stem>", path.name).removesuffix(SUFFIX)


def gguf_in(folder: Path) -> Path | None:
    """The GGUF model in a folder; None if there is none. CheckpointError if there are several."""
    # A projector (mmproj) for images lies beside its model.
    found = {_first_part(path.name) for path in folder.glob(f"*{SUFFIX}") if path.name[:6] != "mmproj"}
    if len(found) > 1:
        names = ", ".join(sorted(found))
        raise CheckpointError(f"{folder}: several GGUF models ({names}); give the path of one of them")
    return folder / found.pop() if found else None


def check_gguf(path: Path) -> None:
    """Refuse a GGUF file that is an adapter, a projector or an encoder. CheckpointError."""
    header = read_header(path)
    if header.kind == "adapter":
        raise CheckpointError(
            f"{path}: a LoRA adapter, not a model; give its base with --model and this with --adapter"
        )
    if header.kind != "model" or re.search(r"bert|^t5|embed", header.architecture):
        raise CheckpointError(
            f"{path}: no language model ({header.kind}, {header.architecture}); give an instruct model"
        )


@lru_cache(maxsize=16)
def _parse(path: Path, size: int, changed_ns: int) -> dict[str, Any]:  # noqa: ARG001 (part of the cache's key)
    """The values in the header of one file."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise CheckpointError(f"{path}: not a GGUF file")
        if (version := int.from_bytes(file.read(4), "little")) not in (2, 3):
            raise CheckpointError(f"{path}: has GGUF version {version}; versions 2 and 3 can be read")
        try:
            values, least = _read(file, size)
        except (struct.error, ValueError, KeyError, OverflowError, TypeError) as error:
            raise CheckpointError(
                f"{path}: truncated or no readable GGUF header; copy or download it again"
            ) from error
    if least > size:
        raise CheckpointError(f"{path}: truncated to {size:,} bytes; copy or download it again")
    return values


def _read(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """The values, and the least size that the file can have: the start of its last tensor."""

    def value(kind: int) -> Any:
        if kind == _STRING:
            return file.read(min(size, value(_UINT64))).decode("utf-8", "replace")
        if kind != _ARRAY:
            return _SCALARS[kind].unpack(file.read(_SCALARS[kind].size))[0]
        item, count = value(_UINT32), value(_UINT64)
        if item == _STRING:  # the vocabulary: skipped, in as few steps as possible
            unpack = _SCALARS[_UINT64].unpack
            for _ in range(count):
                file.read(min(size, unpack(file.read(8))[0]))
        elif count > 4096:  # a value per token, not per layer
            file.seek(count * _SCALARS[item].size, 1)
        else:
            return [value(item) for _ in range(count)]
        return None

    tensor_count, value_count = value(_UINT64), value(_UINT64)
    values = {value(_STRING): value(value(_UINT32)) for _ in range(value_count)}
    last = 0
    for _ in range(tensor_count):
        value(_STRING)
        file.seek(8 * value(_UINT32) + 4, 1)  # its shape and type
        last = max(last, value(_UINT64))
    alignment = int(values.get("general.alignment", 32))
    return values, -(-file.tell() // alignment) * alignment + last + 1
