"""One step as a process: its words go to a log, signals are passed on."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datacreate.child_process import supervised
from datacreate.files import storage_error
from datacreate.signals import Signals

_LOOK_SECONDS = 0.2
"""How often a running step is looked at."""

_GRACE_SECONDS = 600.0
"""How long a step may take to end after SIGTERM: training writes a checkpoint first."""

_TAIL_BYTES = 8192

_LONGEST_LINE = 500
"""Characters of a last line that are kept."""


@dataclass(frozen=True)
class Ended:
    """How a step ended: its exit code, negative for a signal, and its last line."""

    code: int
    said: str


def run_process(command: Sequence[str], log: Path, signals: Signals, tell: Callable[[str], None]) -> Ended:
    """Run a command to its end, its output appended to `log`; `tell` gets the last line now and then.

    A signal that arrives meanwhile is passed on, once, and the end waited for. Raises StorageError if
    the log cannot be written.
    """
    try:
        with log.open("ab") as file:
            file.write(f"$ {shlex.join(command)}\n".encode(errors="replace"))
        start = log.stat().st_size
        file = log.open("ab")
    except OSError as error:
        raise storage_error(log, error) from None
    with file:
        # A group of its own: Ctrl-C reaches the step once, through us, and not twice.
        process = subprocess.Popen(
            supervised(command, _GRACE_SECONDS),
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        passed_on = False
        try:
            while process.poll() is None:
                if signals.received and not passed_on:
                    process.terminate()
                    passed_on = True
                try:
                    process.wait(_LOOK_SECONDS)
                except subprocess.TimeoutExpired:
                    tell(last_line(log, start))
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    return Ended(process.returncode, last_line(log, start) or _silent_end(process.returncode))


def last_line(log: Path, start: int) -> str:
    """The last line with something in it since `start` (bytes); a command's own last word before others."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    own = [line for line in lines if line.startswith("datacreate: ")]
    found = (own or lines or [""])[-1].removeprefix("datacreate: ")
    return found[:_LONGEST_LINE]


def _silent_end(code: int) -> str:
    """What to say of a process that said nothing."""
    if code < 0:
        why = "; the memory may have been full" if -code == signal.SIGKILL else ""
        return f"killed by signal {-code}{why}"
    return "" if code == 0 else f"ended with exit code {code}, and said nothing"
