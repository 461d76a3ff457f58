"""SIGINT and SIGTERM end a command with exit code 75, as at the time limit of a cluster.

The first signal raises Interrupt in the main thread: at once, or at the end of a `deferred` block. Later signals
change nothing, so that no clean-up is interrupted.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from datacreate.errors import Stopped

STOPPED = "stopped by a signal"
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Interrupt(BaseException):
    """A signal has arrived. It is not an Exception, because libraries catch these."""


class Signals:
    """Whether a signal has arrived."""

    def __init__(self) -> None:
        self.received = False
        self._raised = False
        self._deferrals = 0

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self._raise()

    def _raise(self) -> None:
        if self.received and not self._deferrals and not self._raised:
            self._raised = True
            raise Interrupt


_current: Signals | None = None


def install() -> Signals:
    """Handle both signals until this process ends. In a thread other than the main one it does nothing."""
    global _current
    _current = signals = Signals()
    for number in _NUMBERS if _is_main_thread() else ():
        signal.signal(number, signals._handle)
    return signals


def ignore() -> None:
    """Ignore both signals from now on, because the exit code is decided."""
    for number in _NUMBERS if _is_main_thread() else ():
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def caught_signals() -> Iterator[Signals]:
    """Handle both signals in this block, which does work that can be resumed. Raises Stopped.

    In a thread other than the main one it handles none.
    """
    global _current
    if not _is_main_thread():
        yield Signals()
        return
    previous = {} if _current else {number: signal.getsignal(number) for number in _NUMBERS}
    try:
        yield _current or install()
    except Interrupt:
        raise Stopped(f"{STOPPED}; run the same command to resume") from None
    finally:
        if previous:
            for number, handler in previous.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            _current = None


@contextmanager
def deferred() -> Iterator[None]:
    """Raise nothing in this block, so that no step is interrupted; a long block checks `received`."""
    signals = _current
    if signals is None or not _is_main_thread():
        yield
        return
    signals._deferrals += 1
    try:
        yield
    except BaseException:
        signals._raised |= signals.received  # this error ends the command already
        raise
    finally:
        signals._deferrals -= 1
    signals._raise()


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
