"""An audit hook that refuses and logs calls to other machines.

It sees the sockets of Python, not those of native code; for these, a test of tests/offline has no network.
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
"""The variable with the log file that every guarded process appends to."""

LIBRARIES = frozenset(
    "huggingface_hub transformers datasets sentence_transformers peft accelerate ray vllm".split()
)
"""They read the environment when they are imported."""

_TO_SOCKETS = frozenset(["socket.connect", "socket.sendto", "socket.sendmsg"])
_TO_NAMES = frozenset(["socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"])


class CallsOut(PermissionError):
    """A call to another machine was refused."""


def called(event: str, args: tuple[Any, ...]) -> str | None:
    """The host of an audit event; None if it has none, or is about a local socket."""
    if event in _TO_NAMES:
        host = args[0]
    elif event in _TO_SOCKETS and args[0].family in (AF_INET, AF_INET6) and args[1]:
        host = args[1][0]
    else:
        return None
    return host.decode() if isinstance(host, bytes) else str(host or "")


def is_local(host: str) -> bool:
    """Whether it is loopback."""
    if host in ("", "localhost"):
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def guard(log: Callable[[str, str], None]) -> None:
    """From now on, a call to another machine is logged as (event, host), and raises CallsOut."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        host = called(event, args)
        if host is not None and not is_local(host):
            log(event, host)
            raise CallsOut(f"{event} {host}: tests may only call this machine")

    sys.addaudithook(hook)


def guard_and_log() -> None:
    """Guard this process; log its calls, and its environment at the import of each library, to $GUARD_LOG."""
    seen: set[str] = set()

    def write(what: str, **fields: Any) -> None:
        line = {"what": what, "pid": os.getpid(), "command": sys.orig_argv, **fields}
        with open(os.environ[LOG], "a", encoding="utf-8") as log:  # noqa: PTH123 - before pathlib is imported
            log.write(json.dumps(line) + "\n")

    def look(event: str, args: tuple[Any, ...]) -> None:
        if event == "import" and args[0] in LIBRARIES and args[0] not in seen:
            seen.add(args[0])
            write("import", library=args[0], environment=dict(os.environ))

    guard(lambda event, host: write("call", event=event, host=host))
    sys.addaudithook(look)
    atexit.register(lambda: write("end", environment=dict(os.environ)))
