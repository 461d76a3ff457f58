"""The home of everything kept between runs, and room on the disks."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
from pathlib import Path

from datacreate.checkpoints import load_presets
from datacreate.doctor.line import WORKS, Line, gib
from datacreate.paths import home

SECTION = "home"

ELSEWHERE = "export DATACREATE_HOME=DIR"

_FEW_BYTES = 10 * 1024**3
_NO_BYTES = 256 * 1024**2

_FOLDERS = ("checkpoints", "downloads", "benchmarks", "locks")


def homes() -> list[Line]:
    """Lines about the home, who holds it, and the room there and in the current folder."""
    place = home()
    lines = [_home(place)]
    if place.is_dir():
        lines += [_locks(place), *_unfinished(place)]
    lines.append(_room("room at home", nearest(place), ELSEWHERE, blocks=False))
    here = Path.cwd()
    return [*lines, _room("room here", here, f"df -h {shlex.quote(str(here))}", blocks=True)]


def see_home() -> str:
    """The command that shows whose the home is."""
    return f"ls -ld {shlex.quote(str(home()))}"


def nearest(path: Path) -> Path:
    """The path, or the nearest of its parents that is there."""
    path = path.absolute()
    return next((each for each in (path, *path.parents) if os.path.lexists(each)), Path(path.anchor))


def writable(folder: Path) -> bool:
    """Whether a file could be made in the folder, as far as its rights and its file system say."""
    return os.access(folder, os.W_OK | os.X_OK)


def is_held(path: Path) -> bool:
    """Whether another process holds a lock file. OSError where files cannot be locked or read.

    The lock is shared and given back at once; whoever waits for the file does not notice.
    """
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _home(place: Path) -> Line:
    said = str(place)
    if place.is_dir():
        if not os.access(place, os.R_OK | os.X_OK):
            return Line(SECTION, "home", "red", f"{said} cannot be read", ELSEWHERE, WORKS)
        decided = [each for each in (place, *(place / name for name in _FOLDERS)) if _is_shut(each)]
        if decided:
            said += f", read-only ({decided[0]}): enough for runs, not for `models pull` and imports"
            return Line(SECTION, "home", "note", said)
        return Line(SECTION, "home", "ok", f"{said}, writable")
    found = nearest(place)
    if not found.is_dir():
        said += f" cannot be a folder: {found} is {'a file' if found.exists() else 'a link to nowhere'}"
        return Line(SECTION, "home", "red", said, ELSEWHERE, WORKS)
    if not writable(found):
        said += f" is not there, and {found} is read-only: nothing can be brought here"
        return Line(SECTION, "home", "red", said, ELSEWHERE)
    return Line(SECTION, "home", "note", f"{said} is not there yet; the first `models pull` makes it")


def _is_shut(folder: Path) -> bool:
    return folder.is_dir() and not writable(folder)


def _locks(place: Path) -> Line:
    """Who works at the home just now; a shared one has other users."""
    try:
        files = [*sorted((place / "downloads").glob("*.lock")), place / "benchmarks" / ".lock"]
        held = [path for path in files if path.is_file() and is_held(path)]
    except PermissionError:
        return Line(SECTION, "locks", "note", "somebody else's, which cannot be looked at")
    except OSError as error:
        said = f"this file system cannot lock files ({error.strerror}): pulls and imports need that"
        return Line(SECTION, "locks", "red", said, ELSEWHERE)
    at_work = ["benchmarks" if path.name == ".lock" else path.stem for path in held]
    if at_work:
        return Line(SECTION, "locks", "note", f"another process is bringing {', '.join(at_work)}")
    return Line(SECTION, "locks", "ok", "none is held")


def _unfinished(place: Path) -> list[Line]:
    """Pulls that were stopped, whose pieces wait."""
    try:
        names = sorted(path.name for path in (place / "downloads").iterdir() if path.is_dir())
    except OSError:
        return []
    if not names:
        return []
    said = f"stopped pulls, whose pieces are kept: {', '.join(names)}"
    known = load_presets()
    pulled = [name for name in names if name in known]
    fix = f"datacreate models pull {' '.join(pulled)}" if pulled else "datacreate models import FILE"
    return [Line(SECTION, "unfinished", "note", said, fix)]


def _room(name: str, place: Path, fix: str, *, blocks: bool) -> Line:
    try:
        found = shutil.disk_usage(place)
    except OSError as error:
        return Line(SECTION, name, "note", f"{place}: {error.strerror}")
    said = f"{gib(found.free)} free of {gib(found.total)}"
    if found.free < _NO_BYTES:
        return Line(SECTION, name, "red", said, fix, WORKS if blocks else ())
    return Line(SECTION, name, "note" if found.free < _FEW_BYTES else "ok", said)
