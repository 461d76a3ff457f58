"""What the wheels of a bundle say of themselves: the glibc they want, their room, what they require."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from pathlib import Path

from datacreate.bundle.contents import Entry

_MINOR = re.compile(r"manylinux_2_(\d+)_x86_64")
_OLD_NAMES = {
    "manylinux1_": "manylinux_2_5_",
    "manylinux2010_": "manylinux_2_12_",
    "manylinux2014_": "manylinux_2_17_",
}


@dataclass(frozen=True)
class Told:
    """Of all wheels together."""

    glibc: str  # the oldest that every one runs on, such as 2.28; "" where any will do
    installed_bytes: int
    unmet: tuple[str, ...]  # "torch wants nvidia-cublas", for the markers asked about


def read_wheels(folder: Path, entries: Iterable[Entry], markers: dict[str, str], left_out: set[str]) -> Told:
    """Look into every wheel of the bundle; `left_out` names what is not carried on purpose."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name, parse_wheel_filename

    minors, total, wants = [0], 0, []
    names: set[str] = set(left_out)
    for entry in entries:
        file_name = Path(entry.path).name
        name = str(parse_wheel_filename(file_name)[0])
        names.add(name)
        minors.append(_oldest_minor(file_name))
        with zipfile.ZipFile(Spliced(folder, entry)) as wheel:
            total += sum(member.file_size for member in wheel.infolist())
            [metadata] = [n for n in wheel.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)]
            told = BytesHeaderParser().parsebytes(wheel.read(metadata))
        for line in told.get_all("Requires-Dist", []):
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate(markers):
                wants.append((name, str(canonicalize_name(wanted.name))))
    unmet = tuple(f"{name} wants {wanted}" for name, wanted in wants if wanted not in names)
    return Told(f"2.{max(minors)}" if max(minors) else "", total, unmet)


def _oldest_minor(file_name: str) -> int:
    """Of a wheel that fits several, the oldest counts: pip takes it for that one, too."""
    tags = file_name.removesuffix(".whl").rsplit("-", 1)[1]
    for old, new in _OLD_NAMES.items():
        tags = tags.replace(old, new)
    return min(map(int, _MINOR.findall(tags)), default=0)


class Spliced(io.RawIOBase):
    """A carried file as one, for reading anywhere in it, though it lies in pieces."""

    def __init__(self, folder: Path, entry: Entry) -> None:
        super().__init__()
        self._parts = [(folder / part.path, part.size) for part in entry.parts]
        self._size = entry.size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """All that was asked for, over the borders of pieces."""
        left = self._size - self._at if size is None or size < 0 else size
        found, begins = [], 0
        for path, length in self._parts:
            if left > 0 and begins <= self._at < begins + length:
                with path.open("rb") as file:
                    file.seek(self._at - begins)
                    block = file.read(min(left, begins + length - self._at))
                found.append(block)
                self._at += len(block)
                left -= len(block)
            begins += length
        return b"".join(found)
