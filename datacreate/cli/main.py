"""The `datacreate` command: signals, standard streams, exit codes; errors are printed as one line.

Signals are handled before anything slow is imported. Losing stdout or stderr never stops a command.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, NoReturn

from datacreate import signals
from datacreate.errors import RESUMABLE
from datacreate.messages import safe_line


class _Output(io.FileIO):
    """Standard output or error. What cannot be written is dropped; `error` is the reason."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            if (written := super().write(data)) is not None:
                return written
            self.error = BlockingIOError("it is busy")  # a non-blocking pipe
        except OSError as error:
            self.error = error
        return len(data)


def main() -> NoReturn:
    """Run the command line."""
    message, code = signals.STOPPED, RESUMABLE
    try:
        received = signals.install()
        message, code = _run(received)
        signals.ignore()
    except signals.Interrupt:
        signals.ignore()
    if message:
        # One line, without the control characters of a model's text or a file's name.
        print(f"datacreate: {safe_line(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(code)


def _run(received: signals.Signals) -> tuple[str, int]:
    """Run the command; returns the error line, or an empty text, and the exit code."""
    stdout = _open_streams()
    try:
        from datacreate.cli.group import run

        message, code = run()
    except BaseException:  # a library may have replaced Interrupt by an error of its own
        if not received.received:
            raise
        return signals.STOPPED, RESUMABLE
    sys.stdout.flush()
    if received.received and code != RESUMABLE:
        return signals.STOPPED, RESUMABLE
    if not message and stdout and (error := stdout.error) and not isinstance(error, BrokenPipeError):
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return f"standard output cannot be written: {error.strerror or error}", RESUMABLE if is_full else 1
    return message, code


def _open_streams() -> _Output | None:
    """Make both streams safe: errors are kept, and characters that cannot be encoded are escaped.

    Returns standard output; None if a test has replaced it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: no file may get its number (open takes the lowest free one)
            # Only stderr may be written: stdout reports that it cannot be.
            flags = os.O_WRONLY if number == 2 else os.O_RDONLY
            os.set_inheritable(os.open(os.devnull, flags), True)  # noqa: FBT003 (takes no keywords)
    stdout = None
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue
        output = _Output(descriptor, "w", closefd=False)
        by_line = name == "stderr" or output.isatty() or bool(stream and stream.write_through)
        encoding = stream.encoding if stream else "utf-8"
        buffer = io.BufferedWriter(output)
        setattr(sys, name, io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=by_line))
        if name == "stdout":
            stdout = output
    return stdout
