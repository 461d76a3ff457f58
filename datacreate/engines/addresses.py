"""Finds servers: addresses from the command line, or a folder in which servers register."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datacreate.errors import UsageError

KEY = "DATACREATE_API_KEY"
"""The environment variable with the API key of servers that have not registered their own; no option takes the key."""

_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/|$)")  # an address without http://, as opposed to a path


def api_key() -> str:
    """The servers' API key, or "". UsageError if it cannot be sent in an HTTP header."""
    key = os.environ.get(KEY, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise UsageError(f"${KEY} has a space, a line break or a non-ASCII character; set it to the key only")
    return key


class Address(BaseModel):
    """The address of a server and its slots; the content of the file that a server registers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str  # without /v1 and without a trailing slash
    max_num_seqs: int | None = Field(default=None, gt=0)  # its slots
    key: str = Field(default="", pattern=r"^[!-~]*$", max_length=1000, repr=False)  # API key, if it needs one


class ServerSource(ABC):
    """The servers of a run: those of `--url` (Addresses), or started on this machine (LocalServers)."""

    remote = True  # False if this process starts them
    changes = False  # whether servers may be added later
    description = "this machine"  # for messages
    failed: str | None = None  # why there will be no server any more; None if there may be
    record: Mapping[str, Any] = MappingProxyType({})  # how they were started, for config.json

    @abstractmethod
    def start(self) -> None:
        """Return when the servers accept requests. EngineError if they cannot be started."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the servers that were started."""

    @abstractmethod
    def now(self) -> tuple[Address, ...]:
        """All servers known now."""

    def repair(self, url: str, *, hung: bool) -> str | None:
        """Restart a server that died or hangs; returns a message, None if nothing was done."""
        return None


class Addresses(ServerSource):
    """The value of `--url`: addresses, and folders in which servers register and unregister."""

    def __init__(self, urls: Iterable[str]) -> None:
        """Parse `--url`. UsageError for neither an address nor a folder, or an address with a password."""
        self._key = api_key()
        self._listed: list[Address] = []
        self._folders: list[Path] = []
        names: list[str] = []
        for url in urls:
            path = Path(url).expanduser()
            if url and (path.is_dir() or ("/" in url and "://" not in url and not _HOST_AND_PORT.match(url))):
                self._folders.append(path)  # it may be created later
                names.append(str(path) if path.is_dir() else f"{path} (no such folder yet)")
            else:
                self._listed.append(Address(url=_checked(url), key=self._key))
                names.append(self._listed[-1].url)
        self.changes = bool(self._folders)
        self.description = ", ".join(names)

    def start(self) -> None:
        """They run already, or are waited for by the pool."""

    def stop(self) -> None:
        """They belong to others."""

    def now(self) -> tuple[Address, ...]:
        found = {address.url: address for address in self._listed}
        for path in (path for folder in self._folders for path in sorted(folder.glob("*.json"))):
            # A file may have been removed, be incomplete, or be no address.
            with suppress(OSError, ValidationError, UsageError):
                registered = Address.model_validate_json(path.read_bytes())
                update = {"url": _checked(registered.url), "key": registered.key or self._key}
                found.setdefault(update["url"], registered.model_copy(update=update))
        return tuple(found.values())


def _checked(url: str) -> str:
    """The address without /v1 and trailing slashes. UsageError if it is invalid."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        valid = False
    if not valid:
        given = url or "(empty)"
        raise UsageError(
            f"--url {given}: neither an address nor a folder; write it as http://HOST:PORT, several with commas"
        )
    if parts.username or parts.password:
        raise UsageError(f"--url: an address must not contain a password; set ${KEY} instead")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
