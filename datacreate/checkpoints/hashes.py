"""sha256 of files, and the identity of a checkpoint made from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO

_BLOCK_BYTES = 1 << 22
_MIB = 1 << 20


def sha256_of(path: Path, tick: Callable[[int], None] | None = None) -> str:
    """Hash a whole file; `tick` is told the bytes of each block read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            if tick is not None:
                tick(len(block))
    return digest.hexdigest()


def copy_hashed(files: Iterable[IO[bytes]], out: IO[bytes], tick: Callable[[int], None] | None = None) -> str:
    """Write files end to end into `out`, and give the sha256 of it all: read once, not twice."""
    digest = hashlib.sha256()
    for file in files:
        while block := file.read(_BLOCK_BYTES):
            out.write(block)
            digest.update(block)
            if tick is not None:
                tick(len(block))
    return digest.hexdigest()


def spec(sha256_by_name: Mapping[str, str]) -> str:
    """One sha256 for a set of files: over their names and hashes, in order of name."""
    digest = hashlib.sha256()
    for name, sha256 in sorted(sha256_by_name.items()):
        digest.update(f"{name}\0{sha256}\n".encode())
    return digest.hexdigest()


def quick_identity(folder: Path, names: list[str]) -> str:
    """An identity of a local folder without reading it all.

    Covers every file's name and size, small files whole (up to 2 MiB), and the first and last MiB of
    big ones. The first MiB of a safetensors file holds its header, and training moves
    every weight, so two different models differ; a change made by hand in the middle of
    a big file, its size unchanged, is not seen.
    """
    digest = hashlib.sha256()
    for name in sorted(names):
        path = folder / name
        size = path.stat().st_size
        digest.update(f"{name}\0{size}\n".encode())
        with path.open("rb") as file:
            if size <= 2 * _MIB:
                digest.update(file.read())
                continue
            digest.update(file.read(_MIB))
            file.seek(-_MIB, 2)
            digest.update(file.read(_MIB))
    return digest.hexdigest()
