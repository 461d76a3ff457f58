"""Which servers there are: addresses from the command line, or a folder where servers publish theirs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datacreate.errors import UsageError

KEY = "DATACREATE_API_KEY"
"""The environment variable that the servers' API key is read from, the only place for it."""


_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/|$)")
"""An address that lacks its http://, and no path."""


class Address(BaseModel):
    """Where a server answers, and what it says of itself there: the file that it publishes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str  # without /v1 and without a slash at the end
    model: str | None = None  # as the server calls it; None: it is asked
    max_num_seqs: int | None = Field(default=None, gt=0)  # requests it works on at once


@dataclass(frozen=True)
class Addresses:
    """What `--url` says: addresses, and folders that servers come to and go from."""

    told: tuple[Address, ...]
    folders: tuple[Path, ...]

    @classmethod
    def of(cls, urls: Iterable[str]) -> Addresses:
        """Read `--url`. UsageError for what is neither an address nor a folder, or holds a password."""
        told, folders = [], []
        for url in urls:
            place = Path(url).expanduser()
            if place.is_dir() or ("/" in url and "://" not in url and not _HOST_AND_PORT.match(url)):
                folders.append(place)  # it may be still to come
            else:
                told.append(Address(url=_checked(url)))
        if not (told or folders):
            raise UsageError("--url: no address; write it as http://HOST:PORT, or name a folder of servers")
        return cls(tuple(dict.fromkeys(told)), tuple(folders))

    def now(self) -> tuple[Address, ...]:
        """All servers that are known at this moment."""
        found = {address.url: address for address in self.told}
        for folder in self.folders:
            for address in _published(folder):
                found.setdefault(address.url, address)
        return tuple(found.values())

    @property
    def shown(self) -> str:
        """All of it in a few words, for messages."""
        names = [*(address.url for address in self.told), *map(str, self.folders)]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


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
