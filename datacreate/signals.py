"""Turns SIGINT and SIGTERM into `Stopped`, so that a time limit of a cluster ends a command cleanly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from datacreate.errors import Stopped


class Signals:
    """Raises Stopped when a signal arrives; inside `deferred` it only sets `received`."""

    def __init__(self) -> None:
        self.received = False
        self._deferred = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Do not raise in this block, so that no step is interrupted; the block checks `received`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if not self._deferred:
            raise Stopped("stopped by a signal; run the same command to resume")


@contextmanager
def caught_signals() -> Iterator[Signals]:
    """Handle both signals in this block. Only the main thread receives signals."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    previous = {number: signal.signal(number, signals.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
