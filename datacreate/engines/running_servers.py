"""Where the servers of a run are: at the addresses of `--url`, or registered in a folder of `--url`."""

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
    """Where the servers of a model come from: from `--url` (RunningServers), or from this process (LocalServers)."""

    remote = True  # False if this process starts them
    changes = False  # whether other servers may be added during the run
    description = "this machine"  # where they are, for messages
    failed: str | None = None  # why there will be no server any more; None as long as there may be one
    record: Mapping[str, Any] = MappingProxyType({})  # how they were started, for config.json

    @abstractmethod
    def addresses(self) -> tuple[Address, ...]:
        """The servers that are known at this moment."""

    def start(self) -> None:  # noqa: B027 - running servers need nothing
        """Return when the servers that this process starts accept requests. EngineError if they cannot be started."""

    def stop(self) -> None:  # noqa: B027
        """Stop the servers that were started."""

    def repair(self, url: str, *, hung: bool) -> str | None:
        """Restart a server that died or hangs; returns a message, None if nothing was done."""
        return None


class RunningServers(ServerSource):
    """The value of `--url`: addresses, and folders in which servers register and unregister."""

    def __init__(self, urls: Iterable[str]) -> None:
        """Parse `--url`. UsageError for neither an address nor a folder, or an address with a password."""
        self._key = api_key()
        self._listed: list[Address] = []
        self._folders: list[Path] = []
        descriptions: list[str] = []
        for url in urls:
            path = Path(url).expanduser()
            may_be_created = "/" in url and "://" not in url and not _HOST_AND_PORT.match(url)
            if url and (path.is_dir() or may_be_created):
                self._folders.append(path)
                descriptions.append(str(path) if path.is_dir() else f"{path} (no such folder yet)")
            else:
                self._listed.append(Address(url=_checked(url), key=self._key))
                descriptions.append(self._listed[-1].url)
        self.changes = bool(self._folders)
        self.description = ", ".join(descriptions)

    def addresses(self) -> tuple[Address, ...]:
        by_url = {address.url: address for address in self._listed}
        for path in (path for folder in self._folders for path in sorted(folder.glob("*.json"))):
            # A file may have been removed, be incomplete, or not be an address.
            with suppress(OSError, ValidationError, UsageError):
                address = Address.model_validate_json(path.read_bytes())
                url, key = _checked(address.url), address.key or self._key
                by_url.setdefault(url, address.model_copy(update={"url": url, "key": key}))
        return tuple(by_url.values())


def _checked(url: str) -> str:
    """The URL without /v1 and trailing slashes. UsageError if it is invalid."""
    try:
        parsed = urlsplit(url)
        _ = parsed.port  # ValueError if it is none
        is_valid = parsed.scheme in ("http", "https") and bool(parsed.hostname)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise UsageError(
            f"--url {url or '(empty)'}: neither an address nor a folder; write it as http://HOST:PORT, several with "
            "commas"
        )
    if parsed.username or parsed.password:
        raise UsageError(f"--url: an address must not contain a password; set ${KEY} instead")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
