"""Writes files atomically, reads YAML files of users, and makes the error for a path that cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from datacreate.errors import StorageError, UnwritablePath

_IMPOSSIBLE = (
    errno.EACCES, errno.EEXIST, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT,
    errno.ENOTDIR, errno.ENXIO, errno.EPERM,
)  # fmt: skip


def replace_file(path: Path, text: str) -> None:
    """Write a file atomically. Raises StorageError."""
    part = path.with_name(path.name + ".part")
    try:
        write_synced(part, text.encode("utf-8"))
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise storage_error(path, error) from None


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and sync it to the disk. Raises OSError."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def storage_error(path: Path, error: OSError) -> StorageError:
    """The one-line error for a file or folder that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(f"{path}: the disk is full; free space and run the same command to resume")
    if error.errno in _IMPOSSIBLE:
        return UnwritablePath(f"{path}: cannot be written ({error.strerror}); choose another path")
    return StorageError(f"{path}: {error.strerror or error}; fix this and run the same command to resume")


def read_yaml(path: Path) -> Any:
    """The document in a YAML or JSON file that a user wrote. ValueError, in a few words, if there is none.

    As in YAML 1.2 only true and false are booleans: yes, no, on and off are texts. A number that Python would write
    differently (007, 0.10) stays a text. A repeated key is an error.
    """
    import yaml

    try:
        return yaml.load(path.read_text(encoding="utf-8"), _yaml_loader())
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"not valid YAML{where}; put texts with special characters in quotes") from None


@cache
def _yaml_loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (filled below)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key for key, _ in node.value]
            for at, key in enumerate(keys):
                if key.value in [earlier.value for earlier in keys[:at]]:
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
