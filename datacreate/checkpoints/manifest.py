"""`datacreate.json`: what lies in a finished folder, and where it came from."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from datacreate.checkpoints.folder import Damaged, check_loadable
from datacreate.files import write_synced

NAME = "datacreate.json"


class FileRecord(BaseModel):
    """One file as it was when it was put in place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int  # bytes
    sha256: str


class Manifest(BaseModel):
    """What a pull leaves beside the weights.

    `identity` is over what arrived, not over what it was converted into: a newer converter
    writes other bytes, and still it is the same model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    identity: str
    source: str  # the label of the preset's source that served
    revision: str | None = None  # the Hub's commit, where it came from there
    arrived: dict[str, FileRecord]
    converted_from: str | None = None  # the GGUF's name
    files: dict[str, FileRecord]  # path within the folder -> record
    when: str  # ISO 8601, UTC
    versions: dict[str, str]


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


def check_sizes(folder: Path, manifest: Manifest, remote_code: bool = False) -> None:
    """The cheap check of every run: each file there, of its size, each weight file complete.

    Raises Damaged naming the first that is not.
    """
    for name, record in manifest.files.items():
        try:
            size = (folder / name).stat().st_size
        except FileNotFoundError as error:
            raise Damaged(f"{name} is missing") from error
        if size != record.size:
            raise Damaged(f"{name} has {size:,} bytes instead of {record.size:,}")
    check_loadable(folder, remote_code)
