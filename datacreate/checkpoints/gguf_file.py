"""The header of a GGUF file: is the file whole, and what does it say about its model?

A reader of its own, since the `gguf` package brings numpy along and turns each of 300,000 vocabulary
entries into objects: seconds, where a walk over them takes a twentieth of one.
"""

from __future__ import annotations

import hashlib
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

_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf")
_VERSIONS = (2, 3)
_UINT32, _BOOL, _STRING, _ARRAY = 4, 7, 8, 9
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SCALARS = {kind: struct.Struct(f"<{code}") for kind, code in _FORMATS.items()}
_LONGEST_LIST = 4096  # values of an array that are kept: one for each layer, not one for each token
_SAMPLE_BYTES = 4096

# ggml's tensor types: how many weights make a block, and how many bytes that takes.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file (all parts of it, where it is split) says about itself; None: it does not say."""

    kind: str  # `model`, `adapter` for a LoRA, `mmproj` and others
    architecture: str  # llama.cpp's name for it: qwen2, llama, gemma3
    size_bytes: int  # of all parts, which is also what the weights take in memory
    parameters: int
    context_length: int | None
    chat_template: str | None
    layers: int | None
    kv_heads: int | None
    head_size: int | None
    lora_rank: int | None = None  # of an adapter
    base_model: str | None = None  # what it was made from

    def kv_cache_bytes(self, tokens: int) -> int:
        """Keys and values of so many tokens in 16 bits; 0 if the header does not say.

        The most it can be: layers that look back over a window alone need less.
        """
        return 4 * (self.layers or 0) * (self.kv_heads or 0) * (self.head_size or 0) * tokens


