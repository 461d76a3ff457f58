"""An audit hook that keeps a process on its own machine, and takes down whom it would have called.

Python's own sockets are seen, and not those of native code: tests/offline/test_namespace.py is for these.
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
"""Names the file that every guarded process adds its lines to."""

LIBRARIES = frozenset(
    "huggingface_hub transformers datasets sentence_transformers peft accelerate ray vllm".split()
)
"""Those that read the environment when they are imported."""

_TO_SOCKETS = frozenset(["socket.connect", "socket.sendto", "socket.sendmsg"])
_TO_NAMES = frozenset(["socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"])


class CallsOut(PermissionError):
    """Something other than this machine was to be reached."""


def called(event: str, args: tuple[Any, ...]) -> str | None:
    """The host that an audit event is about; None if it is about none, or a socket of this machine alone."""
    if event in _TO_NAMES:
        host = args[0]
    elif event in _TO_SOCKETS and args[0].family in (AF_INET, AF_INET6) and args[1]:
        host = args[1][0]
    else:
        return None
    return host.decode() if isinstance(host, bytes) else str(host or "")


def is_here(host: str) -> bool:
    """Whether it is this machine's loopback."""
    if host in ("", "localhost"):
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def guard(tell: Callable[[str, str], None]) -> None:
    """From now on a call for another machine is told (event, host), and raises CallsOut."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        host = called(event, args)
        if host is not None and not is_here(host):
            tell(event, host)
            raise CallsOut(f"{event} {host}: nothing may be called but this machine")

    sys.addaudithook(hook)


def guard_and_note() -> None:
    """Guard this process; its calls, and its environment at the import of each library, go to $GUARD_LOG."""
    seen: set[str] = set()

    def note(what: str, **told: Any) -> None:
        line = {"what": what, "pid": os.getpid(), "command": sys.orig_argv, **told}
        with open(os.environ[LOG], "a", encoding="utf-8") as log:  # noqa: PTH123 - before pathlib is there
            log.write(json.dumps(line) + "\n")

    def look(event: str, args: tuple[Any, ...]) -> None:
        if event == "import" and args[0] in LIBRARIES and args[0] not in seen:
            seen.add(args[0])
            note("import", library=args[0], environment=dict(os.environ))

    guard(lambda event, host: note("call", event=event, host=host))
    sys.addaudithook(look)
    atexit.register(lambda: note("end", environment=dict(os.environ)))
