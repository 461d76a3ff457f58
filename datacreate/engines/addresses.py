"""Which servers there are: addresses from the command line, or a folder where servers publish theirs."""

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
"""The environment variable that the servers' API key is read from, the only place for it."""


_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/|$)")
"""An address that lacks its http://, and no path."""


def api_key() -> str:
    """The servers' key, or nothing. UsageError if it cannot be sent in a header."""
    key = os.environ.get(KEY, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise UsageError(f"${KEY} holds a blank, a line break or a letter outside ASCII; set the key alone")
    return key


class Address(BaseModel):
    """Where a server answers, and what it says of itself there: the file that it publishes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str  # without /v1 and without a slash at the end
    model: str | None = None  # as the server calls it; None: it is asked
    max_num_seqs: int | None = Field(default=None, gt=0)  # requests it works on at once


class ServerSource:
    """Where the servers of a run come from: `--url` (Addresses), or this machine (LocalServers)."""

    remote = True  # whether they were running before
    changes = False  # whether more may come
    shown = "this machine"  # all of it in a few words, for messages
    failed: str | None = None  # why no server will come any more; None while one may
    record: Mapping[str, Any] = MappingProxyType({})  # how they were started, for config.json

    def __init__(self, key: str) -> None:
        self.key = key  # that they ask for; empty if none

    def start(self) -> None:
        """Return when they can be asked. EngineError if they cannot be started."""

    def stop(self) -> None:
        """End those that were started."""

    def now(self) -> tuple[Address, ...]:
        """All servers known at this moment."""
        return ()

    def repair(self, url: str, *, hung: bool) -> str | None:
        """Restart a server that died or hangs; returns what was done, None if it was nothing."""
        return None


class Addresses(ServerSource):
    """What `--url` says: addresses, and folders that servers come to and go from."""

    def __init__(self, urls: Iterable[str]) -> None:
        """Read `--url`. UsageError for what is neither an address nor a folder, or holds a password."""
        super().__init__(api_key())
        listed: list[Address] = []
        self._folders: list[Path] = []
        for url in urls:
            if not url.strip():
                raise UsageError("--url: an empty address; write it as http://HOST:PORT")
            place = Path(url).expanduser()
            if place.is_dir() or ("/" in url and "://" not in url and not _HOST_AND_PORT.match(url)):
                self._folders.append(place)  # it may be still to come
            else:
                listed.append(Address(url=_checked(url)))
        self._listed = tuple(dict.fromkeys(listed))
        self.changes = bool(self._folders)
        names = [*(address.url for address in self._listed), *map(str, self._folders)]
        self.shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        if not (self._listed or self._folders):
            raise UsageError("--url: no address; write it as http://HOST:PORT, or name a folder of servers")

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
        except (OSError, ValidationError, UsageError):  # gone, half written, or somebody else's
            continue


def _checked(url: str) -> str:
    """The address without what every address ends in."""
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
        raise UsageError(f"--url: an address with a password in it would be written down; set ${KEY} instead")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
