"""A process that tries every kind of call to another machine."""

from __future__ import annotations

import socket
from contextlib import suppress

if __name__ == "__main__":
    with suppress(OSError), socket.socket() as outside:
        outside.connect(("192.0.2.1", 80))  # addresses and names that are reserved for documentation
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as outside:
        outside.sendto(b"", ("2001:db8::1", 53))
    with suppress(OSError):
        socket.getaddrinfo("example.invalid", 80)
    with suppress(OSError):
        socket.gethostbyname("example.invalid")
