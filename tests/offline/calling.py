"""A process that calls out in every way, and does not mind being refused."""

from __future__ import annotations

import contextlib
import socket


def main() -> None:
    refused = contextlib.suppress(OSError)
    with refused, socket.socket() as outside:
        outside.connect(("192.0.2.1", 80))  # addresses and names that are reserved for documentation
    with refused, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as outside:
        outside.sendto(b"", ("2001:db8::1", 53))
    with refused:
        socket.getaddrinfo("example.invalid", 80)
    with refused:
        socket.gethostbyname("example.invalid")


if __name__ == "__main__":
    main()
