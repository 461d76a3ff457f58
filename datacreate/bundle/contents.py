"""What a bundle says it holds, and whether it does. The standard library alone: see farside.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

NAME = "manifest.json"
FORMAT = 1
_BLOCK_BYTES = 1 << 22
_OF_THE_MEDIUM = frozenset({"System Volume Information", "lost+found"})

Say = Callable[[str], None]


class Refused(Exception):
    """One line: what is wrong, where, what to do. `exit_code` 75: fix it and run the same again."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Piece:
    """A file of the bundle, as it lies there."""

    path: str  # within the bundle, with slashes
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Entry(Piece):
    """A file that is carried; where it was too large for the medium, in pieces."""

    kind: str  # installer, wheel, project, checkpoint, setting, benchmark
    pieces: tuple[Piece, ...] = ()

    @property
    def parts(self) -> tuple[Piece, ...]:
        """What lies in the bundle, in order."""
        return self.pieces or (Piece(self.path, self.size, self.sha256),)


@dataclass(frozen=True)
class Contents:
    """What manifest.json says."""

    datacreate: str  # the version carried
    platform: str  # cpu or gpu
    python: str  # such as 3.11
    glibc: str  # the oldest that every wheel runs on, such as 2.28; "" where any will do
    environment_bytes: int  # of the installed environment; 0 without wheels
    models: tuple[str, ...]  # those that can write, in the order they were asked for
    entries: tuple[Entry, ...]

    def document(self) -> dict[str, Any]:
        """As JSON; `checksum` is the sha256 of all the rest."""
        body = {"format": FORMAT, **asdict(self)}
        return {**body, "checksum": _checksum(body)}


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read(folder: Path) -> Contents:
    """The contents of a bundle; Refused where there is none or its manifest is damaged."""
    path = folder / NAME
    try:
        document = json.loads(path.read_bytes())
        sealed = document.pop("checksum")
        if document["format"] != FORMAT:
            raise Refused(
                f"{path}: written in format {document['format']}, and this knows {FORMAT}: use the "
                "install.py that lies beside it"
            )
        if sealed != _checksum(document):
            raise ValueError
        del document["format"]
        entries = tuple(_entry(record) for record in document.pop("entries"))
        return Contents(**{**document, "models": tuple(document["models"]), "entries": entries})
    except (FileNotFoundError, NotADirectoryError):
        raise Refused(
            f"{folder}: no {NAME} in it, so no bundle, or one whose `datacreate bundle make` has not "
            "ended: give the folder that it finished"
        ) from None
    except OSError as error:
        raise Refused(f"{path}: cannot be read ({error.strerror}); fix that and run this again") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused(f"{path}: not what was written there; copy it from the source again") from None


def _entry(record: dict[str, Any]) -> Entry:
    entry = Entry(**{**record, "pieces": tuple(Piece(**piece) for piece in record["pieces"])})
    for path in (entry.path, *(piece.path for piece in entry.pieces)):
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(path)
    return entry


def problems(folder: Path, contents: Contents, say: Say, *, hashing: bool = True) -> Iterator[str]:
    """A line for each file that is missing, cut off, altered or not part of it, as they are found.

    Without `hashing` only names and sizes are looked at.
    """
    expected = {NAME}
    for entry in contents.entries:
        for part in entry.parts:
            expected.add(part.path)
            path = folder / part.path
            if not path.is_file():
                yield f"{part.path}: missing: copy it from the source again"
            elif path.stat().st_size != part.size:
                held = path.stat().st_size
                yield f"{part.path}: {held:,} bytes instead of {part.size:,}: copy it from the source again"
            elif hashing:
                say(f"checking {part.path}")
                try:
                    if sha256_of(path) != part.sha256:
                        yield f"{part.path}: altered (its sha256 differs): copy it from the source again"
                except OSError as error:
                    yield f"{part.path}: cannot be read ({error.strerror}): copy it from the source again"
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in expected and name.split("/")[0] not in _OF_THE_MEDIUM:
            yield f"{name}: not part of the bundle: remove it"


def sha256_of(path: Path) -> str:
    """Hash a whole file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def pour(folder: Path, entry: Entry, out: BinaryIO | None) -> None:
    """Write an entry's bytes, joined from its pieces; Refused at the first piece that is not what it was."""
    for part in entry.parts:
        digest = hashlib.sha256()
        try:
            file = (folder / part.path).open("rb")
        except OSError as error:
            raise Refused(
                f"{folder / part.path}: {error.strerror}: copy it from the source again, and run this again"
            ) from None
        with file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                if out is not None:
                    out.write(block)
        if digest.hexdigest() != part.sha256:
            raise Refused(
                f"{folder / part.path}: altered (its sha256 differs): copy it from the source again, and run "
                "this again"
            )
