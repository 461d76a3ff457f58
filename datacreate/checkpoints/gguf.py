"""GGUF files: is the file complete, and what does its header say about the model?

The `gguf` package would take seconds here, because it turns each of 300,000 vocabulary entries into objects.
"""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from datacreate.checkpoints.folder import Damaged
from datacreate.errors import CheckpointError

SUFFIX = ".gguf"

_PART = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")
_UINT32, _STRING, _ARRAY, _UINT64 = 4, 8, 9, 10
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SCALARS = {kind: struct.Struct(f"<{code}") for kind, code in _FORMATS.items()}
_LONGEST_LIST = 4096  # longer arrays are skipped: they have a value per token, not per layer


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF model (all parts of a split one) says about itself; None: it does not say."""

    kind: str  # `model`, `adapter` (LoRA), `mmproj` or others
    architecture: str  # llama.cpp's name: qwen2, llama, gemma3
    size_bytes: int  # of all parts; also the memory that the weights take
    parameters: int
    context_length: int | None
    chat_template: str | None
    kv_bytes_per_token: int  # keys and values in 16 bits; 0: unknown. An upper bound with sliding windows
    lora_rank: int | None = None  # of an adapter
    base_model: str | None = None  # what it was made from


def read_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF model and check that all tensors start within the file.

    `path` is the first part of a split model. Raises Damaged for a truncated file, another format, or a
    missing part; CheckpointError for a later part.
    """
    files = parts(path)
    sizes = [part.stat().st_size for part in files]
    parsed = [_parse(part, size, part.stat().st_mtime_ns) for part, size in zip(files, sizes, strict=True)]
    values = parsed[0][0]
    tensors = [tensor for _, found in parsed for tensor in found]
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
        size_bytes=sum(sizes),
        parameters=sum(prod(shape) for _, shape in tensors),
        context_length=number("context_length"),
        chat_template=values.get("tokenizer.chat_template"),
        kv_bytes_per_token=4 * (number("block_count") or 0) * kv_heads * head_size,
        lora_rank=next((shape[1] for name, shape in tensors if name.endswith(".lora_a")), None),
        base_model=values.get("general.base_model.0.name"),
    )


def parts(path: Path) -> list[Path]:
    """All files of a GGUF model in order: itself, or `NAME-00001-of-00003.gguf` and the others.

    Raises CheckpointError for a later part, Damaged if one is missing.
    """
    found = _PART.fullmatch(path.name)
    if found is None:
        return [path]
    if path.name != (first := _first_part(path.name)):
        raise CheckpointError(f"{path}: a later part of a split GGUF; give the first one, {first}")
    count = int(found["count"])
    wanted = [path.with_name(f"{found['stem']}-{i:05}-of-{count:05}{SUFFIX}") for i in range(1, count + 1)]
    if missing := [part for part in wanted if not part.is_file()]:
        raise Damaged(f"{missing[0].name} is missing ({len(missing)} of {count} parts)")
    return wanted


def model_name(path: Path) -> str:
    """The name of the model in a GGUF file: the file's, without the number of the part."""
    found = _PART.fullmatch(path.name)
    return found["stem"] if found else path.stem


def gguf_in(folder: Path) -> Path | None:
    """The GGUF model in a folder, without a projector (mmproj); None if there is none.

    Raises CheckpointError, naming them, if there are several.
    """
    found = {_first_part(path.name) for path in folder.glob(f"*{SUFFIX}") if path.name[:6] != "mmproj"}
    if len(found) > 1:
        names = ", ".join(sorted(found))
        raise CheckpointError(f"{folder}: several GGUF models ({names}); give the path of one of them")
    return folder / found.pop() if found else None


def check_gguf(path: Path) -> None:
    """Refuse a GGUF file that is an adapter, a projector or an encoder. CheckpointError; Damaged."""
    header = read_header(path)
    if header.kind == "adapter":
        raise CheckpointError(
            f"{path}: a LoRA adapter, not a model; give its base with --model and this with --adapter"
        )
    if header.kind != "model" or not header.parameters or re.search(r"bert|^t5|embed", header.architecture):
        raise CheckpointError(
            f"{path}: no language model ({header.kind}, {header.architecture}); give an instruct model"
        )


def _first_part(name: str) -> str:
    found = _PART.fullmatch(name)
    return f"{found['stem']}-00001-of-{found['count']}{SUFFIX}" if found else name


_Shapes = list[tuple[str, tuple[int, ...]]]  # in ggml's order: the fastest dimension first


@lru_cache(maxsize=16)
def _parse(path: Path, size: int, changed_ns: int) -> tuple[dict[str, Any], _Shapes]:  # noqa: ARG001 (key)
    """Values and tensor shapes of one file."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise Damaged(f"{path.name} is not a GGUF file")
        if (version := int.from_bytes(file.read(4), "little")) not in (2, 3):
            raise Damaged(f"{path.name} has GGUF version {version}; versions 2 and 3 can be read")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                values, tensors, end = _Reader(content).read()
            # All that a truncated or corrupted header can lead to.
            except (struct.error, ValueError, KeyError, IndexError, OverflowError, TypeError) as error:
                raise Damaged(f"{path.name} is truncated or has no readable GGUF header") from error
    if end > size:
        raise Damaged(f"{path.name} has {size:,} bytes; its header says at least {end:,}")
    return values, tensors


class _Reader:
    """Reads the header of a memory-mapped file from front to back."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._at = 8  # after magic and version

    def read(self) -> tuple[dict[str, Any], _Shapes, int]:
        """Values, tensor shapes, and the least size of the file: the last tensor's start."""
        tensor_count, value_count = self._value(_UINT64), self._value(_UINT64)
        values = {}
        for _ in range(value_count):
            key = self._value(_STRING)
            values[key] = self._value(self._value(_UINT32))
        tensors: _Shapes = []
        end = 0
        for _ in range(tensor_count):
            name = self._value(_STRING)
            shape = tuple(self._value(_UINT64) for _ in range(self._value(_UINT32)))
            self._value(_UINT32)  # its type
            end = max(end, self._value(_UINT64) + 1)
            tensors.append((name, shape))
        alignment = int(values.get("general.alignment", 32))
        return values, tensors, -(-self._at // alignment) * alignment + end

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            start = self._at + 8
            self._at = start + self._value(_UINT64)
            if self._at > len(self._content):
                raise ValueError("a string beyond the end")
            return self._content[start : self._at].decode("utf-8", "replace")
        if kind != _ARRAY:
            (value,) = _SCALARS[kind].unpack_from(self._content, self._at)
            self._at += _SCALARS[kind].size
            return value
        item, count = self._value(_UINT32), self._value(_UINT64)
        if item == _STRING:
            # The vocabulary is nearly all of a header, so this loop is as short as possible.
            at, content, length_at = self._at, self._content, _SCALARS[_UINT64].unpack_from
            for _ in range(count):
                at += 8 + length_at(content, at)[0]
            self._at = at
            return None
        if count <= _LONGEST_LIST:
            return [self._value(item) for _ in range(count)]
        self._at += count * _SCALARS[item].size
        return None
