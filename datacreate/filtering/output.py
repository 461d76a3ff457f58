"""What a screening writes: files that are there whole at its end, or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from datacreate.errors import UsageError
from datacreate.files import storage_error


class Lines:
    """A file being written, a line at a time; without a path, nothing is."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._part = path and path.with_name(path.name + ".part")
        self._file = self._part and self._part.open("wb")

    def write(self, line: str) -> None:
        if self._file:
            self._file.write(line.encode("utf-8") + b"\n")

    def sync(self) -> None:
        """See to it that the disk has every line."""
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def put_in_place(self) -> None:
        if self._path and self._part:
            self._part.replace(self._path)

    def close(self) -> None:
        """Close; what has not been put in place is removed."""
        if self._file and self._part:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                self._part.unlink(missing_ok=True)


@contextlib.contextmanager
def written(*paths: Path | None) -> Iterator[list[Lines]]:
    """Files to write into, all put in place at the end of the block; none of them if it fails.

    Raises StorageError if the disk does not take them.
    """
    with contextlib.ExitStack() as stack:
        files: list[Lines] = []
        place = Path()
        try:
            for place in filter(None, paths):
                place.parent.mkdir(parents=True, exist_ok=True)
            for path in paths:
                place = path or place
                files.append(Lines(path))
                stack.callback(files[-1].close)
            yield files
            for file in files:
                file.sync()
            for file in files:
                file.put_in_place()
        except OSError as error:
            where = Path(error.filename) if isinstance(error.filename, str) else place
            raise storage_error(where, error) from None


def refuse_overwriting(inputs: Sequence[Path], outputs: dict[str, Path | None]) -> None:
    """UsageError if an output (flag -> path) is a folder, one of the inputs, or another output."""
    taken = {path.resolve() for path in inputs}
    for flag, path in outputs.items():
        if path is None:
            continue
        if path.is_dir():
            raise UsageError(f"{flag} {path}: that is a folder; give a file")
        if path.resolve() in taken or any(path.exists() and path.samefile(p) for p in taken if p.exists()):
            raise UsageError(
                f"{flag} {path}: that would overwrite what is read or written; give another file"
            )
        taken.add(path.resolve())
