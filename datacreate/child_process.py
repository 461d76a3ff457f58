"""Runs a command that stops when the process that started it ends, even by kill -9.

This file is also a script, the supervisor: `python child_process.py GRACE_SECONDS COMMAND...`. It starts the command in
a new session and waits. When its standard input closes (the system closes it when the parent dies), or at SIGTERM or
SIGINT, it stops the command and all its child processes: SIGTERM first, SIGKILL after the grace period. Then it removes
the command's folder for temporary files. Works on every POSIX system.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

SCRATCH = "DATACREATE_SCRATCH"
"""The environment variable with the command's folder for temporary files."""


def supervised(command: Sequence[str], grace_seconds: float) -> list[str]:
    """The command line that supervises a command; start it with a pipe as standard input and keep the pipe open."""
    script = str(Path(__file__).resolve())
    return [sys.executable, "-I", "-S", script, str(grace_seconds), *command]


def main() -> None:
    """Run the command of the command line, and end with its exit code or by its signal."""
    with TemporaryDirectory(prefix="datacreate-", ignore_cleanup_errors=True) as scratch:
        code = _run(sys.argv[2:], float(sys.argv[1]), scratch)
    if code < 0:  # killed by a signal: end by the same signal
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)  # a thread still reads standard input


def _run(command: Sequence[str], grace_seconds: float, scratch: str) -> int:
    """Run the command until it ends or must end; returns its code, negative for a signal."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    child = subprocess.Popen(
        command,
        env={**os.environ, SCRATCH: scratch},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_end_with_supervisor,  # no thread runs yet, so it is safe
    )
    threading.Thread(target=_set_at_end_of_input, args=(ending,), daemon=True).start()
    while child.poll() is None and not ending.wait(0.1):
        pass
    for number in (signal.SIGTERM, signal.SIGKILL):  # also of orphaned child processes
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(grace_seconds)
    return child.wait()


def _set_at_end_of_input(event: threading.Event) -> None:
    """Set the event when standard input closes: the parent has ended."""
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    event.set()


def _end_with_supervisor() -> None:
    """Make Linux stop the command if this process itself is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    main()