def read_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file and check that all of its tensors lie within the file.

    For a split file `path` is the first part. Raises Damaged for a file that is cut off, of another
    format, or lacks a part; CheckpointError for a later part.
    """
    return _header(tuple((part, part.stat().st_size, part.stat().st_mtime_ns) for part in parts(path)))


def parts(path: Path) -> list[Path]:
    """All files of a GGUF in order: itself, or `NAME-00001-of-00003.gguf` and the others.

    Raises CheckpointError if it is a later part, Damaged if one is missing.
    """
    found = _PART.fullmatch(path.name)
    if found is None:
        return [path]
    first = _first_part(path)
    if path != first:
        raise CheckpointError(f"{path}: a later part of a split GGUF; give the first one, {first.name}")
    count = int(found["count"])
    wanted = [path.with_name(f"{found['stem']}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1)]
    if missing := [part for part in wanted if not part.is_file()]:
        raise Damaged(f"{missing[0].name} is missing ({len(missing)} of {count} parts)")
    return wanted


def model_name(path: Path) -> str:
    """What to call the model in a GGUF file: after the file, without the number of its part."""
    found = _PART.fullmatch(path.name)
    return found["stem"] if found else path.stem


def gguf_in(folder: Path) -> Path | None:
    """The GGUF model in a folder, of a split one the first part; None if there is none.

    Raises CheckpointError, listing them, if there are several.
    """
    # A projector (mmproj) turns images into tokens; it lies beside the model that it belongs to.
    files = [path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("mmproj")]
    models = sorted({_first_part(path) for path in files})
    if len(models) > 1:
        names = ", ".join(path.name for path in models)
        raise CheckpointError(f"{folder}: holds several GGUF models ({names}); give one of the files")
    return models[0] if models else None


def content_identity(path: Path) -> str:
    """An identity of a GGUF without reading it all, whatever the file is called.

    Covers sizes, headers, and the first 4 KiB of each tensor: training moves some tensor, and then
    its beginning too.
    """
    digest = hashlib.sha256()
    for part in parts(path):
        found = _parsed(part, part.stat().st_size, part.stat().st_mtime_ns)
        digest.update(f"{part.stat().st_size}\n".encode())
        with part.open("rb") as file:
            digest.update(file.read(found.data_start))
            for tensor in found.tensors:
                file.seek(tensor.start)
                digest.update(file.read(min(_SAMPLE_BYTES, tensor.size)))
    return digest.hexdigest()


def _first_part(path: Path) -> Path:
    found = _PART.fullmatch(path.name)
    return path.with_name(f"{found['stem']}-00001-of-{found['count']}{SUFFIX}") if found else path


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]  # ggml's order: the fastest dimension first
    start: int  # within the file
    size: int  # bytes; 1 for a type that is not known here


@dataclass(frozen=True)
class _Parsed:
    """One file."""

    values: dict[str, Any]  # arrays of strings and long arrays left out
    tensors: tuple[_Tensor, ...]
    data_start: int


@lru_cache(maxsize=16)
def _header(files: tuple[tuple[Path, int, int], ...]) -> GgufHeader:
    parsed = [_parsed(*file) for file in files]
    values = parsed[0].values
    tensors = [tensor for part in parsed for tensor in part.tensors]
    architecture = str(values.get("general.architecture", ""))

    def number(key: str) -> int | None:
        found = values.get(f"{architecture}.{key}")
        if isinstance(found, list):  # one value for each layer
            found = max(found, default=None)
        return found if isinstance(found, int) else None

    heads, width = number("attention.head_count"), number("embedding_length")
    ranks = (t.shape[1] for t in tensors if t.name.endswith(".lora_a") and len(t.shape) > 1)
    template = values.get("tokenizer.chat_template")
    base = values.get("general.base_model.0.name")
    return GgufHeader(
        kind=str(values.get("general.type", "model")),
        architecture=architecture,
        size_bytes=sum(size for _, size, _ in files),
        parameters=sum(prod(tensor.shape) for tensor in tensors),
        context_length=number("context_length"),
        chat_template=template if isinstance(template, str) else None,
        layers=number("block_count"),
        kv_heads=number("attention.head_count_kv") or heads,
        head_size=number("attention.key_length") or (width // heads if width and heads else None),
        lora_rank=next(iter(ranks), None),
        base_model=base if isinstance(base, str) else None,
    )


@lru_cache(maxsize=16)
def _parsed(path: Path, size: int, changed_ns: int) -> _Parsed:  # noqa: ARG001 (a changed file is read again)
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise Damaged(f"{path.name} is not a GGUF file")
        version = int.from_bytes(file.read(4), "little")
        if version not in _VERSIONS:
            raise Damaged(f"{path.name} has GGUF version {version}, where 2 and 3 can be read")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                parsed = _Reader(content, path.name).parse()
            # All that a header which ends early, or holds nonsense, can lead to.
            except (struct.error, ValueError, KeyError, IndexError, OverflowError, TypeError) as error:
                raise Damaged(f"{path.name} is cut off or has no readable GGUF header") from error
    end = max((tensor.start + tensor.size for tensor in parsed.tensors), default=0)
    if end > size:
        raise Damaged(f"{path.name} has {size:,} bytes where its header says at least {end:,}")
    return parsed


class _Reader:
    """Walks over the header in a mapped file."""

    def __init__(self, content: mmap.mmap, name: str) -> None:
        self._content = content
        self._name = name
        self._at = 8  # after magic and version

    def parse(self) -> _Parsed:
        number_of_tensors, number_of_values = self._scalar(10), self._scalar(10)
        values: dict[str, Any] = {}
        for _ in range(number_of_values):
            key, kind = self._string(), self._scalar(_UINT32)
            values[key] = self._value(kind)
        told = [self._tensor() for _ in range(number_of_tensors)]
        alignment = int(values.get("general.alignment", 32))
        data_start = -(-self._at // alignment) * alignment
        tensors = tuple(_Tensor(name, shape, data_start + at, size) for name, shape, at, size in told)
        return _Parsed(values, tensors, data_start)

    def _scalar(self, kind: int) -> Any:
        layout = _SCALARS[kind]
        (value,) = layout.unpack_from(self._content, self._at)
        self._at += layout.size
        return value

    def _string(self) -> str:
        start = self._at + 8
        self._at = start + self._scalar(10)
        if self._at > len(self._content):
            raise ValueError("a string beyond the end")
        return self._content[start : self._at].decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._scalar(kind)
        of, count = self._scalar(_UINT32), self._scalar(10)
        if of == _STRING:
            return self._skip_strings(count)
        if count <= _LONGEST_LIST:
            return [self._scalar(of) for _ in range(count)]
        self._at += count * _SCALARS[of].size
        return None

    def _skip_strings(self, count: int) -> None:
        """The vocabulary: nearly all of a header, so this loop is as short as it can be."""
        at, content, length = self._at, self._content, _SCALARS[10].unpack_from
        for _ in range(count):
            at += 8 + length(content, at)[0]
        self._at = at

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        shape = tuple(self._scalar(10) for _ in range(self._scalar(_UINT32)))
        kind, start = self._scalar(_UINT32), self._scalar(10)
        weights, block_bytes = _BLOCKS.get(kind, (0, 0))
        size = prod(shape) // weights * block_bytes if weights else 1
        return name, shape, start, size
