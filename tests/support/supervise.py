"""Run a command, and make sure that all its descendants end with it.

    python3 tests/support/supervise.py COMMAND...

It passes signals on, also when its parent dies, and kills remaining processes after a grace period. If the
command ends and leaves processes, they are killed and named, and the exit code is 1. Linux only
(PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG); standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from types import FrameType

GRACE_SECONDS = 10.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Stopped(BaseException):
    """A signal has arrived, or the parent has ended."""


def descendants() -> list[int]:
    """All running descendants of this process."""
    children: dict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, *_ = path.read_text(errors="replace").rpartition(")")[2].split()
            if state not in "ZX":
                children[int(parent)].append(int(path.parent.name))
    found = [os.getpid()]
    for process in found:
        found += children[process]
    return found[1:]


def name(process: int) -> str:
    """The command line of a process."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ")
        return words.decode(errors="replace").strip()
    except OSError:
        return f"process {process}"


def send(number: int) -> None:
    for process in descendants():
        with suppress(ProcessLookupError):
            os.kill(process, number)


def all_ended(seconds: float) -> bool:
    """Whether all descendants ended in time; reaps orphans meanwhile."""
    end = time.monotonic() + seconds
    while descendants() and time.monotonic() < end:
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.05)
    return not descendants()


def run(command: list[str]) -> int:
    """The command's exit code."""
    # A shell's background job ignores SIGINT.
    child = os.posix_spawnp(command[0], command, os.environ, setsigdef=_SIGNALS)
    while True:
        process, status = os.wait()
        if process == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def main(command: list[str]) -> int:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    for number in _SIGNALS:
        signal.signal(number, stop)
    parent, libc = os.getppid(), ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    try:
        code = run(command) if os.getppid() == parent else 1
        if not all_ended(GRACE_SECONDS):
            print("left behind:", *map(name, descendants()), sep="\n  ", file=sys.stderr)
            code = code or 1
    except Stopped as stopped:
        code = 128 + stopped.args[0]
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        send(stopped.args[0])
        all_ended(GRACE_SECONDS)
    while descendants():
        send(signal.SIGKILL)
        all_ended(1)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
