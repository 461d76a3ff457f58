"""Run a command that is told to stop when whoever started it is killed, so that none is left on a GPU.

Linux only.

A script of its own (`python leash.py PARENT COMMAND...`) that becomes the command: the wish is kept over
exec. Asking for it between fork and exec (preexec_fn) is not safe where there are threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def leashed(command: Sequence[str]) -> list[str]:
    """The command, that ends with this process."""
    if not sys.platform.startswith("linux"):
        return list(command)
    return [sys.executable, "-I", __file__, str(os.getpid()), *command]


def main() -> None:
    """Ask, and become the command."""
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it was killed before we could ask
        sys.exit(128 + signal.SIGTERM)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
