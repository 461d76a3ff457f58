"""What a source hands over, and how it says that it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


class SourceFailed(Exception):
    """This source cannot serve; the message says why, in a few words."""


@contextmanager
def unreadable_is_failed() -> Iterator[None]:
    """A file of the source that cannot be read is the source's fault, not the home's."""
    try:
        yield
    except OSError as error:
        raise SourceFailed(f"cannot read {error.filename}: {error.strerror}") from error


@dataclass(frozen=True)
class Arrival:
    """A folder that holds nothing but what arrived: a GGUF (perhaps in parts), or a checkpoint's files."""

    folder: Path
    revision: str | None = None  # the Hub's commit
    sha256: dict[str, str] = field(default_factory=dict)  # of files that were hashed while they were written

    @property
    def gguf(self) -> str | None:
        """The name of the GGUF that arrived (its first part), if that is what arrived."""
        names = sorted(path.name for path in self.folder.glob("*.gguf"))
        return names[0] if names else None

    @property
    def names(self) -> list[str]:
        """Paths of all files within the folder, sorted, with `/` between folders."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in files)
