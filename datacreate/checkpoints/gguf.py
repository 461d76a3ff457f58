"""GGUF files: the parts of a model, and what its header says.

The `gguf` package would take seconds here, because it turns each of 300,000 vocabulary entries into objects.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO

from datacreate.errors import CheckpointError

SUFFIX = ".gguf"

_PART = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")
_STRING, _ARRAY = 8, 9
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))


@dataclass(frozen=True)
class GgufFile:
    """A GGUF model (of a split one the first part), and what its header says; None: it does not say."""

    path: Path
    kind: str  # `model`, `adapter` (LoRA), `mmproj` or others
    size_bytes: int  # of all parts; also the memory that the weights take
    context_length: int | None
    kv_bytes_per_token: int  # keys and values in 16 bits; 0: unknown. An upper bound with sliding windows

    @property
    def model_name(self) -> str:
        """The file's name, without the number of the part."""
        return _PART.sub(r"\g<stem>", self.path.name).removesuffix(SUFFIX)


def read_gguf(path: Path) -> GgufFile:
    """Read the header of a GGUF file, for a part of a split model that of the first one.

    llama.cpp checks the rest: other parts and tensors. Raises CheckpointError for a truncated header or
    another format.
    """
    files = parts(path)
    try:
        with files[0].open("rb") as file:
            if file.read(4) != b"GGUF":
                raise CheckpointError(f"{path}: not a GGUF file; copy or download it again")
            file.seek(4, 1)  # the version
            values = _read_values(file, files[0].stat().st_size)
    except (struct.error, ValueError, KeyError, OverflowError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: no complete GGUF header; copy or download it again") from error

    def number(key: str) -> int | None:
        found = values.get(f"{values.get('general.architecture')}.{key}")
        if isinstance(found, list):  # one value per layer
            found = max((each for each in found if isinstance(each, int)), default=None)
        return found if isinstance(found, int) else None

    heads, width = number("attention.head_count"), number("embedding_length")
    head_size = number("attention.key_length") or (width // heads if width and heads else 0)
    kv_heads = number("attention.head_count_kv") or heads or 0
    return GgufFile(
        path=files[0],
        kind=str(values.get("general.type", "model")),
        size_bytes=sum(part.stat().st_size for part in files),
        context_length=number("context_length"),
        kv_bytes_per_token=4 * (number("block_count") or 0) * kv_heads * head_size,
    )


def parts(path: Path) -> list[Path]:
    """The files of a GGUF model in order: itself, or all parts (`NAME-00001-of-00003.gguf`) that are there."""
    found = _PART.fullmatch(path.name)
    pattern = f"{escape(found['stem'])}-?????-of-{found['count']}{SUFFIX}" if found else escape(path.name)
    return sorted(path.parent.glob(pattern)) or [path]


def gguf_in(folder: Path) -> Path | None:
    """The GGUF model in a folder; None if there is none. CheckpointError if there are several."""
    # A projector (mmproj) for images lies beside its model.
    found = {parts(path)[0] for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("mmproj")}
    if len(found) > 1:
        names = ", ".join(sorted(path.name for path in found))
        raise CheckpointError(f"{folder}: several GGUF models ({names}); give the path of one of them")
    return found.pop() if found else None


def _read_values(file: BinaryIO, size: int) -> dict[str, Any]:
    """The values in the header of a file of `size` bytes; None for the vocabulary and other long lists."""

    def scalar(code: str) -> Any:
        return struct.unpack(f"<{code}", file.read(struct.calcsize(code)))[0]

    def value(kind: int) -> Any:
        if kind == _STRING:
            return file.read(min(size, scalar("Q"))).decode("utf-8", "replace")
        if kind != _ARRAY:
            return scalar(_SCALARS[kind])
        item, count = scalar("I"), scalar("Q")
        if item == _STRING:  # the vocabulary: skipped, in as few steps as possible
            unpack = struct.Struct("<Q").unpack
            for _ in range(count):
                file.seek(min(size, unpack(file.read(8))[0]), 1)
        elif count > 4096:  # a value per token, not per layer
            file.seek(count * struct.calcsize(_SCALARS[item]), 1)
        else:
            return [value(item) for _ in range(count)]
        return None

    scalar("Q")  # number of tensors
    return {value(_STRING): value(scalar("I")) for _ in range(scalar("Q"))}
