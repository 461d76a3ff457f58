"""Say which network interfaces there are, and which are up: a JSON object, name -> up.

With `--loopback COMMAND...`, bring `lo` up and become the command. For a namespace made by unshare.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import sys

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_REQUEST = "16sH22x"  # struct ifreq


def flags(name: str, control: socket.socket) -> int:
    answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack(_REQUEST, name.encode(), 0))
    return int(struct.unpack(_REQUEST, answer)[1])


def main(arguments: list[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        if arguments[:1] == ["--loopback"]:
            told = struct.pack(_REQUEST, b"lo", flags("lo", control) | _IFF_UP)
            fcntl.ioctl(control, _SIOCSIFFLAGS, told)
        here = {name: bool(flags(name, control) & _IFF_UP) for _, name in socket.if_nameindex()}
    if arguments[1:]:
        os.execvp(arguments[1], arguments[1:])
    print(json.dumps(here))


if __name__ == "__main__":
    main(sys.argv[1:])
