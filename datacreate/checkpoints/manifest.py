"""`datacreate.json`: what lies in a finished folder, and where it came from."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from datacreate.checkpoints.folder import Damaged, check_loadable
from datacreate.checkpoints.gguf_file import SUFFIX
from datacreate.files import write_synced

NAME = "datacreate.json"


class FileRecord(BaseModel):
    """One file as it was when it was put in place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int  # bytes
    sha256: str


class Manifest(BaseModel):
    """What a pull leaves beside the weights.

    `spec` is over what arrived.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    spec: str
    source: str  # the label of the preset's source that served
    revision: str | None = None  # the Hub's commit, where it came from there
    arrived: dict[str, FileRecord]
    converted_from: str | None = None  # a GGUF's name; earlier versions kept only its conversion
    files: dict[str, FileRecord]  # path within the folder -> record
    when: str  # ISO 8601, UTC
    versions: dict[str, str]

    def gguf(self, folder: Path) -> Path | None:
        """The GGUF in its folder, of a split one the first part; None for safetensors."""
        names = sorted(name for name in self.files if name.endswith(SUFFIX))
        return folder / names[0] if names else None


def write(folder: Path, manifest: Manifest) -> None:
    """Write it whole or not at all, and onto the disk before it counts."""
    partial = folder / f".{NAME}"
    write_synced(partial, (manifest.model_dump_json(indent=2) + "\n").encode("utf-8"))
    partial.replace(folder / NAME)


def read(folder: Path) -> Manifest:
    """Raises Damaged when it is absent or not what `write` wrote."""
    try:
        return Manifest.model_validate_json((folder / NAME).read_bytes())
    except FileNotFoundError as error:
        raise Damaged(f"{NAME} is missing") from error
    except ValidationError as error:
        raise Damaged(f"{NAME} is not readable") from error


def check_sizes(folder: Path, manifest: Manifest, trust_remote_code: bool = False) -> None:
    """The cheap check of every run: each file there, of its size, each safetensors file complete.

    A GGUF's header was read when it was put in place. Raises Damaged naming the first that is not.
    """
    for name, record in manifest.files.items():
        try:
            size = (folder / name).stat().st_size
        except FileNotFoundError as error:
            raise Damaged(f"{name} is missing") from error
        if size != record.size:
            raise Damaged(f"{name} has {size:,} bytes instead of {record.size:,}")
    if manifest.gguf(folder) is None:
        check_loadable(folder, trust_remote_code)
