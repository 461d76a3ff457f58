"""Finds servers: addresses from the command line, or a folder in which servers register."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datacreate.errors import UsageError

KEY = "DATACREATE_API_KEY"
"""The environment variable with the API key of the servers; no option takes the key."""


_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/|$)")
"""An address without http://, as opposed to a path."""


def api_key() -> str:
    """The servers' API key, or "". UsageError if it cannot be sent in an HTTP header."""
    key = os.environ.get(KEY, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise UsageError(
            f"${KEY} contains a space, a line break or a non-ASCII character; set it to the key only"
        )
    return key


class Address(BaseModel):
    """The address of a server and its capacity; the content of the file that a server registers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str  # without /v1 and without a trailing slash
    model: str | None = None  # the server's name for it; None: read from /v1/models
    max_num_seqs: int | None = Field(default=None, gt=0)  # requests it processes at once


class ServerSource:
    """The servers of a run: those of `--url` (Addresses), or started on this machine (LocalServers)."""

    remote = True  # False if this process starts them
    changes = False  # whether servers may be added later
    shown = "this machine"  # short description for messages
    failed: str | None = None  # why there will be no server any more; None if there may be
    record: Mapping[str, Any] = MappingProxyType({})  # how they were started, for config.json

    def __init__(self, key: str) -> None:
        self.key = key  # their API key; empty if none

    def start(self) -> None:
        """Return when the servers accept requests. EngineError if they cannot be started."""

    def stop(self) -> None:
        """Stop the servers that were started."""

    def now(self) -> tuple[Address, ...]:
        """All servers known now."""
        return ()

    def repair(self, url: str, *, hung: bool) -> str | None:
        """Restart a server that died or hangs; returns a message, None if nothing was done."""
        return None


class Addresses(ServerSource):
    """The value of `--url`: addresses, and folders in which servers register and unregister."""

    def __init__(self, urls: Iterable[str]) -> None:
        """Parse `--url`. UsageError for neither an address nor a folder, or an address with a password."""
        super().__init__(api_key())
        listed: list[Address] = []
        self._folders: list[Path] = []
        for url in urls:
            if not url.strip():
                raise UsageError("--url: an empty address; write it as http://HOST:PORT")
            place = Path(url).expanduser()
            if place.is_dir() or ("/" in url and "://" not in url and not _HOST_AND_PORT.match(url)):
                self._folders.append(place)  # it may be created later
            else:
                listed.append(Address(url=_checked(url)))
        self._listed = tuple(dict.fromkeys(listed))
        self.changes = bool(self._folders)
        names = [*(address.url for address in self._listed), *map(str, self._folders)]
        self.shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        if not (self._listed or self._folders):
            raise UsageError("--url: no address; write it as http://HOST:PORT, or pass a folder of servers")

    def now(self) -> tuple[Address, ...]:
        found = {address.url: address for address in self._listed}
        for folder in self._folders:
            for address in _published(folder):
                found.setdefault(address.url, address)
        return tuple(found.values())


def _published(folder: Path) -> Iterator[Address]:
    for path in sorted(folder.glob("*.json")):
        try:
            address = Address.model_validate_json(path.read_bytes())
            yield address.model_copy(update={"url": _checked(address.url)})
        except (OSError, ValidationError, UsageError):  # removed, incomplete, or another file
            continue


def _checked(url: str) -> str:
    """The address without /v1 and trailing slashes. UsageError if it is invalid."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        known = False
    if not known:
        raise UsageError(
            f"--url {url}: neither an address nor a folder; write it as http://HOST:PORT, several with commas"
        )
    if parts.username or parts.password:
        raise UsageError(f"--url: an address must not contain a password; set ${KEY} instead")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
