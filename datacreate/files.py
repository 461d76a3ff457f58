"""Where files are, and how they are written: atomically and never through links.

Shipped files (`models/`, `schemas/`, `data/`) lie beside the package in a checkout and inside it in an
installed wheel. The data directory holds what is kept between runs (models from mirrors, imported
benchmarks): `$DATACREATE_HOME`, by default the platform's user data directory; on a cluster, a
shared folder. This module also reads texts and YAML of users, and makes the error for a path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs

from datacreate.errors import StorageError, UnwritablePath
from datacreate.signals import deferred

TEMPORARY_PATTERN = ".datacreate-*.part"
"""Names of files and folders that `atomic_replacement` has not renamed yet; a killed process leaves them."""

_MAX_YAML_BYTES = 16 << 20
_PACKAGE = Path(__file__).resolve().parent

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_IMPOSSIBLE = (
    errno.EACCES, errno.EEXIST, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT,
    errno.ENOTDIR, errno.ENXIO, errno.EPERM,
)  # fmt: skip
"""Errors that say that nothing can ever be written to a path."""


@contextlib.contextmanager
def atomic_replacement(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """A new path to write a file or a folder to; it replaces `path` at the end of the block.

    The new path is in `folder`, by default in the folder of `path`, and is removed after an error. A link at `path` is
    itself replaced, not its target. A device or a pipe is never replaced. Raises StorageError.
    """
    part = (folder or path.parent) / TEMPORARY_PATTERN.replace("*", secrets.token_hex(4))
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise OSError(errno.EEXIST, "a device or a pipe is there")
        yield part
        if part.is_dir():  # it can only replace an empty folder
            if path.is_symlink():
                path.unlink()
            elif path.is_dir():
                shutil.rmtree(path)
        else:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise storage_error(path, error) from None
    finally:
        _remove(part)


def replace_file(path: Path, text: str, mode: int = 0o666) -> None:
    """Write a file atomically (see `atomic_replacement`); the umask reduces `mode`. Raises StorageError."""
    with (
        atomic_replacement(path) as part,
        open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file,
    ):
        file.write(text.encode("utf-8"))


def replace_files(texts: Mapping[Path, str]) -> None:
    """Write files atomically, in their order; none is replaced before all are on the disk. Raises StorageError."""
    with deferred(), contextlib.ExitStack() as stack:
        for path, text in reversed(list(texts.items())):
            part = stack.enter_context(atomic_replacement(path))
            with part.open("xb") as file:
                file.write(text.encode("utf-8"))
                sync_file(file)


def sync_file(file: BinaryIO) -> None:
    """Write everything that an open file buffers, and sync it to the disk. OSError."""
    file.flush()
    os.fsync(file.fileno())


def remove_temporary(folder: Path) -> None:
    """Remove what killed processes left in a folder; the caller holds its lock."""
    for part in folder.glob(TEMPORARY_PATTERN):
        _remove(part)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def open_regular(path: Path, flags: int) -> int:
    """Open a file of a folder that only we write, as `os.open` does. OSError for a link or anything else."""
    try:
        file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a symbolic link is there") from None
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "not a regular file")
    return file


def refuse_links(*paths: Path) -> None:
    """Raise UnwritablePath if one of these paths, in a folder that only we write, is a symbolic link."""
    for path in paths:
        if path.is_symlink():
            raise storage_error(path, OSError(errno.ELOOP, "a symbolic link is there"))


def sync_path(path: Path) -> None:
    """Sync a file, or the names in a folder, to the disk, where the file system can do that. OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.fsync(file)
    finally:
        os.close(file)


def storage_error(path: Path, error: OSError) -> StorageError:
    """The one-line error for a file or folder that cannot be written."""
    if error.errno in DISK_FULL:
        return StorageError(f"{path}: the disk is full; free space and run the same command to resume")
    if error.errno in _IMPOSSIBLE:
        return UnwritablePath(f"{path}: cannot be written ({error.strerror}); choose another path")
    return StorageError(f"{path}: {error.strerror or error}; fix this and run the same command to resume")


def read_short_text(path: Path, max_bytes: int) -> str:
    """The text of a file or a pipe that a user wrote, in UTF-8. ValueError, in a few words, if it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
        if b"\0" in content:
            raise ValueError("a binary file; give a text file in UTF-8")
        if len(content) > max_bytes:
            raise ValueError(f"larger than {max_bytes >> 10} KiB; give a shorter text")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ValueError("no such file") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}; convert it with `iconv -t UTF-8`") from None


def read_yaml(path: Path) -> Any:
    """The document in a YAML or JSON file that a user wrote. ValueError, in a few words, if it cannot be read.

    As in YAML 1.2 only true and false are booleans: yes, no, on and off are texts. A number that Python would write
    differently (007, 0.10) stays a text. A repeated key is an error.
    """
    import yaml

    text = read_short_text(path, _MAX_YAML_BYTES)
    try:
        return yaml.load(text, _yaml_loader())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"not valid YAML{where}; put texts with special characters in quotes") from None


@cache
def _yaml_loader() -> Any:
    """The loader of `read_yaml`: a class, made here because importing yaml is slow."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (filled below)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 (yaml calls it)
            keys = [key for key, _ in node.value]
            for index, key in enumerate(keys):
                if key.value in [earlier.value for earlier in keys[:index]]:
                    raise ValueError(f"line {key.start_mark.line + 1}: the key {key.value} is given twice")
            return super().construct_mapping(node, deep)

        def construct_decimal(self, node: yaml.ScalarNode) -> float | str:
            return float(node.value) if repr(float(node.value)) == node.value else str(node.value)

    for tag, pattern in {
        "bool": "true|True|TRUE|false|False|FALSE",
        "null": "~|null|Null|NULL|",
        "int": "-?(0|[1-9][0-9]*)",
        "float": r"-?(0|[1-9][0-9]*)\.[0-9]+",
        "merge": "<<",
    }.items():
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"({pattern})\Z"), None)
    Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_decimal)
    return Loader


@cache
def shipped(*parts: str) -> Path:
    """The path of a shipped file or folder, e.g. `shipped("schemas")`."""
    installed = _PACKAGE / "_shipped"
    root = installed if installed.is_dir() else _PACKAGE.parent
    return root.joinpath(*parts)


def data_dir() -> Path:
    """The data directory; it need not exist yet."""
    chosen = os.environ.get("DATACREATE_HOME")
    return expand_home(chosen) if chosen else Path(platformdirs.user_data_dir("datacreate"))


def expand_home(path: str | Path) -> Path:
    """The path with a home folder for `~` or `~name`; that of a user who does not exist stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises an error for such a user
