"""An audit hook that blocks and logs connections to other machines.

It sees Python's sockets only; a test in tests/offline covers those of native code.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Callable
from ipaddress import ip_address
from socket import AF_INET, AF_INET6
from typing import Any

LOG = "GUARD_LOG"
"""The environment variable with the path of the log of all guarded processes."""

LIBRARIES = frozenset("huggingface_hub transformers datasets sentence_transformers peft accelerate ray vllm".split())
"""Libraries that read the environment when they are imported."""

_TO_SOCKETS = frozenset(["socket.connect", "socket.sendto", "socket.sendmsg"])
_TO_NAMES = frozenset(["socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"])


class CallsOut(PermissionError):
    """A connection to another machine was attempted."""


def called(event: str, args: tuple[Any, ...]) -> str | None:
    """The host of an audit event; None if it has none."""
    if event in _TO_NAMES:
        host = args[0]
    elif event in _TO_SOCKETS and args[0].family in (AF_INET, AF_INET6) and args[1]:
        host = args[1][0]
    else:
        return None
    return host.decode() if isinstance(host, bytes) else str(host or "")


def is_local(host: str) -> bool:
    """Whether the host is the loopback address."""
    if host in ("", "localhost"):
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def guard(report: Callable[[str, str], None]) -> None:
    """From now on a connection to another machine calls `report(event, host)` and raises CallsOut."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        host = called(event, args)
        if host is not None and not is_local(host):
            report(event, host)
            raise CallsOut(f"{event} {host}: connections to other machines are blocked")

    sys.addaudithook(hook)


def guard_and_log() -> None:
    """Guard this process, and log its connections, and its environment at the import of each library."""
    seen: set[str] = set()

    def log(what: str, **details: Any) -> None:
        line = {"what": what, "pid": os.getpid(), "command": sys.orig_argv, **details}
        with open(os.environ[LOG], "a", encoding="utf-8") as file:  # noqa: PTH123 - pathlib may not be imported yet
            file.write(json.dumps(line) + "\n")

    def watch_imports(event: str, args: tuple[Any, ...]) -> None:
        if event == "import" and args[0] in LIBRARIES and args[0] not in seen:
            seen.add(args[0])
            log("import", library=args[0], environment=dict(os.environ))

    guard(lambda event, host: log("call", event=event, host=host))
    sys.addaudithook(watch_imports)
    atexit.register(lambda: log("end", environment=dict(os.environ)))
